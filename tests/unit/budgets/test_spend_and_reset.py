"""What budgets show of their counters, and how a counter is set right, on counters kept in a dict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from shared.budgets.matching import BudgetIndex
from shared.budgets.plan import carry_field
from shared.budgets.reset import ResetService
from shared.budgets.spend import SpendService
from shared.budgets.store import TenantState
from shared.errors import Forbidden, InvalidRequest, NotFound, StateUnavailable
from shared.usage.events import decode_event
from tests.support.engine import budget, config, usd

TEAM, DAY, USER = budget("team:search", usd(10)), budget("team:*", usd(5), period="day"), budget("user:*", usd(2))


class Counters:
    """What the services need of the store."""

    def __init__(self) -> None:
        self.ready = True
        self.figures_of: dict[str, tuple[int, int, dict[str, int]]] = {}
        self.alive: list[Any] = []

    async def state(self, tenant: str) -> TenantState:
        return TenantState("g", self.ready, False, 0, 0, frozenset())

    async def cells(self, tenant: str, now_ms: int) -> list[Any]:
        return self.alive

    async def figures(self, tenant: str, cell: Any) -> tuple[int, int, dict[str, int]]:
        return self.figures_of.get(cell.id, (0, 0, {}))


class Fixture:
    """A SpendService over such counters, and a ResetService whose events are kept."""

    def __init__(self, *budgets) -> None:
        self.counters, self.published = Counters(), []
        self.config = config(*budgets)
        self.index = BudgetIndex(self.config)
        snapshot: Any = msgspec.defstruct("Snapshot", ["config", "index"])(self.config, self.index)
        self.spend = SpendService(lambda: snapshot, self.counters)  # type: ignore[arg-type]
        self.reset = ResetService(self.spend, self.publish, self.first_heard)
        self.heard: dict[tuple[str, str], Any] = {}

    async def first_heard(self, source, key, now):
        return self.heard.setdefault((source, key), now)

    async def publish(self, events) -> None:
        self.published += [msgspec.json.decode(body) for _, body in events]

    def set(self, scopes: dict[str, str], spent: float, held: float = 0, **carries: int) -> None:
        import time

        for cell in self.index.cells_of_call("acme", scopes, "big", time.time()):
            self.counters.figures_of[cell.id] = (usd(spent), usd(held), carries)
            self.counters.alive.append(cell)


@pytest.fixture
def engine() -> Fixture:
    return Fixture(TEAM, DAY, USER)


def shown(rows) -> set[tuple[str, str, str]]:
    return {(row["scope"], row["cell"].split("|")[1], row["state"]) for row in rows}


async def test_a_named_budget_is_listed_before_it_was_used(engine):
    """A team looks for its budget on the first of the month; wildcards show only keys in use."""
    assert shown(await engine.spend.list("acme")) == {("team:search", "month", "active")}


async def test_every_key_in_use_is_listed_with_its_state(engine):
    """Both periods of the team, and the user."""
    engine.set({"team": "search"}, 4.5)
    engine.set({"user": "ada"}, 1.7)
    assert shown(await engine.spend.list("acme")) == {
        ("team:search", "month", "active"),
        ("team:search", "day", "degraded"),
        ("user:ada", "month", "warned"),
    }


async def test_lists_can_be_narrowed(engine):
    """By scope type and by state."""
    engine.set({"team": "search"}, 5)
    engine.set({"user": "ada"}, 1)
    assert shown(await engine.spend.list("acme", scope_type="user")) == {("user:ada", "month", "active")}
    assert shown(await engine.spend.list("acme", state="stopped")) == {("team:search", "day", "stopped")}


async def test_an_unknown_state_is_named(engine):
    """400 with the field instead of an empty list."""
    with pytest.raises(InvalidRequest) as raised:
        await engine.spend.list("acme", state="broke")
    assert raised.value.param == "state"


async def test_one_scope_shows_its_open_periods(engine):
    """Amounts as decimal strings; holds are not spend, but count for what remains."""
    engine.set({"team": "search"}, 1.25, 0.5)
    rows = {row["cell"].split("|")[1]: row for row in await engine.spend.one("acme", "team", "search")}
    assert (rows["month"]["spent"], rows["month"]["reserved"], rows["month"]["remaining"]) == ("1.25", "0.50", "8.25")
    assert rows["day"]["remaining"] == "3.25"
    assert await engine.spend.one("acme", "task", "t-1") == []


async def test_what_was_carried_over_is_shown_in_the_limit():
    """A rollover budget of 10 that carried 4 shows 14."""
    spec = budget("team:search", usd(10), rollover=True)
    engine = Fixture(spec)
    engine.set({"team": "search"}, 1, **{carry_field(spec): usd(4)})
    [row] = await engine.spend.one("acme", "team", "search")
    assert (row["limit"], row["remaining"]) == ("14.00", "13.00")


async def test_counters_that_are_not_ready_are_not_shown_as_zero(engine):
    """Empty is not zero: 503 while they are rebuilt."""
    engine.counters.ready = False
    for question in (engine.spend.list("acme"), engine.spend.one("acme", "team", "search")):
        with pytest.raises(StateUnavailable):
            await question


async def test_an_unknown_tenant_is_refused(engine):
    """403, as in the check."""
    with pytest.raises(Forbidden):
        await engine.spend.list("stranger")


async def test_a_reset_publishes_what_is_missing_to_zero(engine):
    """One grant per counter, negative by what is spent, with who and why; the counters follow from the hub."""
    engine.set({"team": "search"}, 4.5)
    answer = await engine.reset.reset("acme", "team:search", "ada", "wrong loop", key="k1")
    assert answer["accepted"] == 2
    assert {event["data"]["amount"] for event in engine.published} == {"-4.50"}
    assert {(event["data"]["who"], event["data"]["why"]) for event in engine.published} == {("ada", "wrong loop")}
    assert {event["type"] for event in engine.published} == {"tollkeeper.grant.v1"}


async def test_a_reset_of_the_longest_key_is_an_event_that_the_hub_can_take(engine):
    """256 bytes of a key become 768 characters in a counter's name, more than an event's id may have."""
    await engine.reset.reset("acme", "user:" + "😀" * 64, "ada", "x", key="k" * 100)
    for event in engine.published:
        decode_event(msgspec.json.encode(event), datetime.now(UTC))


async def test_an_opening_balance_is_a_reset_to_it(engine):
    """What was spent before Tollkeeper came."""
    await engine.reset.reset("acme", "team:search", "ada", "before", spent="7.25", period="month", key="k1")
    assert [event["data"]["amount"] for event in engine.published] == ["7.25"]


async def test_the_period_chooses_the_counter(engine):
    """Without it all open periods of the scope are set."""
    engine.set({"team": "search"}, 4.5)
    answer = await engine.reset.reset("acme", "team:search", "ada", "x", period="day", key="k1")
    assert [grant["cell"].split("|")[1] for grant in answer["grants"]] == ["day"]


async def test_the_same_key_is_the_same_event(engine):
    """A client that asks twice does not grant twice: source and id repeat."""
    for _ in range(2):
        await engine.reset.reset("acme", "team:search", "ada", "x", period="month", key="k1")
    first, second = engine.published
    assert (first["source"], first["id"]) == (second["source"], second["id"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scope": "search"}, "scope"),
        ({"scope": "team:"}, "scope"),
        ({"why": "  "}, "why"),
        ({"why": "a\r\nb"}, "why"),
        ({"spent": "a lot"}, "spent"),
        ({"spent": "-1"}, "spent"),
        ({"spent": "0.0000000001"}, "spent"),
        ({"spent": "NaN"}, "spent"),
    ],
)
async def test_a_reset_that_makes_no_sense_is_refused(engine, fields, param):
    """400 with the field; nothing is published."""
    asked = {"scope": "team:search", "who": "ada", "why": "x", "key": "k", **fields}
    with pytest.raises(InvalidRequest) as raised:
        await engine.reset.reset("acme", **asked)
    assert raised.value.param == param
    assert engine.published == []


async def test_a_scope_without_a_budget_cannot_be_reset(engine):
    """404: a grant to a counter nobody reads would be lost."""
    with pytest.raises(NotFound):
        await engine.reset.reset("acme", "task:t-1", "ada", "x", key="k")
    with pytest.raises(NotFound):
        await engine.reset.reset("acme", "team:search", "ada", "x", period="year", key="k")


async def test_a_reset_sent_again_keeps_its_first_time():
    """A retry stamped anew would land in another ledger hour, where nothing knows it, and be granted twice."""
    engine = Fixture(budget("team:search", usd(100)))
    engine.set({"team": "search"}, 10)
    await engine.reset.reset("acme", "team:search", "ada", "wrong loop", key="k1")
    await engine.reset.reset("acme", "team:search", "ada", "wrong loop", key="k1")
    first, second = engine.published
    assert (first["id"], first["time"]) == (second["id"], second["time"])
