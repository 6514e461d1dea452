"""Summaries: exact sums by any cross product, from rollups and from open hours alike."""

from datetime import timedelta
from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.ledger.hours import HourIndex
from shared.ledger.rollup_job import RollupJob
from shared.ledger.store import LedgerStore
from shared.ledger.summary import Summaries
from shared.ledger.tables import Tables
from shared.money import decimal_from_nano
from tests.ledger_rows import TEN, usage

START, END = TEN - timedelta(days=1), TEN + timedelta(days=1)


async def test_sums_are_the_same_before_and_after_the_rollup(
    ledger: LedgerStore, tables: Tables, hours: HourIndex
) -> None:
    """An hour that is still open reports exactly what it will report when it was rolled up."""
    rows = [
        usage(n, scopes={"team": "ab"[n % 2]}, model=f"m{n % 3}", time_utc=TEN + timedelta(minutes=n))
        for n in range(90)
    ]
    await ledger.insert(rows)
    summaries = Summaries(ledger.reader)
    group_by = ["team", "model", "hour"]
    before = await summaries.summarize("contoso", START, END, group_by)
    await RollupJob(tables, hours, ledger.reader).run()
    assert await summaries.summarize("contoso", START, END, group_by) == before
    assert await summaries.summarize(None, START, END, group_by) == before
    assert len(before) == 2 * 3 * 2
    # Team a, model m0, ten to eleven o'clock: 0, 6, ..., 54
    first = before[0]
    assert (first["team"], first["model"], first["hour"]) == ("a", "m0", "2026-11-21T10:00:00Z")
    assert first["requests"] == 10
    assert first["tokens"] == {"input": 10 * 10, "output": 10 * 5}
    assert first["cost"] == decimal_from_nano(sum(1_000 + n for n in range(0, 60, 6)))


async def test_a_grant_is_no_group(ledger: LedgerStore, tables: Tables, hours: HourIndex) -> None:
    """A reset moves one counter and neither usage nor bill, so the page of usage shows no row without calls for it."""
    cell = "team:search|month|UTC|1793491200"
    await ledger.insert([usage(1), usage(2, kind="grant", charge_nano_usd=-500, cost_nano_usd=0, tokens={}, cell=cell)])
    summaries = Summaries(ledger.reader)
    before = await summaries.summarize("contoso", START, END, ["team", "model"])
    assert [(row["team"], row["model"], row["requests"]) for row in before] == [("search", "gpt-4o-mini", 1)]
    await RollupJob(tables, hours, ledger.reader).run()
    assert await summaries.summarize("contoso", START, END, ["team", "model"]) == before
    by_operation = await summaries.summarize("contoso", START, END, ["tenant", "operation"])
    assert [row["cost"] for row in by_operation] == [decimal_from_nano(1_000 + 1)]


WAIT_ENDS = TEN + timedelta(minutes=15 + 30)


@pytest.mark.parametrize(
    ("as_of_utc", "estimated", "missing"),
    [
        (WAIT_ENDS - timedelta(seconds=1), ("0.000001", "0.2500"), ("0.00", "0.0000")),
        (WAIT_ENDS, ("0.00", "0.0000"), ("0.000001", "0.2500")),
    ],
)
async def test_shares_and_unpriced(ledger: LedgerStore, as_of_utc: Any, estimated: Any, missing: Any) -> None:
    """A quarter of the cost is estimated, then missing; one call has no price: told, and it costs nothing."""
    await ledger.insert(
        [
            usage(1, cost_nano_usd=3_000, saved_nano_usd=700),
            usage(2, cost_nano_usd=1_000, measured=False),
            usage(3, cost_nano_usd=None, pricing_status="unpriced"),
        ]
    )
    (row,) = await Summaries(ledger.reader).summarize(
        "contoso", START, END, ["tenant", "day", "month"], as_of_utc=as_of_utc
    )
    assert row == {
        "tenant": "contoso",
        "day": "2026-11-21",
        "month": "2026-11",
        "requests": 3,
        "tokens": {"input": 30, "output": 15},
        "cost": "0.000004",
        "measured_cost": "0.000003",
        "estimated_cost": estimated[0],
        "missing_cost": missing[0],
        "measured_share": "0.7500",
        "estimated_share": estimated[1],
        "missing_share": missing[1],
        "unpriced": 1,
        "saved": "0.0000007",
        "refused": 0,
    }


async def test_filters_and_absent_scopes(ledger: LedgerStore) -> None:
    """Filters keep the values they name; a call without the scope is reported under an empty one, not dropped."""
    await ledger.insert([usage(1, scopes={"team": "a"}), usage(2, scopes={"team": "b"}), usage(3, scopes={})])
    summaries = Summaries(ledger.reader)
    every = await summaries.summarize("contoso", START, END, ["team"])
    assert [(row["team"], row["requests"]) for row in every] == [("", 1), ("a", 1), ("b", 1)]
    kept = await summaries.summarize("contoso", START, END, ["model"], {"team": ["a", "b"]})
    assert [row["requests"] for row in kept] == [2]
    assert await summaries.summarize("contoso", START, END, ["model"], {"team": ["c"]}) == []


@pytest.mark.parametrize(
    ("group_by", "words"),
    [
        ([], "1 to 8"),
        (["team"] * 2, "twice"),
        (["Bad Name"], "neither one of tenant, model"),
        ([f"s{n}" for n in range(9)], "got 9"),
    ],
)
async def test_group_by_is_checked(ledger: LedgerStore, group_by: list[str], words: str) -> None:
    """A wrong dimension is an error that says what would be right, not an empty answer."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        await Summaries(ledger.reader).summarize("contoso", START, END, group_by)
    assert caught.value.param == "group_by"


async def test_too_many_groups_are_refused(ledger: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouping by session must not exhaust a worker's memory."""
    monkeypatch.setattr("shared.ledger.summary.MAX_GROUPS", 10)
    await ledger.insert([usage(n, scopes={"session": f"s-{n}"}) for n in range(11)])
    summaries: Any = Summaries(ledger.reader)
    with pytest.raises(InvalidRequest, match="more than 10 groups"):
        await summaries.summarize("contoso", START, END, ["session"])
