"""What a statement sums its cells up to: the keys, and the sums."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.ledger.coverage import Coverage, Parts
from shared.reports.charge import Correction
from shared.reports.statement import Usage


class LineKey(NamedTuple):
    """What a usage line is for; empty where the calls did not say."""

    team: str
    app: str
    provider: str
    model: str
    deployment: str


class CorrectionKey(NamedTuple):
    """What a correction line is for."""

    team: str
    correction: Correction
    month: str
    provider: str
    model: str
    remark: str


class PriceKey(NamedTuple):
    """What tells the prices of a statement apart."""

    team: str
    price_id: str
    provider: str
    model: str
    kind: str
    tier: str
    unit_pico: int
    list_pico: int


class KindSum(msgspec.Struct):
    """Sums of one token kind; a call is owed or covered by a pool, never both."""

    tokens: int = 0
    owed_nano_usd: int = 0
    covered_nano_usd: int = 0
    list_pico_usd: int = 0


class LineSum(msgspec.Struct):
    """Sums of one line."""

    requests: int = 0
    tokens: dict[str, int] = msgspec.field(default_factory=dict)
    cost_nano_usd: int = 0
    covered_costs: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])  # measured, estimated, missing
    covered_requests: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    unpriced: int = 0
    kinds: dict[str, KindSum] = msgspec.field(default_factory=dict)

    @property
    def usage(self) -> Usage:
        """As a statement shows it."""
        return Usage(
            requests=self.requests,
            tokens=dict(sorted(self.tokens.items())),
            cost_nano_usd=self.cost_nano_usd,
            coverage=Coverage(Parts(*self.covered_costs), Parts(*self.covered_requests)),
            unpriced_requests=self.unpriced,
        )
