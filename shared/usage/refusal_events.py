"""Calls that a budget refused: they used nothing and cost nothing, and the record says how many and what they spared.

Only the product itself publishes these, one for all like refusals of a few seconds: a client that knocks in a tight
loop must not fill the ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from shared.errors import InvalidRequest
from shared.money import nano_from_decimal
from shared.scopes import validate_scopes, validate_tenant
from shared.usage.event_fields import Label

REFUSAL_TYPE = "tollkeeper.refusal.v1"
MAX_CALLS = 10**9


class RefusalData(Struct, kw_only=True):
    """Refusals of one worker that agree in everything but their estimate."""

    tenant: str
    scopes: dict[str, str]  # without what clients assert themselves
    requested_model: Annotated[str, Meta(min_length=1, max_length=128)]
    reason: Annotated[str, Meta(min_length=1, max_length=64)]  # the refusal's code
    calls: Annotated[int, Meta(ge=1, le=MAX_CALLS)]
    estimate: Annotated[str, Meta(max_length=32)]  # USD: what the requested model was expected to cost, of all calls
    provider: Label = ""
    operation: Label = ""
    region: Label = ""
    status: Annotated[int, Meta(ge=400, le=599)] = 402

    @property
    def estimate_nano_usd(self) -> int:
        """The estimate in nano-USD; cannot fail on a decoded event."""
        return nano_from_decimal(self.estimate)


class RefusalEvent(Struct, frozen=True):
    """A checked refusal event."""

    source: str
    id: str
    time_utc: datetime  # of the first of the calls
    data: RefusalData
    content_digest: str


def check_refusal(data: RefusalData) -> None:
    """InvalidRequest naming the field; sorts the scopes."""
    validate_tenant(data.tenant, "data.tenant")
    data.scopes = validate_scopes(data.scopes, "data.scopes")
    try:
        estimate_nano_usd = nano_from_decimal(data.estimate)
    except ValueError as error:
        raise InvalidRequest(f"data.estimate: {error}", param="data.estimate") from None
    if estimate_nano_usd < 0:
        raise InvalidRequest("data.estimate: must not be negative", param="data.estimate")
