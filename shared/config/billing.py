"""What billing.yaml means once validated: what is put on top of usage, and how what nobody used alone is shared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from shared.config.reconciliation import AnomalyFloors, Reconciliation

Idle = Literal["separate", "proportional", "owner"]
SharedBy = Literal["tokens", "cost", "even"]

WEIGHT_UNITS = 1_000  # weights have three decimals


class Percent(msgspec.Struct, frozen=True):
    """A percentage in parts per million, in force from an instant on until the next entry."""

    ppm: int
    effective_from: datetime
    label: str
    tenant: str | None = None  # None: of every tenant that has no entry of its own


class PoolTerm(msgspec.Struct, frozen=True):
    """What a pool costs from an instant on until its next term. Exactly one of the two prices is set."""

    effective_from: datetime
    units: int = 0  # throughput units; 0 ends the pool
    usd_per_unit_hour_nano: int | None = None
    usd_per_month_nano: int | None = None

    @property
    def covers(self) -> bool:
        """Whether calls are covered while the term is in force."""
        return self.units > 0 or bool(self.usd_per_month_nano)


class Pool(msgspec.Struct, frozen=True):
    """Capacity paid for whether used or not: provisioned throughput, or anything else at a fixed price."""

    id: str
    tenant: str
    label: str
    kind: Literal["ptu", "fixed"]
    deployments: frozenset[str]  # calls to these are covered
    terms: tuple[PoolTerm, ...]  # oldest first
    weights: Mapping[str, int] = msgspec.field(default_factory=dict)  # token kind -> thousandths; absent: 1
    model_weights: Mapping[str, Mapping[str, int]] = msgspec.field(default_factory=dict)  # model -> as `weights`
    tokens_per_minute_per_unit: int | None = None  # weighted tokens; None: all of the price is used, none is idle
    idle: Idle = "separate"
    owner: str | None = None  # the team that pays for idle capacity with `idle: owner`

    def weight(self, model: str, kind: str) -> int:
        """Thousandths of a weighted token that one token of a kind counts."""
        return self.model_weights.get(model, {}).get(kind, self.weights.get(kind, WEIGHT_UNITS))

    def term_at(self, instant_utc: datetime) -> PoolTerm | None:
        """The term in force at an instant."""
        past = [term for term in self.terms if term.effective_from <= instant_utc]
        return past[-1] if past else None


class SharedTerm(msgspec.Struct, frozen=True):
    """What a shared cost is from an instant on."""

    effective_from: datetime
    usd_per_month_nano: int  # 0 ends it


class SharedCost(msgspec.Struct, frozen=True):
    """A cost of the platform that teams share: the gateway, Redis, logs."""

    id: str
    tenant: str
    label: str
    by: SharedBy
    terms: tuple[SharedTerm, ...]  # oldest first
    include: frozenset[str] = frozenset()  # teams; empty: all
    exclude: frozenset[str] = frozenset()


class Billing(msgspec.Struct, frozen=True):
    """How usage becomes a bill."""

    issuer: str = "Tollkeeper"
    close_day: int = 3  # of the month after, at which it is closed
    markup: tuple[Percent, ...] = ()
    tax: tuple[Percent, ...] = ()
    pools: tuple[Pool, ...] = ()
    shared: tuple[SharedCost, ...] = ()
    dashboard_edits: Literal["git_wins", "keep"] = "git_wins"
    reconciliation: Reconciliation = Reconciliation()
    anomalies: AnomalyFloors = AnomalyFloors()


def percent_at(entries: tuple[Percent, ...], tenant: str, instant_utc: datetime) -> Percent | None:
    """The newest entry of the tenant that is in force at an instant; those of every tenant when it has none of its own.

    None when none is in force, and for an entry of zero percent, which ends one.
    """
    own = [entry for entry in entries if entry.tenant == tenant]
    rest = [entry for entry in entries if entry.tenant is None]
    for candidates in (own, rest):
        past = [entry for entry in candidates if entry.effective_from <= instant_utc]
        if past:
            newest = max(past, key=lambda entry: entry.effective_from)
            return newest if newest.ppm else None
    return None
