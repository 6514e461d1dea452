"""Corrections of calls under any schedule: a store in memory with the real one's promises, and workers that are
interrupted between reading a call and writing to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from shared.budgets.snapshot import Snapshot
from shared.config.model import PriceOverride
from shared.ledger.adjusting import Adjuster
from shared.ledger.adjustments import AdjustingEvent
from shared.ledger.codec import key_of
from shared.ledger.delivery import Delivery
from shared.ledger.family import Family, Pair
from shared.ledger.inserted import Inserted, RowRef, compare
from shared.ledger.keys import call_key_of, row_key
from shared.ledger.rollup import roll
from shared.ledger.row import LedgerRow, Position
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.usage.build import re_rate_event_bytes, true_up_event_bytes
from shared.usage.events import decode_event
from tests.support.engine import LONG_AGO, config

AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
CALLS = ("plain", "stream")
MEASURED = {"input": 7, "output": 3}
PRICES = (0, 1_000_000, 2_000_000, 5_000_000)  # pico-USD a token, 0: none yet


def snapshot(unit_pico: int) -> Snapshot:
    """The configuration with this price for the model, or with none."""
    known = config(version=f"v{unit_pico}")
    price = (PriceOverride("mystery", LONG_AGO, {"input": unit_pico, "output": unit_pico}),) if unit_pico else ()
    full = replace(known, prices=price)
    pricer = Pricer(PriceBook.load([]), full)
    return Snapshot(full, pricer, Router(full, pricer))


SNAPSHOTS = {price: snapshot(price) for price in PRICES}


class Store:
    """Insert-if-absent of pairs, each in one transaction; other workers run between a read and a write."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRow] = {}
        for number, id_ in enumerate(CALLS):
            row = LedgerRow(
                tenant="acme",
                source="s",
                id=id_,
                kind="usage" if id_ == "plain" else "accrual",
                time_utc=AT,
                scopes={"team": "search"},
                position=Position("ns/usage/0", number, number),
                content_digest=id_,
                charge_nano_usd=1_234,
                tokens={"input": 100, "output": 50},
                pricing_status="unpriced",
                model="mystery",
                measured=id_ == "plain",
            )
            self.rows[key_of(row)] = row
        self.settled: list[LedgerRow] = []

    async def families(self, refs: Sequence[RowRef]) -> Mapping[RowRef, Family]:
        await asyncio.sleep(0)
        found = {}
        for ref in refs:
            call_key = row_key(ref.source, ref.id)
            mine = {key: row for key, row in self.rows.items() if call_key_of(key) == call_key}
            found[ref] = Family(call_key, mine)
        await asyncio.sleep(0)
        return found

    async def insert(self, pairs: Sequence[Pair]) -> list[tuple[Inserted, Inserted] | None]:
        answers: list[tuple[Inserted, Inserted] | None] = []
        for pair in pairs:
            await asyncio.sleep(0)
            stored = [self.rows.get(key_of(row)) for row in pair]
            if stored == [None, None]:
                self.rows |= {key_of(row): row for row in pair}
                answers.append((Inserted(pair[0], "new"), Inserted(pair[1], "new")))
            elif stored[0] is None or stored[1] is None:
                answers.append(None)
            else:
                first, second = stored
                answers.append((Inserted(first, compare(pair[0], first)), Inserted(second, compare(pair[1], second))))
        return answers


def events() -> list[bytes]:
    """Three re-rates of each call, and the stream's true-up."""
    asked = {"tenant": "acme", "config_version": "v", "who": "w", "why": "y"}
    found = [re_rate_event_bytes("s", id_, AT, run=f"{n:012x}", **asked) for id_ in CALLS for n in range(3)]
    usage = {"prompt_tokens": MEASURED["input"], "completion_tokens": MEASURED["output"]}
    return [*found, true_up_event_bytes("s", "stream", AT, tenant="acme", **usage)]


EVENTS = events()


def batch(picked: Sequence[int], worker: int) -> list[tuple[Delivery, AdjustingEvent]]:
    """The events at places of this worker's own partition."""
    items = []
    for place, index in enumerate(picked):
        body = EVENTS[index]
        event = decode_event(body, AT)
        assert not isinstance(event, str)
        items.append((Delivery(body, Position(f"ns/usage/{worker}", place, place)), event))
    return items


picks = st.lists(st.integers(0, len(EVENTS) - 1), max_size=9)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(picks, st.sampled_from(PRICES)), min_size=1, max_size=4), st.booleans())
def test_a_call_is_billed_by_one_row_whatever_meets_at_it(workers, true_up_came):
    """Several workers, each with its own order of the same events, its own idea of the price, and interrupted anywhere:
    each call has one row that bills it, sums are that row's, what was counted is what is stored, and a stream that was
    trued up carries its measured tokens for good."""
    store = Store()

    async def work(picked: Sequence[int], price: int, worker: int) -> list[Inserted]:
        done = await Adjuster(store, lambda: SNAPSHOTS[price]).run(batch(picked, worker))
        assert not [each for each in done if each.refused is not None]
        return [inserted for each in done for inserted in each.inserted or ()]

    async def everything() -> list[list[Inserted]]:
        more = [([len(EVENTS) - 1], 2_000_000)] if true_up_came else []
        plan = [*workers, *more]
        return await asyncio.gather(*(work(picked, price, n) for n, (picked, price) in enumerate(plan)))

    counted = [each for results in asyncio.run(everything()) for each in results]
    new = [each.row for each in counted if each.outcome == "new"]
    assert sorted(key_of(row) for row in new) == sorted(key for key, row in store.rows.items() if row.call_id)
    for id_ in CALLS:
        call_key = row_key("s", id_)
        family = Family(call_key, {key: row for key, row in store.rows.items() if call_key_of(key) == call_key})
        head = family.head
        [sums] = roll_up(family.rows.values())
        assert sums == (1, head.cost_nano_usd or 0, head.charge_nano_usd, int(head.cost_nano_usd is None))
        picked = {index for indexes, _ in workers for index in indexes} | ({len(EVENTS) - 1} if true_up_came else set())
        if id_ == "stream" and len(EVENTS) - 1 in picked:
            assert (head.tokens, head.measured) == (MEASURED, True)
        if head.cost_nano_usd is not None:
            assert head.cost_nano_usd in {sum(head.tokens.values()) * price // 1000 for price in PRICES}


@settings(max_examples=100, deadline=None)
@given(picks, st.sampled_from(PRICES[1:]), st.sampled_from(PRICES))
def test_the_same_batch_again_adds_nothing(picked, price, later_price):
    """Redelivered under another price it stands where it stood; what was counted then is answered again, as stored."""
    store = Store()

    async def twice() -> tuple[list[Inserted], list[Inserted], int]:
        answers = []
        sizes = []
        for known in (price, later_price):
            done = await Adjuster(store, lambda known=known: SNAPSHOTS[known]).run(batch(picked, 0))
            answers.append([inserted for each in done for inserted in each.inserted or ()])
            sizes.append(len(store.rows))
        return answers[0], answers[1], sizes[0]

    first, _, size = asyncio.run(twice())
    stored = {key_of(each.row): each.row for each in first}
    assert all(store.rows[key] == row for key, row in stored.items())
    if later_price == price:
        assert len(store.rows) == size


def roll_up(rows: object) -> list[tuple[int, int, int, int]]:
    """Requests, cost, charge and unpriced of all cells together."""
    cells = roll(rows)  # type: ignore[arg-type]
    sums = (
        sum(cell.requests for cell in cells),
        sum(cell.cost_nano_usd for cell in cells),
        sum(cell.charge_nano_usd for cell in cells),
        sum(cell.unpriced for cell in cells),
    )
    return [sums]
