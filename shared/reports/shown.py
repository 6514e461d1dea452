"""Amounts as people read them: rounded so that what is shown in a column still adds up to what is shown below it."""

from __future__ import annotations

from collections.abc import Sequence

from shared.money import NANO_PER_USD, scale_half_up, scale_parts

MINUS = "\u2212"
_DIGITS = 9


def decimals_for(total_nano: int) -> int:
    """How many decimals a table with this total deserves: cents of a bill, more of small change."""
    whole = abs(total_nano)
    return (
        2 if whole >= 100 * NANO_PER_USD else 4 if whole >= NANO_PER_USD else 6 if whole >= NANO_PER_USD // 100 else 9
    )


def amount(nano: int, decimals: int = 2) -> str:
    """Rounded half-up, thousands apart: `1,234.57`."""
    unit = 10 ** (_DIGITS - decimals)
    return _spelled(scale_half_up(nano, 1, unit), decimals)


def column(parts_nano: Sequence[int], decimals: int) -> list[str]:
    """Parts of a sum, rounded by largest remainder: their shown values add up to the shown sum."""
    unit = 10 ** (_DIGITS - decimals)
    return [_spelled(units, decimals) for units in scale_parts(parts_nano, 1, unit)]


def percent(part: int, whole: int) -> str:
    """A share with one decimal; a dash where nothing can be divided."""
    if whole <= 0:
        return "\u2013"
    mille = (2000 * part + whole) // (2 * whole)
    sign = MINUS if mille < 0 else ""
    return f"{sign}{abs(mille) // 10}.{abs(mille) % 10} %"


def _spelled(units: int, decimals: int) -> str:
    whole, rest = divmod(abs(units), 10**decimals)
    return f"{MINUS if units < 0 else ''}{whole:,}.{rest:0{decimals}d}"
