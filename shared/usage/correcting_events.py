"""What corrects the record after the fact: rating a call again, and an amount that belongs to no call.

Only the product itself publishes these. They carry who and why, because a bill that changed must say so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shared.errors import InvalidRequest
from shared.money import nano_from_decimal
from shared.scopes import validate_scopes, validate_tenant
from shared.usage.event_fields import DerivedIdentifier, Label, Text

RE_RATE_TYPE = "tollkeeper.re_rate.v1"
CORRECTION_TYPE = "tollkeeper.correction.v1"

Run = Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]


class ReRateData(Struct, kw_only=True):
    """Rate a call again by the prices in force. What the call used, and what was billed, stands in the ledger."""

    tenant: Label
    call: DerivedIdentifier  # the id under which the call stands in the ledger
    run: Run  # tells the re-rates of one call apart
    config_version: Label  # what the asker knew: a worker that is behind reads the configuration first
    who: Text
    why: Text


class CorrectionData(Struct, kw_only=True):
    """An amount on the bill that no call explains, such as a variance of the provider's invoice."""

    tenant: Label
    amount: Annotated[str, Meta(max_length=32)]  # USD, signed
    who: Text
    why: Text
    scopes: dict[str, str] = msgspec.field(default_factory=dict)
    provider: Label = ""
    deployment: Label = ""
    region: Label = ""

    @property
    def amount_nano_usd(self) -> int:
        """The amount in nano-USD; cannot fail on a decoded event."""
        return nano_from_decimal(self.amount)


class ReRateEvent(Struct, frozen=True):
    """A checked re-rate."""

    source: str
    id: str
    time_utc: datetime  # of the call, which leads to the ledger row
    data: ReRateData
    content_digest: str


class CorrectionEvent(Struct, frozen=True):
    """A checked correction."""

    source: str
    id: str
    time_utc: datetime  # the day it is about
    data: CorrectionData
    content_digest: str


def re_rate_id(call: str, run: str) -> str:
    """The id of a re-rate's event and row: the call's with the run behind it."""
    return f"{call}/re-rate/{run}"


def check_re_rate(id_: str, data: ReRateData) -> None:
    """InvalidRequest unless the id follows from the call and the run: two ids of one run would both be billed."""
    validate_tenant(data.tenant, "data.tenant")
    if id_ != re_rate_id(data.call, data.run):
        raise InvalidRequest("id: expected that of the call with '/re-rate/' and the run behind it", param="id")


def check_correction(data: CorrectionData) -> None:
    """InvalidRequest naming the field; sorts the scopes."""
    validate_tenant(data.tenant, "data.tenant")
    data.scopes = validate_scopes(data.scopes, "data.scopes")
    try:
        nano_from_decimal(data.amount)
    except ValueError as error:
        raise InvalidRequest(f"data.amount: {error}", param="data.amount") from None
