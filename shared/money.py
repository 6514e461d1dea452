"""Exact money. Unit prices are integer pico-USD per token, amounts integer nano-USD, JSON carries decimal strings.

No float ever holds money here: 0.1 has no exact double, and a statement must add up to the nano-dollar.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

NANO_PER_USD = 1_000_000_000
PICO_PER_NANO = 1_000
MAX_NANO_USD = 2**63 - 1  # Redis counters and Table Storage Int64 end here: 9.2 billion USD
_EXACT = Context(prec=64, traps=[Inexact, InvalidOperation, Overflow])  # the default rounds to 28 digits in silence


def nano_from_decimal(text: str | Decimal | int) -> int:
    """Nano-USD from a decimal amount in USD such as `"12.345678901"`.

    Raises ValueError for anything that is not a finite decimal, has more than nine decimals, or passes int64.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal amount") from None
    if not amount.is_finite():
        raise ValueError(f"{text!r} is not a finite amount")
    limit = MAX_NANO_USD // NANO_PER_USD
    if not -limit <= amount <= limit:  # comparing is exact; abs() would round, and overflow on "10e999999"
        raise ValueError(f"{text!r} is beyond the largest amount, {limit} USD")
    try:
        return int(amount.scaleb(9, _EXACT).to_integral_exact(context=_EXACT))
    except Inexact:
        raise ValueError(f"{text!r} has more than nine decimals") from None


def decimal_from_nano(amount_nano_usd: int) -> str:
    """The exact decimal string of an amount, at least two decimals: `"0.001125"`, `"100.00"`."""
    sign = "-" if amount_nano_usd < 0 else ""
    dollars, nanos = divmod(abs(amount_nano_usd), NANO_PER_USD)
    decimals = f"{nanos:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def pico_per_token(usd_per_million: str | Decimal | int) -> int:
    """Pico-USD per token from a price in USD per million tokens; one micro-USD per million is one pico-USD per token.

    Raises ValueError for a negative price or one finer than a pico-USD per token.
    """
    try:
        price = Decimal(usd_per_million)
    except InvalidOperation:
        raise ValueError(f"{usd_per_million!r} is not a decimal price") from None
    if not price.is_finite() or price < 0 or price > 1_000_000:
        raise ValueError(f"{usd_per_million!r} is not a price between 0 and 1000000 USD per million tokens")
    try:
        return int(price.scaleb(6, _EXACT).to_integral_exact(context=_EXACT))
    except Inexact:
        raise ValueError(f"{usd_per_million!r} is finer than one pico-USD per token (six decimals)") from None


def line_nano_usd(tokens: int, unit_pico_usd: int) -> int:
    """The amount of one line, rounded half-up once: `tokens x unit price`."""
    return (tokens * unit_pico_usd + PICO_PER_NANO // 2) // PICO_PER_NANO


def split_largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Split an integer by weights so that the parts always sum to the whole; ties go to the earlier part.

    Raises ValueError when there is no weight to split by.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError("a split needs weights that are not negative and not all zero")
    return scale_parts(weights, total, whole, total)


def scale_half_up(amount: int, numerator: int, denominator: int) -> int:
    """`amount x numerator / denominator` in whole units, half-up (a half below zero goes up too)."""
    return (2 * amount * numerator + denominator) // (2 * denominator)


def scale_parts(parts: Sequence[int], numerator: int, denominator: int, total: int | None = None) -> list[int]:
    """Each part times a ratio, by largest remainder, so that they sum to `total`: by default their own sum, scaled.

    Takes negative parts too, as a team may be owed money. Ties go to the earlier part. Raises ValueError for a total
    that rounding alone cannot explain.
    """
    if total is None:
        total = scale_half_up(sum(parts), numerator, denominator)
    scaled = [divmod(part * numerator, denominator) for part in parts]
    whole = [share for share, _ in scaled]
    missing = total - sum(whole)
    if not 0 <= missing <= len(parts):
        raise ValueError(f"{len(parts)} parts cannot be scaled to {total}: they make {sum(whole)}")
    for i in sorted(range(len(whole)), key=lambda i: (-scaled[i][1], i))[:missing]:
        whole[i] += 1
    return whole
