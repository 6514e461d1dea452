"""`usage: {include: true}`: what a call cost, told in its answer's own usage object, as OpenRouter's clients read it.

The figure is the ledger's: the answer's tokens at the price of the instant the call was admitted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.answers import Streamed, Whole
from gateway.call import UNREADABLE_JSON
from gateway.stream import event_data
from shared.money import decimal_from_nano
from shared.usage.rejected import EventRejected
from shared.usage.tokens import count_tokens, processing_tier

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.providers.base import AnswerStream
    from shared.pricing.pricer import Pricer

Usage = dict[str, Any]
CostOf = Callable[[Usage, str], str | None]

_EVENTS = re.compile(rb"(?<=\n\n)|(?<=\r\r)|(?<=\r\n\r\n)")


def with_cost(answer: Whole | Streamed, pricer: Pricer) -> Whole | Streamed:
    """The answer with `usage.cost` in it; as it is where it holds no usage."""
    exchange = answer.exchange
    if exchange is None:
        return answer

    def cost_of(usage: Usage, tier: str) -> str | None:
        return cost_usd(exchange, usage, tier, pricer)

    if isinstance(answer, Streamed):
        stream = PricedStream(answer.stream, cost_of)
        return replace(answer, stream=stream, first=stream.priced(answer.first))
    if answer.usage is None:
        return answer
    return replace(answer, content=_priced(answer.content, cost_of, answer.tier))


def cost_usd(exchange: Exchange, usage: Usage, tier: str, pricer: Pricer) -> str | None:
    """What the ledger bills for such usage, as a decimal in USD; None where it is in no price book."""
    checked = exchange.answer
    try:
        tokens = count_tokens(usage, checked.provider)
    except EventRejected:
        return None  # the ledger estimates it
    if tokens is None:
        return None
    cost_nano_usd = pricer.rate(
        checked.tenant,
        checked.provider,
        checked.model,
        checked.deployment,
        exchange.region,
        checked.admitted_at_utc,
        tokens,
        processing_tier(tier, usage),
    ).cost_nano_usd
    return None if cost_nano_usd is None else decimal_from_nano(cost_nano_usd)


class PricedStream:
    """A stream whose usage says what it cost; everything else is the inner stream's."""

    def __init__(self, inner: AnswerStream, cost_of: CostOf) -> None:
        self._inner = inner
        self._cost_of = cost_of

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def feed(self, piece: bytes) -> bytes:
        """As the inner stream's, priced."""
        return self.priced(self._inner.feed(piece))

    def rest(self) -> bytes:
        """As the inner stream's, priced."""
        return self.priced(self._inner.rest())

    def priced(self, events: bytes) -> bytes:
        """Whole events, with the cost in those that tell usage."""
        if b'"usage"' not in events:
            return events
        return b"".join(self._event(event) for event in _EVENTS.split(events))

    def _event(self, event: bytes) -> bytes:
        if b'"usage"' not in event:
            return event
        data = event_data(event) or b""
        told = _priced(data, self._cost_of, self._inner.tier)
        if told is data:
            return event
        others = [line + b"\n" for line in event.splitlines() if line and not line.startswith(b"data:")]
        return b"".join(others) + b"data: " + told + b"\n\n"


def _priced(content: bytes, cost_of: CostOf, tier: str) -> bytes:
    """A JSON object with the cost in its usage, or in its response's; the very same bytes when there is none."""
    try:
        body = msgspec.json.decode(content)
    except UNREADABLE_JSON:
        return content
    holder = body.get("response") if isinstance(body, dict) and isinstance(body.get("response"), dict) else body
    usage = holder.get("usage") if isinstance(holder, dict) else None
    if not isinstance(usage, dict):
        return content
    cost = cost_of(usage, tier)
    usage["cost"] = None if cost is None else msgspec.Raw(cost.encode())  # OpenRouter's clients expect a number
    return msgspec.json.encode(body)
