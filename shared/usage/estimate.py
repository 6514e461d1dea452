"""How many tokens a call uses, where the model has not counted them, or not yet. Pure."""

from __future__ import annotations

_BYTES_PER_TOKEN = 4  # of UTF-8; in most languages and in code the tokenizers of today come out between 3 and 5
DEFAULT_INPUT_TOKENS = 1_000


def tokens_of_text(size_bytes: int) -> int:
    """Tokens of so many bytes of text: one for every four begun."""
    return -(-size_bytes // _BYTES_PER_TOKEN)


def estimate_input_tokens(
    input_tokens: int | None, input_bytes: int | None, default: int = DEFAULT_INPUT_TOKENS
) -> int:
    """The caller's own count, else that of its bytes, else the default. Neither may be negative.

    What JSON adds around the text makes the bytes' estimate a little high, the safe side.
    """
    if input_tokens is not None:
        return input_tokens
    if input_bytes is not None:
        return tokens_of_text(input_bytes)
    return default
