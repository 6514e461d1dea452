"""The statement: what each team used and owes for one month, in a form every renderer takes its figures from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from shared.config.model import Team
from shared.ledger.coverage import Coverage
from shared.money import decimal_from_nano
from shared.months import month_span

Status = Literal["draft", "provisional", "final"]
UNASSIGNED = "(unassigned)"  # a call whose scopes name no team still belongs to the tenant's bill


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of calls. Costs are exact nano-USD; calls whose model has no price yet cost nothing here and are counted."""

    requests: int = 0
    tokens: Mapping[str, int] = msgspec.field(default_factory=dict)  # by kind; `reasoning` is inside output
    cost_nano_usd: int = 0
    coverage: Coverage = Coverage()  # how much of the cost was measured; its three costs sum to the cost
    unpriced_requests: int = 0

    @property
    def cost(self) -> str | None:
        """The cost as a decimal string; None when no call has a price: unknown, which is not zero."""
        unknown = self.requests > 0 and self.unpriced_requests == self.requests
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


class LineKey(NamedTuple):
    """What a line is for; empty where the calls did not say."""

    team: str
    app: str
    provider: str
    model: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a team's use of one model through one app."""

    team: str
    cost_centre: str
    app: str
    provider: str
    model: str
    usage: Usage


class TeamTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a team's lines."""

    team: str
    cost_centre: str
    usage: Usage


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's month. `draft` while it runs, `provisional` when over (late events may still change it), `final` when
    the period is closed and can no longer change."""

    tenant: str
    period: str  # "2026-11"
    status: Status
    as_of_utc: datetime  # what was billed later is not in it
    teams: tuple[str, ...] | None  # the teams it is limited to; None: the whole tenant
    lines: tuple[Line, ...]
    currency: str = "USD"

    @property
    def totals(self) -> Usage:
        """The sum of the lines."""
        return sum((line.usage for line in self.lines), Usage())

    @property
    def team_totals(self) -> tuple[TeamTotal, ...]:
        """The sum of each team's lines, in the order of the lines."""
        sums: dict[tuple[str, str], Usage] = {}
        for line in self.lines:
            team = line.team, line.cost_centre
            sums[team] = sums.get(team, Usage()) + line.usage
        return tuple(TeamTotal(team=team, cost_centre=centre, usage=usage) for (team, centre), usage in sums.items())


def status_of(period: str, now_utc: datetime, *, frozen: bool) -> Status:
    """The status of a month's statement. Only closing makes it final: the calendar alone cannot stop a late event."""
    if frozen:
        return "final"
    return "draft" if now_utc < month_span(period)[1] else "provisional"


def make_lines(sums: Mapping[LineKey, Usage], teams: Mapping[str, Team]) -> tuple[Line, ...]:
    """The lines of a statement, in a fixed order, with each team's cost centre."""
    return tuple(
        Line(
            team=key.team or UNASSIGNED,
            cost_centre=_cost_centre(teams, key.team),
            app=key.app,
            provider=key.provider,
            model=key.model,
            usage=usage,
        )
        for key, usage in sorted(sums.items(), key=lambda item: item[0])
    )


def _cost_centre(teams: Mapping[str, Team], team: str) -> str:
    found = teams.get(team)
    return (found.cost_centre or "") if found else ""
