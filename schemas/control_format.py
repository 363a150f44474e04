"""How control records are written to a partition and read from it: with keys they are signed, and the others refused.

Whoever may write to the topics may write control records. A signature (HMAC-SHA256) is over the message and the place
for which it was made, so that a record can't be brought to another topic or partition; brought to its own place again
it changes nothing, since control records may come any number of times.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from schemas.control import CONTROL_HEADER, Control, decode_control, encode_control
from schemas.errors import Malformed, Reason

SIGNATURE_HEADER = "spanmill-control-signature"
"""The record header that holds the signature: 32 bytes."""

MIN_KEY_CHARACTERS = 32
UNSIGNED = "unsigned"
"""The line of a key file with which unsigned records are accepted too."""

_PURPOSE = b"spanmill control record, version 1"

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class ControlKeys:
    """The shared secrets of an installation: the first signs, all verify. Without any nothing is signed or refused."""

    keys: tuple[bytes, ...] = field(default=(), repr=False)
    accepts_unsigned: bool = False
    """Also with keys: while they are being introduced, and for a replay of what was written before."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The contents of a key file: a key a line; `#` begins a remark. Raises ValueError, which shows no key."""
        lines = [line.strip() for line in text.splitlines()]
        named = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
        keys = [(number, line) for number, line in named if line != UNSIGNED]
        for number, key in keys:
            if len(key) < MIN_KEY_CHARACTERS:
                raise ValueError(
                    f"line {number}: a key of {len(key)} characters, {MIN_KEY_CHARACTERS} are needed; "
                    "`openssl rand -hex 32` makes one"
                )
        if not keys:
            raise ValueError("there is no key; `openssl rand -hex 32` makes one")
        return cls(tuple(key.encode() for _, key in keys), accepts_unsigned=len(keys) < len(named))

    def at(self, topic: str, partition: int) -> "ControlFormat":
        """The format of the control records of a partition."""
        return ControlFormat(topic, partition, self)


@dataclass(frozen=True, slots=True)
class ControlFormat:
    """How the control records of one partition are written and read."""

    topic: str
    partition: int
    keys: ControlKeys

    def headers(self, control: Control) -> list[tuple[str, bytes]]:
        """The headers of a record that says this; its value is empty."""
        message = encode_control(control)
        headers = [(CONTROL_HEADER, message)]
        if self.keys.keys:
            headers.append((SIGNATURE_HEADER, self._signature(self.keys.keys[0], message)))
        return headers

    def read(self, headers: Headers) -> Control:
        """What a record says. Raises Malformed, with `Reason.SIGNATURE` for one of which nobody may take notice."""
        named = {name.lower(): content or b"" for name, content in headers}
        message = named.get(CONTROL_HEADER, b"")
        if self.keys.keys:
            self._verify(message, named.get(SIGNATURE_HEADER))
        return decode_control(message)

    def _verify(self, message: bytes, signature: bytes | None) -> None:
        if signature is None:
            if self.keys.accepts_unsigned:
                return
            raise Malformed(Reason.SIGNATURE, "a control record that isn't signed")
        if not any(hmac.compare_digest(self._signature(key, message), signature) for key in self.keys.keys):
            raise Malformed(Reason.SIGNATURE, "a control record that is signed with none of the keys, or for elsewhere")

    def _signature(self, key: bytes, message: bytes) -> bytes:
        place = (_PURPOSE, self.topic.encode(), str(self.partition).encode(), message)  # no topic's name has a NUL
        return hmac.digest(key, b"\0".join(place), hashlib.sha256)


NO_KEYS = ControlKeys()
UNVERIFIED = NO_KEYS.at("", 0)
"""Reads the control records of any place, whoever wrote them."""
