"""How many input tokens a call will use, before the model has counted them."""

from __future__ import annotations

BYTES_PER_TOKEN = 4  # of UTF-8 text; what JSON adds around it makes the estimate a little high, the safe side
DEFAULT_INPUT_TOKENS = 1_000


def estimate_input_tokens(
    input_tokens: int | None, input_bytes: int | None, default: int = DEFAULT_INPUT_TOKENS
) -> int:
    """The caller's own count, else a token for every four bytes begun, else the default. Neither may be negative."""
    if input_tokens is not None:
        return input_tokens
    if input_bytes is not None:
        return -(-input_bytes // BYTES_PER_TOKEN)
    return default
