"""Cross-origin resource sharing of the HTTP receivers, with the Collector's answers (Fetch standard §3.2)."""

from collections.abc import Iterable

from aiohttp import hdrs, web

from schemas.config.cors import CorsSettings

METHODS = frozenset({"GET", "HEAD", "POST"})
"""Which pages may ask for: those that need no preflight either."""

SAFE_HEADERS = frozenset({"accept", "accept-language", "content-language", "content-type"})
"""Of which browsers ask nothing, or the receivers need."""

ASKED = ", ".join((hdrs.ORIGIN, hdrs.ACCESS_CONTROL_REQUEST_METHOD, hdrs.ACCESS_CONTROL_REQUEST_HEADERS))
"""What the answer to a preflight depends on."""


class Cors:
    """Answers preflights, and marks the answers that pages of allowed origins may read.

    It only tells browsers what to do: a request of another origin is treated as any, and its page learns nothing.
    """

    def __init__(self, settings: CorsSettings) -> None:
        self._settings = settings
        self._any_origin = "*" in settings.allowed_origins
        self._origins = [tuple(origin.lower().split("*")) for origin in settings.allowed_origins]
        headers = frozenset(header.lower() for header in settings.allowed_headers)
        self._any_header = "*" in headers
        self._headers = SAFE_HEADERS | (headers or {"x-requested-with"})

    async def preflight(self, request: web.Request) -> web.Response:
        """What a browser asks before it sends; an answer without permission means no."""
        response = web.Response(status=204, headers={hdrs.VARY: ASKED})
        asked = request.headers
        method = asked.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD, "")
        names = _names(asked.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, []))
        if self._allows(asked.get(hdrs.ORIGIN)) and method in METHODS and self._allows_headers(names):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = method
            if names:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join(names)
            if self._settings.max_age:
                response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(self._settings.max_age)
        return response

    async def allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Mark an answer, whatever it is, before it is sent."""
        if hdrs.VARY not in response.headers:
            response.headers[hdrs.VARY] = hdrs.ORIGIN
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not self._allows(origin):
            return
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if self._any_origin else origin
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
        if self._settings.exposed_headers and request.method != hdrs.METH_OPTIONS:
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(self._settings.exposed_headers)

    def _allows(self, origin: str | None) -> bool:
        if not origin:
            return False
        return self._any_origin or any(_matches(pattern, origin.lower()) for pattern in self._origins)

    def _allows_headers(self, names: Iterable[str]) -> bool:
        return self._any_header or all(name.lower() in self._headers for name in names)


def _matches(pattern: tuple[str, ...], origin: str) -> bool:
    """Whether an origin is that of a pattern that was split at its `*`."""
    if len(pattern) == 1:
        return origin == pattern[0]
    first, last = pattern
    return len(origin) >= len(first) + len(last) and origin.startswith(first) and origin.endswith(last)


def _names(values: Iterable[str]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]
