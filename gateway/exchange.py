"""One attempt at a model, from the check's answer to its usage event."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.call import ModelCall
from gateway.events import EventQueue
from shared.usage.build import usage_event_bytes
from shared.usage.event_fields import MAX_LABEL_CHARS
from shared.usage.rejected import EventRejected
from shared.usage.tokens import count_tokens

if TYPE_CHECKING:
    from shared.budgets.answer import CheckAnswer

log = logging.getLogger("tollkeeper.gateway")

MOST_USAGE_BYTES = 32 * 1024  # a provider's usage object is under 1 kB; a huge one would not fit the hub's message
_MOST_USAGE_PARTS = 200  # of it, which come nested two deep; an event too deep could not be written at all


@dataclass
class Exchange:
    """What the event of this attempt will say. `report` is called exactly once, however the attempt ends."""

    source: str
    request_id: str
    call: ModelCall
    answer: CheckAnswer
    attempt: int = 1
    started: float = field(default_factory=time.monotonic)
    region: str = ""

    def report(
        self,
        events: EventQueue,
        *,
        status: int,
        usage: dict[str, Any] | None,
        streamed: bool,
        aborted: bool = False,
        tier: str = "",
        output_tokens_estimate: int | None = None,
    ) -> None:
        """Queue the usage event. Its time is the moment of admission: that fixes hour, period and price.

        `usage` is as `billable` gave it back.
        """
        data = self._data(status=status, usage=usage, streamed=streamed)
        if aborted:
            data["aborted"] = True
            tier = tier or self.call.service_tier  # it broke off before it named the tier that serves it
        if tier := _label(tier):
            data["processing_tier"] = tier
        if output_tokens_estimate is not None:
            data["output_tokens_estimate"] = output_tokens_estimate
        events.put(usage_event_bytes(self.source, self.request_id, self.answer.admitted_at_utc, data))

    def _data(self, *, status: int, usage: dict[str, Any] | None, streamed: bool) -> dict[str, Any]:
        return {
            "tenant": self.answer.tenant,
            "scopes": self.answer.scopes,
            "provider": self.answer.provider,
            "operation": self.call.operation,
            "requested_model": self.answer.requested_model,
            "model": self.answer.model,
            "deployment": self.answer.deployment,
            "region": _label(self.region),
            "streamed": streamed,
            "status": status,
            "usage": usage,
            "reservation": self.answer.reservation,
            "input_tokens_estimate": self.call.input_tokens,
            "max_output_tokens": self.call.max_output_tokens,
            "latency_ms": round((time.monotonic() - self.started) * 1000),
            "decision": self.answer.decision,
            "attempt": self.attempt,
        }

    def billable(self, usage: dict[str, Any] | None) -> dict[str, Any] | None:
        """The usage if ingest can bill by it, else None: then the call is estimated. What contradicts itself would be a
        dead letter, and the call on no bill and in no budget until somebody looks at that.
        """
        if usage is None:
            return None
        try:
            count_tokens(usage, self.answer.provider)
        except EventRejected as error:
            log.error("usage_unreadable: deployment %s, %s", self.answer.deployment, error.message)  # noqa: TRY400
            return None
        try:
            encoded = msgspec.json.encode(usage)
        except RecursionError:
            return None
        fits = len(encoded) <= MOST_USAGE_BYTES and encoded.count(b"{") + encoded.count(b"[") <= _MOST_USAGE_PARTS
        return usage if fits else None


def _label(said: str) -> str:
    """What a backend calls something, if an event can carry it."""
    return said if len(said) <= MAX_LABEL_CHARS and said.isprintable() else ""
