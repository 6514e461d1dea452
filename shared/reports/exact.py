"""Exact decimals of report files: integers with a fixed number of decimals, never rounded, never a float."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

# The default context rounds to 28 digits in silence; a cost in pico-USD times a rate may have more.
EXACT = Context(prec=76, traps=[Inexact, InvalidOperation, Overflow])


def scaled(value: int, decimals: int) -> Decimal:
    """`value` divided by 10 to the power of `decimals`, exactly."""
    return Decimal(value).scaleb(-decimals, EXACT)


def plain(number: Decimal) -> str:
    """Digits with a point and at least one decimal, without an exponent: `1250500.0`, `0.000000000125`.

    Readers that tell whole numbers from decimals by their spelling then see one type in a column.
    """
    if not number:
        return "0.0"
    text = str(number)  # several times faster than formatting, which only amounts under a millionth need
    if "E" in text:
        text = f"{number:f}"
    if "." not in text:
        return f"{text}.0"
    text = text.rstrip("0")
    return f"{text}0" if text[-1] == "." else text
