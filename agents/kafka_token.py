"""The token that clients show to Kafka (SASL OAUTHBEARER, KIP-255), from the configuration or from a file."""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas.config.kafka import KafkaConfig

UNKNOWN_LIFE_S = 300.0
"""Of a token that doesn't say when it expires. librdkafka asks for the next one after four fifths of it."""


class TokenError(ValueError):
    """No token to show; the message names the file or the key, and nothing that it holds."""


class Token(NamedTuple):
    """What is shown, and until when it may be, in seconds since 1970."""

    value: str
    expires_s: float
    extensions: Mapping[str, str]


class KafkaToken:
    """Gives the token to librdkafka and to aiokafka, which ask when they need one."""

    def __init__(self, config: KafkaConfig, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._extensions: Mapping[str, str] = config.sasl_oauthbearer_extensions

    def read(self) -> Token:
        """The token as it is now. Raises OSError, or `TokenError` if there is none that is still valid."""
        file, now_s = self._config.sasl_oauthbearer_file_path, self._clock()
        name = "ingest.kafka.sasl_oauthbearer_token" if file is None else str(file)
        text = self._config.sasl_oauthbearer_token.get_secret_value() if file is None else file.read_text()
        value, extensions = _parts(name, text)
        expires_s = _expiry(value)
        if expires_s is not None and expires_s <= now_s:
            raise TokenError(f"{name}: the token for Kafka expired {now_s - expires_s:.0f} s ago; renew it")
        return Token(
            value,
            now_s + UNKNOWN_LIFE_S if expires_s is None else expires_s,
            {**self._config.sasl_oauthbearer_extensions, **extensions},
        )

    def for_librdkafka(self, _: str) -> tuple[str, float, str, dict[str, str]]:
        """Its `oauth_cb`. If this raises, librdkafka says so and asks again after ten seconds."""
        token = self.read()
        return token.value, token.expires_s, "", dict(token.extensions)

    async def token(self) -> str:
        """What aiokafka asks for at each connection; `extensions` is asked for next."""
        token = await asyncio.to_thread(self.read)
        self._extensions = token.extensions
        return token.value

    def extensions(self) -> Mapping[str, str]:
        """Those that go with the token."""
        return self._extensions


def _parts(name: str, text: str) -> tuple[str, dict[str, str]]:
    """The token of a file, and its extensions."""
    text = text.strip()
    if not text.startswith("{"):
        return _checked(name, text), {}
    try:
        found: Any = json.loads(text)
        value, extensions = found["token"], found.get("extensions") or {}
    except (ValueError, KeyError):
        raise TokenError(f"{name}: must be JSON with a token") from None
    if not isinstance(value, str) or not isinstance(extensions, dict):
        raise TokenError(f"{name}: its token must be a text, and its extensions a mapping")
    return _checked(name, value), {str(key): str(text) for key, text in extensions.items()}


def _checked(name: str, token: str) -> str:
    """It stands in a message whose parts are separated by control characters."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError(f"{name}: must be a token in one line, or JSON with a token")
    return token


def _expiry(token: str) -> float | None:
    """When a JSON Web Token says that it expires (RFC 7519 §4.1.4); None: it doesn't."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
