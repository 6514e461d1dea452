"""Who calls, and what a call comes to: an answer in one piece, or one that is relayed while it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.failures import speaks_against_place
from gateway.generated import generated_tokens, uncounted_tokens
from shared.routing.router import ANYWHERE, Bounds
from shared.usage.tokens import count_tokens

if TYPE_CHECKING:
    import httpx

    from gateway.events import EventQueue
    from gateway.exchange import Exchange
    from gateway.providers.base import AnswerStream, Api


@dataclass(frozen=True)
class Caller:
    """Who calls, and what else the call's envelope says."""

    identity: Mapping[str, Any]  # validated claims, as a budget check takes them
    scopes: Mapping[str, str]  # client-asserted
    headers: Mapping[str, str] = field(default_factory=dict)  # of the request: the simulated model reads some
    api_version: str | None = None  # of Azure's paths by deployment
    bounds: Bounds = ANYWHERE


@dataclass(frozen=True)
class Whole:
    """An answer in one piece, be it the model's or a refusal."""

    status: int
    content: bytes
    headers: dict[str, str]
    usage: dict[str, Any] | None = None  # the provider's own object
    exchange: Exchange | None = None  # the attempt that answered; None when no model was asked
    tier: str = ""  # the processing tier that served it, where the provider says


def _nobody(_is_whole: bool) -> None:
    """Whom a stream tells of its end when no place waits to hear it."""


@dataclass
class Streamed:
    """An answer that comes piece by piece.

    Whoever relays it sends `first`, goes on with `pieces` through `stream`, calls `ended` once, and closes `upstream`.
    """

    upstream: httpx.Response
    api: Api
    stream: AnswerStream
    first: bytes  # what the client may see already
    pieces: AsyncIterator[bytes]  # what the provider sends from there on
    headers: dict[str, str]
    exchange: Exchange
    events: EventQueue
    tell_place: Callable[[bool], None] = _nobody  # whether the place that streams it did so to the end
    broken: bool = False  # the provider broke it off; whoever relays it says so

    def ended(self) -> None:
        """Report what the stream used; without the provider's count, what went by is all that anybody knows."""
        if self.broken or self.stream.failed:
            if self.broken or speaks_against_place(self.api.stream_failure(self.stream.error).status):
                self.tell_place(False)
        elif self.stream.finished or self.stream.usage is not None:
            self.tell_place(True)
        report_stream(self.exchange, self.events, self.api, self.stream, self.upstream.status_code)


def report_stream(exchange: Exchange, events: EventQueue, api: Api, stream: AnswerStream, status: int) -> None:
    """The event of a stream that is over, however it ended.

    A count with text behind it is the provider's of how far the stream was then, and the rest is estimated. An error
    before anything was made or counted costs nothing, as in the place of a whole answer.
    """
    if stream.error and not (stream.output_deltas or stream.usage or stream.input_usage):
        failed = api.stream_failure(stream.error)
        exchange.report(events, status=failed.status, usage=None, streamed=True, tier=stream.tier)
        return
    usage = exchange.billable(stream.usage)
    uncounted = generated_tokens(stream) if usage is None else uncounted_tokens(stream)
    is_counted = usage is not None and not uncounted
    exchange.report(
        events,
        status=status,
        usage=exchange.billable(stream.input_usage) if usage is None else usage,
        streamed=True,
        aborted=not is_counted and not stream.finished,
        tier=stream.tier,
        output_tokens_estimate=None if is_counted else uncounted + _told_output_tokens(usage, exchange.answer.provider),
    )


def _told_output_tokens(usage: dict[str, Any] | None, provider: str) -> int:
    told = count_tokens(usage, provider) or {}
    return sum(told.get(kind, 0) for kind in ("output", "output_audio", "output_image"))
