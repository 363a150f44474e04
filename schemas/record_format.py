"""How the records of a spans topic are read: codec, tenant, control records and flags."""

from dataclasses import dataclass

from schemas.control import CONTROL_HEADER
from schemas.control_format import UNVERIFIED, ControlFormat, Headers
from schemas.errors import Malformed
from schemas.otlp import Codec
from schemas.record import DEFAULT_TENANT, NO_METRICS_HEADER, TENANT_HEADER, Record


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """How a spans topic is written: the codec of its values, and where its records name their tenant.

    `otlp` records name it in one of `tenant_headers` (the first that is present), `push-bytes` ones in their key (Tempo
    KFK-2). `controls` is a partition's: without it anybody's control records are taken.
    """

    codec: Codec
    tenant_headers: tuple[str, ...] = (TENANT_HEADER,)
    controls: ControlFormat = UNVERIFIED

    def parse(self, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers) -> Record:
        """A record from its parts as a client delivers them; raises `Malformed`."""
        if not value and not headers and not key:
            return Record(offset, timestamp_ms, b"")
        named = {name.lower(): content for name, content in headers}
        if not value and CONTROL_HEADER in named:
            return Record(offset, timestamp_ms, b"", control=self.controls.read(headers))
        return Record(offset, timestamp_ms, value or b"", self._tenant(key, named), NO_METRICS_HEADER in named)

    def _tenant(self, key: bytes | None, named: dict[str, bytes | None]) -> str:
        if self.codec is Codec.PUSH_BYTES:
            raw = key
        else:
            raw = next((named[name] for name in self.tenant_headers if named.get(name)), None)
        try:
            return raw.decode() if raw else DEFAULT_TENANT
        except UnicodeDecodeError as error:
            raise Malformed(f"tenant {raw!r} is not UTF-8", position=error.start) from error
