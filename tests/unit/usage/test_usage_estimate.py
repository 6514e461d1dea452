"""Estimating input tokens."""

from shared.usage.estimate import DEFAULT_INPUT_TOKENS, estimate_input_tokens


def test_a_stated_count_wins() -> None:
    """The caller's own count is used as it is, even zero."""
    assert estimate_input_tokens(1200, 99) == 1200
    assert estimate_input_tokens(0, 99) == 0


def test_bytes_are_rounded_up_to_tokens() -> None:
    """Every four bytes begun are a token."""
    assert [estimate_input_tokens(None, size) for size in (0, 1, 4, 5, 4000)] == [0, 1, 1, 2, 1000]


def test_nothing_known_gives_the_default() -> None:
    """Without a count or a size the default holds, so an unknown call is never estimated as free."""
    assert estimate_input_tokens(None, None) == DEFAULT_INPUT_TOKENS
    assert estimate_input_tokens(None, None, default=7) == 7
