"""Shares in whole parts per million, and how people write them."""

from __future__ import annotations

from decimal import Decimal

PPM = 1_000_000
PPM_PER_PERCENT = PPM // 100


def percent_of_ppm(ppm: int) -> str:
    """The percentage without needless zeros, exactly: `12.5`."""
    return f"{ppm // PPM_PER_PERCENT}.{ppm % PPM_PER_PERCENT:04d}".rstrip("0").rstrip(".")


def fraction_of_ppm(ppm: int) -> str:
    """The part of one, exactly: `0.8`."""
    return f"{Decimal(ppm) / PPM:f}"
