"""How many tokens a model generated, judged by what of its answer went by. Pure.

Asked only when the provider's own count never came: a stream that broke or was cut before its usage.
"""

from __future__ import annotations

from typing import Protocol

BYTES_PER_TOKEN = 4  # of UTF-8; in most languages and in code the tokenizers of today come out between 3 and 5


class Generating(Protocol):
    """What is known of a stream that broke off."""

    @property
    def output_bytes(self) -> int: ...
    @property
    def output_deltas(self) -> int: ...


def generated_tokens(stream: Generating) -> int:
    """Tokens of the text, arguments and visible reasoning that went by.

    A token for every four bytes begun, but at least one for every piece that carried something, since no provider
    sends less than a token. Reasoning that is not shown cannot be counted, nor can what was generated and not sent.
    """
    return max(stream.output_deltas, -(-stream.output_bytes // BYTES_PER_TOKEN))
