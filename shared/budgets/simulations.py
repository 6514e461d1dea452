"""Answers what another budget would have done in a past month, from the ledger's quarter hours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from shared.budgets.matching import with_implicit_scopes
from shared.budgets.periods import period_at, previous_period
from shared.budgets.simulate import Crossing, Demand, Outcome, Replay
from shared.budgets.snapshot import Snapshot
from shared.config.edits import budget_definition, budget_of
from shared.config.model import Budget
from shared.config.one_budget import budget_from_json
from shared.errors import InvalidRequest
from shared.instants import rfc3339
from shared.ledger.rollup import RollupCell
from shared.money import decimal_from_nano, line_nano_usd
from shared.months import month_span
from shared.pricing.pricer import INFORMATIONAL_KINDS, INPUT_KINDS

MAX_SPAN = timedelta(days=100)  # a quarter and what leads up to it
MAX_CELLS = 1_000_000  # a minute or so
MAX_SCOPES_SHOWN = 100
MAX_PATTERNS = 200  # of downgrades: each is compared with every model
REPLAYED_AT_ONCE = 2  # of each process, which answers checks too: whoever asks for a hundred at once waits
RESOLUTION = (
    "quarter hours: calls of one quarter hour, scope and model count as equal, and are split in whole calls where a "
    "threshold lies among them"
)
NOTES = (
    "What was asked for is replayed: calls that any budget had downgraded count at the requested model's price, "
    "refused ones at their estimate.",
    "Other budgets are left out, and so are reservations of calls in flight.",
)
_REPLAYED = ("hour", "day", "week", "month", "quarter")
_DEFINED = (
    *("id", "scope", "period", "limit", "warn", "degrade", "stop", "timezone", "currency"),
    *("downgrade", "on_stop", "rollover"),
)
_KEPT = (  # of a configured budget that the question names by its id
    *("scope", "period", "timezone", "currency", "limit", "warn", "degrade", "stop"),
    *("downgrade", "disable_tools", "on_stop", "rollover", "rollover_cap"),
)


class Ledger(Protocol):
    """What a replay needs of the ledger: its sums per quarter hour, hour by hour in order."""

    def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]: ...


class Simulations:
    """Replays months. Memory grows with the scope keys in use and one hour's cells, not with the calls."""

    def __init__(self, snapshot: Callable[[], Snapshot], ledger: Ledger) -> None:
        self._snapshot = snapshot
        self._ledger = ledger
        self._turns = asyncio.Semaphore(REPLAYED_AT_ONCE)

    def budget(self, tenant: str, content: Mapping[str, Any]) -> Budget:
        """The budget asked about: the fields of budgets.yaml, or a configured budget's `id` and what is to change.

        Raises InvalidRequest naming the field, and NotFound `budget_unknown` for an id alone that is not configured.
        """
        config = self._snapshot().config
        given = {name: value for name, value in content.items() if value is not None}
        if "id" in given and "scope" not in given:
            known = budget_definition(config, budget_of(config, tenant, str(given["id"])))
            given = {name: known[name] for name in _KEPT if known[name] is not None} | given
        budget = budget_from_json(config, tenant, given)
        if sum(len(rule.sources) for rule in budget.downgrade) > MAX_PATTERNS:
            message = f"budget.downgrade: names more than {MAX_PATTERNS} patterns, too many to replay"
            raise InvalidRequest(message, param="budget.downgrade")
        return budget

    async def run(self, tenant: str, period: str, budget: Budget, now_utc: datetime) -> dict[str, Any]:
        """The answer of `POST /budgets/simulate`: what the budget would have done in the month, and beside it the
        budget in force. Raises InvalidRequest for a month or a budget that cannot be replayed."""
        snapshot = self._snapshot()
        start_utc, end_utc = local_month(period, budget.timezone)
        if start_utc >= now_utc:
            raise InvalidRequest(f"period: {period} has not begun in {budget.timezone}", param="period")
        in_force = _in_force(snapshot, tenant, budget)
        replays = [_replay(snapshot, tenant, each, start_utc) for each in (budget, in_force) if each is not None]
        firsts = [_first(each.budget, start_utc, end_utc) for each in replays]
        async with self._turns:
            await self._walk(tenant, replays, firsts, start_utc, min(end_utc, now_utc))
        answers = [_answer(snapshot, replay) for replay in replays]
        notes = [*NOTES]
        if end_utc > now_utc:
            notes.append(f"{period} is not over: replayed until {rfc3339(now_utc, 'seconds')}.")
        if budget.rollover and firsts[0] == _period_start(budget, start_utc):
            notes.append("What the period before would have carried over is not replayed: it would take too long.")
        return {
            "tenant": tenant,
            "period": period,
            "currency": "USD",
            "resolution": RESOLUTION,
            "notes": notes,
            "changed": answers[0],
            "in_force": answers[1] if in_force is not None else None,
        }

    async def _walk(
        self, tenant: str, replays: list[Replay], firsts: list[datetime], start_utc: datetime, end_utc: datetime
    ) -> None:
        read = 0
        hour: list[RollupCell] = []
        async for cell in self._ledger.cells(tenant, min(firsts), end_utc):
            read += 1
            if read > MAX_CELLS:
                raise InvalidRequest(
                    f"period: holds more than {MAX_CELLS} sums of calls, too many to replay", param="period"
                )
            if hour and hour[-1].quarter_utc.replace(minute=0) != cell.quarter_utc.replace(minute=0):
                _take_hour(tenant, hour, replays, firsts, start_utc)
                hour = []
            hour.append(cell)
        _take_hour(tenant, hour, replays, firsts, start_utc)


def local_month(period: str, zone: str) -> tuple[datetime, datetime]:
    """First instant of a month such as `2026-10` and of the next, in a time zone. Raises InvalidRequest."""
    start_utc, end_utc = month_span(period)
    inside = start_utc + (end_utc - start_utc) / 2
    month = period_at("month", zone, inside.timestamp())
    return datetime.fromtimestamp(month.start_s, UTC), datetime.fromtimestamp(month.end_s, UTC)


def _in_force(snapshot: Snapshot, tenant: str, budget: Budget) -> Budget | None:
    """The configured budget that the changed one would replace: of that id, else of that period.

    Of the same scope always: whoever may ask about one scope need not be allowed to read another by a budget's id.
    """
    scope = (budget.scope_type, budget.scope_key)
    known = [each for each in snapshot.index.of_tenant(tenant) if (each.scope_type, each.scope_key) == scope]
    by_period = next((each for each in known if each.period == budget.period), None)
    found = next((each for each in known if each.id == budget.id), by_period)
    return found if found is not None and found.period in _REPLAYED else None


def _replay(snapshot: Snapshot, tenant: str, budget: Budget, at_utc: datetime) -> Replay:
    if budget.period not in _REPLAYED:
        message = f"budget.period: expected one of {', '.join(_REPLAYED)}: a {budget.period} reaches back too far"
        raise InvalidRequest(message, param="budget.period")

    def resolve(requested: str, target: str) -> str | None:
        return snapshot.router.downgrade_target(requested, target, tenant, at_utc)

    def costs(demand: Demand, model: str) -> int:
        return served_by(snapshot, tenant, demand, model)

    return Replay(snapshot.config, tenant, budget, resolve, costs)


def served_by(snapshot: Snapshot, tenant: str, demand: Demand, model: str) -> int:
    """What a demand's calls would have cost in nano-USD on another model, at the prices of that time.

    Calls without tokens, as refused ones, cost as many times less as that model's output token does.
    """
    at_utc = datetime.fromtimestamp(demand.quarter_s, UTC)
    if demand.measured_calls > 0 and any(demand.tokens.values()):
        return _priced(snapshot, tenant, demand, model, at_utc) * demand.calls // demand.measured_calls
    mine, theirs = (_output_pico(snapshot, tenant, name, at_utc) for name in (demand.model, model))
    return demand.cost_nano_usd * theirs // mine if mine else demand.cost_nano_usd


def _priced(snapshot: Snapshot, tenant: str, demand: Demand, model: str, at_utc: datetime) -> int:
    """The demand's tokens at another model's prices. Long-context prices go by the input of the average call."""
    served = snapshot.deployments.serving(model)
    place = (tenant, served.provider, model, served.deployment, "", at_utc)
    prices = snapshot.pricer.unit_prices(*place)
    if prices is not None and prices.bands:
        whole_input = sum(tokens for kind, tokens in demand.tokens.items() if kind in INPUT_KINDS)
        band = prices.for_input(whole_input // demand.measured_calls)
        used = {kind: n for kind, n in demand.tokens.items() if n and kind not in INFORMATIONAL_KINDS}
        if all(kind in band for kind in used):
            return sum(line_nano_usd(tokens, band[kind]) for kind, tokens in used.items())
    return snapshot.pricer.rate(*place, demand.tokens).charge_nano_usd


def _output_pico(snapshot: Snapshot, tenant: str, model: str, at_utc: datetime) -> int:
    served = snapshot.deployments.serving(model)
    input_pico, output_pico = snapshot.pricer.hold_prices(
        tenant, served.provider, model, served.deployment, "", at_utc, 1_000
    )
    return output_pico or input_pico


def _period_start(budget: Budget, at_utc: datetime) -> datetime:
    period = period_at(budget.period, budget.timezone, at_utc.timestamp())
    return datetime.fromtimestamp(period.start_s, UTC)


def _first(budget: Budget, start_utc: datetime, end_utc: datetime) -> datetime:
    """Where the replay begins: with the budget's period, and with the one before it when that carries over."""
    first = _period_start(budget, start_utc)
    if budget.rollover:
        before = previous_period(period_at(budget.period, budget.timezone, start_utc.timestamp()))
        if before is not None and end_utc - datetime.fromtimestamp(before.start_s, UTC) <= MAX_SPAN:
            return datetime.fromtimestamp(before.start_s, UTC)
    if end_utc - first > MAX_SPAN:
        message = (
            f"budget.period: a {budget.period} that holds this month is longer than {MAX_SPAN.days} days by its end"
        )
        raise InvalidRequest(message, param="budget.period")
    return first


def _take_hour(
    tenant: str, cells: list[RollupCell], replays: list[Replay], firsts: list[datetime], start_utc: datetime
) -> None:
    cells.sort(key=lambda cell: cell.quarter_utc)
    for replay, first in zip(replays, firsts, strict=True):
        for demand in demands(tenant, replay.budget, cells):
            if demand.quarter_s >= first.timestamp():
                replay.take(demand, counts=demand.quarter_s >= start_utc.timestamp())


def demands(tenant: str, budget: Budget, cells: list[RollupCell]) -> Iterator[Demand]:
    """What a budget counts of cells in time order: per quarter hour, scope key and requested model, in that order."""
    sums: dict[tuple[int, str, str], list[Any]] = {}
    for cell in cells:
        if cell.cell is not None or cell.correction == "adjustment":  # grants and corrections of the bill are no calls
            continue
        model = cell.requested_model or cell.model
        key = with_implicit_scopes(tenant, cell.scopes, model).get(budget.scope_type)
        if key is None or budget.scope_key not in ("*", key):
            continue
        place = (int(cell.quarter_utc.timestamp()), key, model)
        entry = sums.setdefault(place, [0, 0, {}, 0])
        entry[3] += cell.requests
        entry[0] += cell.requests + cell.refused
        entry[1] += cell.charge_nano_usd + cell.saved_nano_usd
        for kind, tokens in cell.tokens.items():
            entry[2][kind] = entry[2].get(kind, 0) + tokens
    for (quarter_s, key, model), (calls, cost, tokens, measured) in sorted(sums.items(), key=lambda item: item[0]):
        if calls or cost:
            yield Demand(quarter_s, key, model, calls, cost, tokens, measured)


def _answer(snapshot: Snapshot, replay: Replay) -> dict[str, Any]:
    total = replay.total()
    shown = sorted(replay.by_scope.items(), key=lambda item: (-item[1].cost_nano_usd, item[0]))
    definition = budget_definition(snapshot.config, replay.budget, with_reason=False)
    return {
        "budget": {name: definition[name] for name in _DEFINED},
        "calls": total.calls,
        "cost": decimal_from_nano(total.cost_nano_usd),
        "served_cost": decimal_from_nano(total.served_nano_usd),
        "downgraded": {"calls": total.downgraded_calls, "saved": decimal_from_nano(total.saved_nano_usd)},
        "refused": {"calls": total.refused_calls, "cost": decimal_from_nano(total.refused_nano_usd)},
        "crossed": [_crossing(each) for each in replay.crossings],
        "days": [{"day": day, **_sums(outcome)} for day, outcome in sorted(replay.by_day.items())],
        "scopes": [
            {"scope": f"{replay.budget.scope_type}:{key}", **_sums(outcome)}
            for key, outcome in shown[:MAX_SCOPES_SHOWN]
        ],
        "more_scopes": max(0, len(shown) - MAX_SCOPES_SHOWN),
    }


def _crossing(crossing: Crossing) -> dict[str, str]:
    at_utc = datetime.fromtimestamp(crossing.quarter_s, UTC)
    return {
        "scope": crossing.scope,
        "period": crossing.period,
        "threshold": crossing.threshold,
        "at": rfc3339(at_utc, "seconds"),
    }


def _sums(outcome: Outcome) -> dict[str, Any]:
    return {
        "calls": outcome.calls,
        "cost": decimal_from_nano(outcome.cost_nano_usd),
        "served_cost": decimal_from_nano(outcome.served_nano_usd),
        "downgraded_calls": outcome.downgraded_calls,
        "saved": decimal_from_nano(outcome.saved_nano_usd),
        "refused_calls": outcome.refused_calls,
        "refused_cost": decimal_from_nano(outcome.refused_nano_usd),
    }
