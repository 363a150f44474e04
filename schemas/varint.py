"""Unsigned varints, as protobuf has them: seven bits a byte, the lowest first."""


def _encode(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# Nearly every length that is written is in here, and a look-up costs a third of the loop.
_SHORT = tuple(_encode(n) for n in range(1 << 12))


def uvarint(number: int) -> bytes:
    """The bytes of a number that isn't negative."""
    return _SHORT[number] if number < len(_SHORT) else _encode(number)
