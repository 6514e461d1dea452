"""One ledger row: what a call cost, when, for whom, and where on the hub it came from."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

# re_rate: what a call costs by a price that was not known, or was wrong, when it was billed; beside it stands the
# reversal of what was billed. correction: an amount without tokens. refusal: calls that never reached a model.
RowKind = Literal["usage", "accrual", "reversal", "true_up", "re_rate", "grant", "correction", "refusal"]
PricingStatus = Literal["priced", "unpriced", "none"]  # none: nothing to price (a failed call, a grant)

POSITION_SLACK_MS = 5_000
REVERSAL_SUFFIX = "/reversal"  # behind the id of the row it takes back


class Position(NamedTuple):
    """Where an event stands on the hub. `stream` is `namespace/hub/partition`."""

    stream: str
    enqueued_ms: int
    sequence: int

    def at_or_before(self, other: Position) -> bool:
        """Order inside one stream: enqueue time decides beyond the slack, the sequence number inside it.

        A re-created hub restarts its sequence; by sequence alone its new events would look already applied and
        more than half of the spend would silently go uncounted.
        """
        if abs(self.enqueued_ms - other.enqueued_ms) > POSITION_SLACK_MS:
            return self.enqueued_ms < other.enqueued_ms
        return self.sequence <= other.sequence


class LedgerRow(msgspec.Struct, kw_only=True):
    """A row as the rules see it. The store adds nothing but its keys."""

    tenant: str
    source: str  # CloudEvents source; with `id` the identity
    id: str
    kind: RowKind
    time_utc: datetime  # admission of the call: fixes hour, period and price
    scopes: dict[str, str]
    position: Position
    content_digest: str  # of the event's bytes: the same identity with another digest is a conflict
    charge_nano_usd: int  # what budgets count: the cost, or the guard price while it is unknown; a grant is negative
    cost_nano_usd: int | None = None  # None: unknown, never zero
    tokens: dict[str, int] = msgspec.field(default_factory=dict)  # priced kinds are disjoint; `reasoning` informs only
    lines_nano_usd: dict[str, int] = msgspec.field(default_factory=dict)  # cost per token kind; sums to the cost
    unit_pico: dict[str, int] = msgspec.field(default_factory=dict)  # pico-USD per token that priced each line
    list_pico: dict[str, int] = msgspec.field(default_factory=dict)  # the same off the list, where that differs
    pricing_status: PricingStatus = "priced"
    price_id: str | None = None
    provider: str = ""
    operation: str = ""
    requested_model: str = ""
    model: str = ""
    deployment: str = ""
    region: str = ""
    processing_tier: str = ""  # batch, priority, flex, ...; empty for the standard one
    streamed: bool = False
    status: int = 200
    measured: bool = True  # False: tokens are an estimate
    decision: str = ""
    latency_ms: int | None = None
    attempt: int = 1
    call_id: str = ""  # reversal, true_up and re_rate: the id of the call they correct, beside which they stand
    # What not serving the model that was asked for spared: of a downgrade the same tokens at that model's price less
    # the cost, of a refusal its estimate. None: nothing was spared, or nobody knows how much.
    saved_nano_usd: int | None = None
    refused: int = 0  # refusals only: how many calls
    booked_period: str = ""  # "2026-11": the statement that carries the row; fixed at insert
    cell: str | None = None  # grants only: the one counter they move
    who: str | None = None  # grants, corrections and re-rates: the authenticated person
    why: str | None = None
