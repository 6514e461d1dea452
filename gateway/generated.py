"""How many tokens a model generated, judged by what of its answer went by. Pure.

Asked where the provider's own count never came, or not to the end: a stream that broke or was cut before its usage.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from shared.usage.estimate import tokens_of_text

MOST_BYTES_OF_ONE_TOKEN = 6  # on average; pieces that are larger hold several


class Generating(Protocol):
    """What is known of a stream that broke off."""

    @property
    def output_bytes(self) -> int: ...
    @property
    def output_deltas(self) -> int: ...


class _Generated(NamedTuple):
    output_bytes: int
    output_deltas: int


class Counting(Generating, Protocol):
    """What is known of a stream that told usage on its way."""

    @property
    def counted_bytes(self) -> int: ...
    @property
    def counted_deltas(self) -> int: ...


def uncounted_tokens(stream: Counting) -> int:
    """Tokens that went by behind the last count of the provider's own, or at all."""
    size, deltas = stream.output_bytes - stream.counted_bytes, stream.output_deltas - stream.counted_deltas
    return generated_tokens(_Generated(size, deltas))


def generated_tokens(stream: Generating) -> int:
    """Tokens of the text, arguments and visible reasoning that went by.

    A token for every piece, as OpenAI and Azure send them, while the pieces are as small as tokens are; else, for
    providers that send several at once, a token for every four bytes begun. Reasoning that is not shown cannot be
    counted, nor can what was generated and not sent.
    """
    if stream.output_bytes <= stream.output_deltas * MOST_BYTES_OF_ONE_TOKEN:
        return stream.output_deltas
    return tokens_of_text(stream.output_bytes)
