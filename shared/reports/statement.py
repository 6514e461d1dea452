"""The statement of a month: the one model that every renderer takes its figures from.

Every part names the team it belongs to, so the statement of a team is the tenant's with the other teams left out, and
the teams' totals add up to the tenant's by construction. `*_nano` is of the statement's currency, `*_nano_usd` of USD.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Literal, TypeVar

import msgspec

from shared.ledger.coverage import Coverage
from shared.money import decimal_from_nano
from shared.reports.charge import Correction
from shared.reports.incomplete import incomplete

Status = Literal["draft", "provisional", "final"]
UNASSIGNED = "(unassigned)"  # calls whose scopes name no team still belong to the tenant's bill
PLATFORM = "(platform)"  # idle capacity that is nobody's, and shared costs of a month nobody used

AllocatedKind = Literal["pool", "idle", "shared", "markup", "tax"]
ALLOCATED_KINDS: tuple[AllocatedKind, ...] = ("pool", "idle", "shared", "markup", "tax")  # in the order of the bill


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of calls as the ledger holds them, in USD. Calls without a price cost nothing here and are counted."""

    requests: int = 0
    tokens: Mapping[str, int] = msgspec.field(default_factory=dict)  # by kind; `reasoning` is inside output
    cost_nano_usd: int = 0
    coverage: Coverage = Coverage()  # how much of the cost was measured; its three costs sum to the cost
    unpriced_requests: int = 0

    @property
    def cost(self) -> str | None:
        """The cost as a decimal string; None when no call has a price: unknown, which is not zero.

        Corrections may make it an amount although no call has a price."""
        unknown = self.cost_nano_usd == 0 and self.requests > 0 and self.unpriced_requests == self.requests
        return None if unknown else decimal_from_nano(self.cost_nano_usd)

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        kinds = sorted({*self.tokens, *other.tokens})
        return Usage(
            requests=self.requests + other.requests,
            tokens={kind: self.tokens.get(kind, 0) + other.tokens.get(kind, 0) for kind in kinds},
            cost_nano_usd=self.cost_nano_usd + other.cost_nano_usd,
            coverage=self.coverage.plus(other.coverage),
            unpriced_requests=self.unpriced_requests + other.unpriced_requests,
        )


class KindAmount(msgspec.Struct, frozen=True, kw_only=True):
    """One token kind inside a usage line; the amounts of a line's kinds sum to the line's."""

    kind: str
    tokens: int
    ledger_nano_usd: int
    list_nano: int  # at list price, rounded half-up once
    owed_nano: int
    covered_nano: int  # pay-as-you-go worth of what pools covered: shown, not owed


class UsageLine(msgspec.Struct, frozen=True, kw_only=True):
    """A team's use of one deployment through one app, in the period's own calls."""

    team: str
    cost_centre: str
    app: str
    provider: str
    model: str
    deployment: str
    usage: Usage
    kinds: tuple[KindAmount, ...]

    @property
    def owed_nano(self) -> int:
        """What is owed for it: the ledger's cost without what pools cover."""
        return sum(kind.owed_nano for kind in self.kinds)

    @property
    def covered_nano(self) -> int:
        """What pools cover of it, at pay-as-you-go prices."""
        return sum(kind.covered_nano for kind in self.kinds)


class CorrectionLine(msgspec.Struct, frozen=True, kw_only=True):
    """What calls of a closed month, or its invoice, changed afterwards."""

    team: str
    cost_centre: str
    correction: Correction
    month: str  # that is corrected
    provider: str
    model: str
    remark: str  # why; adjustments only
    usage: Usage
    owed_nano: int
    covered_nano: int


class AllocatedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A team's share of something bought for many, or what is put on top. Its amount is owed."""

    team: str
    cost_centre: str
    kind: AllocatedKind
    id: str  # of the pool or shared cost; "" for markup and tax
    label: str
    basis: str  # for people: "12.5 % of 1,200,000 weighted tokens", "21 % of 1234.50"
    amount_nano: int


class DayAmount(msgspec.Struct, frozen=True, kw_only=True):
    """A team's usage of one UTC day in nano-USD of the ledger, pool-covered calls at their pay-as-you-go worth.

    Corrections of closed months are not in it: their days lie outside the period.
    """

    team: str
    day: date
    ledger_nano_usd: int


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """What downgrades and refusals saved a team, in nano-USD, by the model that was asked for."""

    team: str
    decision: Literal["downgrade", "refuse"]
    requested_model: str
    model: str  # that served instead; "" for refusals
    calls: int
    saved_nano_usd: int


class Unpriced(msgspec.Struct, frozen=True, kw_only=True):
    """Calls whose price is not known yet: they cost nothing on this statement, and will by a correction or re-rate."""

    team: str
    provider: str
    model: str
    calls: int
    tokens: Mapping[str, int]


class PriceUsed(msgspec.Struct, frozen=True, kw_only=True):
    """A price that charges of the statement were made with, in pico-USD per token."""

    team: str
    price_id: str
    provider: str
    model: str
    kind: str
    tier: str
    unit_pico: int
    list_pico: int
    tokens: int


class BudgetStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A monthly budget's own month of the same name, which begins and ends in the budget's time zone."""

    team: str  # "" for budgets of the whole tenant
    id: str
    scope: str
    period: str  # as budgets label it; in the budget's own time zone
    timezone: str
    currency: str
    limit_nano: int  # nano units of the budget's currency
    warn_ppm: int  # thresholds, in parts per million of the limit with what was carried
    degrade_ppm: int
    stop_ppm: int
    carried_nano_usd: int  # brought in by rollover
    limit_nano_usd: int  # the limit at the rate of the period's start, plus what was carried
    spent_nano_usd: int


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Where the running month's usage leads, in nano-USD."""

    value_nano_usd: int
    low_nano_usd: int | None  # P10; None with `high` while too little is known for a range
    high_nano_usd: int | None  # P90
    method: str


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange rate a statement was converted at: in force at the period's first instant."""

    currency: str
    usd_per_unit_nano: int
    effective_from: datetime
    source: str


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """From the ledger's cost to the amount due, step by step; all in the statement's currency but the first."""

    ledger_nano_usd: int
    usage_nano: int  # the period's own calls, pool-covered ones included
    corrections_nano: int  # of closed months
    covered_nano: int  # taken off, as pools pay for it: not positive
    pools_nano: int
    idle_nano: int
    shared_nano: int
    markup_nano: int
    tax_nano: int
    total_nano: int  # the sum of all but the first


_Part = TypeVar(
    "_Part", PriceUsed, UsageLine, CorrectionLine, AllocatedLine, DayAmount, Saving, Unpriced, BudgetStanding
)

_PARTS = ("lines", "corrections", "allocated", "days", "savings", "unpriced", "prices", "budgets")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's month, whole or limited to some teams. `draft` while it runs, `provisional` when over, `final` when
    closed: then nothing in it changes any more."""

    tenant: str
    period: str  # "2026-11"
    number: str  # the same for the same tenant, month and teams, e.g. "contoso-2026-11" or "contoso-2026-11-search"
    status: Status
    as_of_utc: datetime  # what was billed later is not in it
    teams: tuple[str, ...] | None = None  # the teams it is limited to; None: the whole tenant
    notes: tuple[str, ...] = ()  # what is incomplete, in sentences; empty: nothing
    issuer: str = ""
    currency: str = "USD"
    rate: Rate | None = None  # None: in USD
    lines: tuple[UsageLine, ...] = ()
    corrections: tuple[CorrectionLine, ...] = ()
    allocated: tuple[AllocatedLine, ...] = ()
    days: tuple[DayAmount, ...] = ()
    savings: tuple[Saving, ...] = ()
    unpriced: tuple[Unpriced, ...] = ()
    prices: tuple[PriceUsed, ...] = ()
    budgets: tuple[BudgetStanding, ...] = ()
    previous_nano: Mapping[str, int] | None = None  # the month before's amount due by team; None: it has no statement
    forecast: Forecast | None = None

    @property
    def totals(self) -> Usage:
        """All calls and their ledger cost in USD, corrections included."""
        usages = [line.usage for line in self.lines] + [line.usage for line in self.corrections]
        return sum(usages, Usage())

    @property
    def total_nano(self) -> int:
        """The amount due."""
        return self.bridge.total_nano

    @property
    def previous_total_nano(self) -> int | None:
        """The amount due of the month before; None when unknown."""
        return None if self.previous_nano is None else sum(self.previous_nano.values())

    @property
    def bridge(self) -> Bridge:
        """How the amount due comes about."""
        covered = -sum(line.covered_nano for line in self.lines) - sum(line.covered_nano for line in self.corrections)
        usage = sum(line.owed_nano + line.covered_nano for line in self.lines)
        corrections = sum(line.owed_nano + line.covered_nano for line in self.corrections)
        allocated = {kind: sum(a.amount_nano for a in self.allocated if a.kind == kind) for kind in ALLOCATED_KINDS}
        return Bridge(
            ledger_nano_usd=self.totals.cost_nano_usd,
            usage_nano=usage,
            corrections_nano=corrections,
            covered_nano=covered,
            pools_nano=allocated["pool"],
            idle_nano=allocated["idle"],
            shared_nano=allocated["shared"],
            markup_nano=allocated["markup"],
            tax_nano=allocated["tax"],
            total_nano=usage + corrections + covered + sum(allocated.values()),
        )

    @property
    def team_ids(self) -> tuple[str, ...]:
        """Every team that has a part of it, sorted; the order of teams in every file."""
        parts = (self.lines, self.corrections, self.allocated, self.savings, self.unpriced, self.days)
        return tuple(sorted({part.team for group in parts for part in group}))

    def of_teams(self, teams: Iterable[str]) -> Statement:
        """The statement limited to some teams; their totals add up to the tenant's. The forecast is the tenant's, so
        it is left out, and notes on figures are on these teams' own."""
        wanted = frozenset(teams)

        def mine(parts: Iterable[_Part]) -> tuple[_Part, ...]:
            return tuple(part for part in parts if part.team in wanted)

        return self._limited(
            wanted,
            self._general_notes(),
            lines=mine(self.lines),
            corrections=mine(self.corrections),
            allocated=mine(self.allocated),
            days=mine(self.days),
            savings=mine(self.savings),
            unpriced=mine(self.unpriced),
            prices=mine(self.prices),
            budgets=mine(self.budgets),
        )

    def by_team(self) -> Iterator[tuple[str, Statement]]:
        """Every team with its statement, in the order of `team_ids`; one pass over the parts, however many teams."""
        parts: dict[str, dict[str, list[Any]]] = {team: {name: [] for name in _PARTS} for team in self.team_ids}
        for name in _PARTS:
            for part in getattr(self, name):
                if part.team in parts:
                    parts[part.team][name].append(part)
        general = self._general_notes()
        for team, mine in parts.items():
            yield team, self._limited({team}, general, **{name: tuple(found) for name, found in mine.items()})

    def _general_notes(self) -> tuple[str, ...]:
        """The notes that are not on figures of the whole tenant, which are not for every team to read."""
        own = incomplete(self)
        return tuple(note for note in self.notes if note not in own)

    def _limited(self, wanted: Collection[str], general_notes: tuple[str, ...], **parts: Any) -> Statement:
        previous = self.previous_nano
        limited = msgspec.structs.replace(
            self,
            number=f"{self.tenant}-{self.period}-{'+'.join(sorted(wanted))}",
            teams=tuple(sorted(wanted)),
            previous_nano=None if previous is None else {t: n for t, n in previous.items() if t in wanted},
            forecast=None,
            **parts,
        )
        return msgspec.structs.replace(limited, notes=(*general_notes, *incomplete(limited)))
