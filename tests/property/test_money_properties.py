"""Money is exact: what goes in comes out, parts sum to wholes, and nothing is rounded in silence."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.money import (
    MAX_NANO_USD,
    decimal_from_nano,
    line_nano_usd,
    nano_from_decimal,
    pico_per_token,
    split_largest_remainder,
)

WHOLE_DOLLARS_NANO = MAX_NANO_USD // 10**9 * 10**9
amounts = st.integers(-WHOLE_DOLLARS_NANO, WHOLE_DOLLARS_NANO)
digits = st.text("0123456789", min_size=1, max_size=60)


@given(amounts)
def test_an_amount_survives_its_decimal_string(amount_nano_usd: int) -> None:
    """Nano-USD to text and back is the identity, with at least two decimals and no exponent."""
    text = decimal_from_nano(amount_nano_usd)
    assert nano_from_decimal(text) == amount_nano_usd
    assert len(text.partition(".")[2]) >= 2
    assert "e" not in text.lower()


@given(digits, digits)
@example("1", "0" * 40 + "1")
def test_an_amount_is_exact_or_refused(whole: str, decimals: str) -> None:
    """However many digits: the result equals the text as a fraction, or the text is refused; it is never rounded."""
    text = f"{whole}.{decimals}"
    exact = Fraction(text) * 10**9
    if exact.denominator == 1 and exact <= WHOLE_DOLLARS_NANO:
        assert nano_from_decimal(text) == exact
    else:
        with pytest.raises(ValueError, match=r"decimals|beyond"):
            nano_from_decimal(text)


@given(st.text(max_size=40) | st.from_regex(r"-?[0-9]{1,40}(\.[0-9]{1,40})?[eE][-+]?[0-9]{1,12}", fullmatch=True))
@example("10e999999")
@example("1e-999999999")
@example("sNaN")
def test_any_text_is_an_amount_or_a_value_error(text: str) -> None:
    """Nothing but ValueError ever comes out, and no amount beyond int64."""
    try:
        amount_nano_usd = nano_from_decimal(text)
    except ValueError:
        return
    assert abs(amount_nano_usd) <= MAX_NANO_USD


@given(digits, digits)
@example("2", "5" + "0" * 40 + "1")
def test_a_price_is_exact_or_refused(whole: str, decimals: str) -> None:
    """A price finer than a pico-USD per token is refused, not rounded away."""
    text = f"{whole}.{decimals}"
    exact = Fraction(text) * 10**6
    if exact.denominator == 1 and exact <= 10**12:
        assert pico_per_token(text) == exact
    else:
        with pytest.raises(ValueError, match=r"finer|not a price"):
            pico_per_token(text)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_line_is_rounded_half_up_once(tokens: int, unit_pico_usd: int) -> None:
    """The line is the nearest nano-USD to tokens x price, the upper one in the middle."""
    exact = Fraction(tokens * unit_pico_usd, 1000)
    assert -Fraction(1, 2) < line_nano_usd(tokens, unit_pico_usd) - exact <= Fraction(1, 2)


@given(st.integers(-(10**18), 10**18), st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any))
def test_the_parts_of_a_split_sum_to_the_whole(total: int, weights: list[int]) -> None:
    """No nano-dollar is lost or made, and each part is within one of its exact share."""
    parts = split_largest_remainder(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


@given(st.integers(0, 10**12), st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any), st.integers(1, 1000))
def test_a_split_depends_on_proportions_only(total: int, weights: list[int], factor: int) -> None:
    """Weights in other units split alike."""
    assert split_largest_remainder(total, weights) == split_largest_remainder(total, [w * factor for w in weights])


@pytest.mark.parametrize("weights", [[], [0, 0], [2, -1]])
def test_a_split_needs_weights(weights: list[int]) -> None:
    """Without a weight there is nobody to give the amount to."""
    with pytest.raises(ValueError, match="weights"):
        split_largest_remainder(100, weights)


def test_a_decimal_is_taken_as_it_is() -> None:
    """Decimal and int are amounts too."""
    assert nano_from_decimal(Decimal("0.001125")) == 1_125_000
    assert nano_from_decimal(12) == 12 * 10**9
