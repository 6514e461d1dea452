"""The finest line of a bill: one token kind of one day, or one allocated amount. One charge is one FOCUS row.

Units: `*_pico` and `*_nano` are of the statement's currency, `*_pico_usd` and `*_nano_usd` of USD. With a bill in USD
they are the same numbers. Nothing here is a float, and nothing is rounded: where products do not end on a whole
nano-dollar, one charge per team says by how much.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Category = Literal["Usage", "Purchase", "Tax", "Credit", "Adjustment"]
Correction = Literal["", "negative", "new", "adjustment"]
CommitmentStatus = Literal["", "Used", "Unused"]

PPB = 1_000_000_000


class Element(msgspec.Struct, frozen=True, array_like=True):
    """What one share of a split cost was computed from. The ratios of one split sum to exactly one billion."""

    ratio_ppb: int
    unit: str  # "Weighted Tokens", "Tokens", "USD", "Teams"
    quantity: int  # of the team; nano-USD for the unit USD

    @property
    def ratio(self) -> str:
        """The share as a decimal string between 0 and 1 with nine decimals."""
        return f"{self.ratio_ppb // PPB}.{self.ratio_ppb % PPB:09d}"


class Allocation(msgspec.Struct, frozen=True, array_like=True):
    """How a cost that nobody caused alone came to this team."""

    method: str  # "pool-weighted-tokens", "shared-tokens", "shared-cost", "shared-even", "pool-idle-proportional", ...
    origin: str  # id of the pool or shared cost that was split
    elements: tuple[Element, ...] = ()


class Charge(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One charge. Usage: `billed_pico` is exactly `tokens x price_pico`, or 0 where a pool covers the call."""

    category: Category = "Usage"
    correction: Correction = ""  # not "": corrects a closed month (FOCUS ChargeClass Correction)
    starts_utc: datetime
    ends_utc: datetime  # exclusive; usage: the UTC day of the call, which for corrections lies in another month
    description: str
    team: str
    cost_centre: str = ""
    app: str = ""
    provider: str = ""
    model: str = ""
    deployment: str = ""
    region: str = ""
    operation: str = ""
    token_kind: str = ""
    tokens: int = 0
    tier: str = ""
    unit_pico: int | None = None  # contracted pico-USD per token, as the ledger priced it; None: not priced per token
    list_pico: int | None = None  # list pico-USD per token
    price_pico: int | None = None  # `unit_pico` in the statement's currency, half-up to the pico-unit
    list_price_pico: int | None = None  # `list_pico` in the statement's currency
    price_id: str = ""
    pricing_status: Literal["priced", "unpriced", "none"] = "priced"
    measured: bool = True  # False: the tokens are an estimate
    ledger_nano_usd: int = 0  # what the ledger holds for these tokens: the sum of lines rounded once per call
    billed_pico: int = 0  # what is owed
    effective_pico: int = 0  # what is owed with commitments spread over what they covered
    commitment_id: str = ""  # the pool
    commitment_status: CommitmentStatus = ""
    commitment_quantity: int = 0  # Used, Unused: weighted tokens
    allocation: Allocation | None = None

    @property
    def list_cost_pico(self) -> int:
        """The charge at list price; what is owed where nothing is priced per token."""
        return self.billed_pico if self.list_price_pico is None else self.tokens * self.list_price_pico

    @property
    def contracted_cost_pico(self) -> int:
        """The charge at the negotiated price; for a call that a pool covered, its pay-as-you-go equivalent."""
        return self.billed_pico if self.price_pico is None else self.tokens * self.price_pico
