"""Integers of 128 bits as two limbs of 64: the low one unsigned, the high one signed (two's complement)."""

import polars as pl

_HALF = 1 << 32


def split(number: int) -> tuple[int, int]:
    """The low and the high limb of a number. Raises OverflowError beyond 128 bits."""
    if not -(1 << 127) <= number < 1 << 127:
        raise OverflowError(f"{number} has more than 128 bits")
    return number & 0xFFFF_FFFF_FFFF_FFFF, number >> 64


def join(lo: int, hi: int) -> int:
    """The number of two limbs."""
    return (hi << 64) + lo


def sum_expressions(name: str) -> list[pl.Expr]:
    """Aggregations that sum the columns `<name>_lo` and `<name>_hi` as four columns of 32-bit limbs.

    Sums of limbs can't wrap below 2^31 rows. `recombined` makes two columns of them again.
    """
    lo, hi = pl.col(f"{name}_lo"), pl.col(f"{name}_hi")
    return [
        (lo % _HALF).sum().alias(f"{name}_0"),
        (lo // _HALF).sum().alias(f"{name}_1"),
        # Division rounds down, so that the lower limb of a negative number isn't negative.
        (hi - hi // _HALF * _HALF).sum().cast(pl.UInt64).alias(f"{name}_2"),
        (hi // _HALF).sum().alias(f"{name}_3"),
    ]


def recombined(name: str) -> list[pl.Expr]:
    """The columns `<name>_lo` and `<name>_hi` of what `sum_expressions` summed, modulo 2^128."""
    limb0, limb1, limb2, limb3 = (pl.col(f"{name}_{i}") for i in range(4))
    carried1 = limb1 + limb0 // _HALF
    carried2 = limb2 + carried1 // _HALF
    lo = carried1 % _HALF * _HALF + limb0 % _HALF
    hi_upper = limb3 + (carried2 // _HALF).cast(pl.Int64)
    # As 32 bits, signed, so that the product can't leave 64.
    hi_signed = hi_upper - (hi_upper + _HALF // 2) // _HALF * _HALF
    hi = hi_signed * _HALF + (carried2 % _HALF).cast(pl.Int64)
    return [lo.alias(f"{name}_lo"), hi.alias(f"{name}_hi")]
