"""Sums lose nothing: whatever the rows are, and however they are dealt out among rollups, batches and cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.budgets import refused
from shared.budgets.answer import CheckAnswer
from shared.budgets.refused import Refusals
from shared.budgets.request import CheckRequest
from shared.config.model import Config, Discount, PriceOverride, Tenant
from shared.errors import BudgetExhausted
from shared.ledger.codec import decode, encode
from shared.ledger.rollup import RollupCell, roll
from shared.ledger.rollup_codec import decode_cell, encode_cell, storable
from shared.ledger.row import LedgerRow
from shared.ppm import PPM
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.usage.events import decode_event
from shared.usage.refusal_events import RefusalEvent
from tests.ledger_rows import TEN, usage

JULY = datetime(2026, 7, 1, tzinfo=UTC)
PRICER = Pricer(
    PriceBook.load(),
    Config(
        "v1",
        {"contoso": Tenant("contoso")},
        {},
        (),
        {},
        (PriceOverride("house", JULY, {"input": 333, "output": 777}),),
        (Discount(effective_from=JULY, off_ppm=PPM // 7), Discount(effective_from=TEN, off_ppm=PPM // 3)),
    ),
)

tokens = st.dictionaries(
    st.sampled_from(["input", "cached_input", "output", "input_audio", "reasoning"]), st.integers(1, 10**7), max_size=4
)


@st.composite
def rows(draw: st.DrawFn) -> LedgerRow:
    """A row as rating makes it: of a few teams and models, priced or not, now and then taken back."""
    number = draw(st.integers(0, 10**6))
    used = draw(tokens)
    model = draw(st.sampled_from(["gpt-4o", "gpt-4o-mini", "house", "nobody-knows"]))
    tier = draw(st.sampled_from(["", "batch"]))
    time_utc = TEN + timedelta(minutes=draw(st.integers(-40, 40)))
    rated = PRICER.rate("contoso", "azure-openai", model, "", "", time_utc, used, tier or None)
    row = usage(
        number,
        time_utc=time_utc,
        model=model,
        scopes={"team": draw(st.sampled_from(["search", "ads"]))},
        tokens=used,
        cost_nano_usd=rated.cost_nano_usd,
        charge_nano_usd=rated.charge_nano_usd,
        lines_nano_usd=rated.lines_nano_usd,
        unit_pico=rated.unit_pico,
        list_pico=rated.list_pico,
        price_id=rated.price_id,
        pricing_status=rated.pricing_status,
        processing_tier=tier,
        saved_nano_usd=draw(st.none() | st.integers(-(10**9), 10**9)),
        booked_period=draw(st.sampled_from(["2026-11", "2026-12"])),
    )
    if draw(st.booleans()):
        return row
    row.kind = "reversal"
    row.charge_nano_usd *= -1
    row.cost_nano_usd = None if row.cost_nano_usd is None else -row.cost_nano_usd
    row.tokens = {kind: -count for kind, count in row.tokens.items()}
    row.lines_nano_usd = {kind: -amount for kind, amount in row.lines_nano_usd.items()}
    row.saved_nano_usd = None if row.saved_nano_usd is None else -row.saved_nano_usd
    return row


many = st.lists(rows(), max_size=25)


def sums(cells: Iterable[RollupCell]) -> Counter[Any]:
    """Everything there is to sum, by everything that tells cells and lines apart; zeros are the same as nothing."""
    found: Counter[Any] = Counter()
    for cell in cells:
        of = (
            cell.tenant, cell.quarter_utc, tuple(cell.scopes.items()), cell.model, cell.region, cell.pricing_status,
            cell.measured, cell.booked_period, cell.correction,
        )  # fmt: skip
        for name in ("requests", "cost_nano_usd", "charge_nano_usd", "unpriced", "saved_nano_usd", "refused"):
            found[of, name] += getattr(cell, name)
        for kind, count in cell.tokens.items():
            found[of, "tokens", kind] += count
        for line in cell.lines:
            price = (line.kind, line.price_id, line.unit_pico, line.list_pico, line.tier)
            found[of, "line tokens", price] += line.tokens
            found[of, "line cost", price] += line.cost_nano_usd
    return Counter({key: amount for key, amount in found.items() if amount})


@given(many)
def test_every_row_is_its_tokens_at_its_prices(ledger: list[LedgerRow]) -> None:
    """Lines sum to the cost, each is tokens x unit price half-up, and what a reversal takes back is exactly that."""
    for row in ledger:
        assert sum(row.lines_nano_usd.values()) == (row.cost_nano_usd or 0)
        assert set(row.unit_pico) == set(row.lines_nano_usd) >= set(row.list_pico)
        sign = -1 if row.kind == "reversal" else 1
        for kind, line in row.lines_nano_usd.items():
            assert sign * line == (sign * row.tokens[kind] * row.unit_pico[kind] + 500) // 1_000
            assert row.list_pico.get(kind) != row.unit_pico[kind]
        assert decode(encode(row)) == row


@given(many)
def test_the_lines_of_a_cell_sum_to_its_cost(ledger: list[LedgerRow]) -> None:
    """And a line is off its exact amount by at most half a nano-dollar for every row in it."""
    for cell in roll(ledger):
        assert sum(line.cost_nano_usd for line in cell.lines) == cell.cost_nano_usd
        for line in cell.lines:
            assert abs(line.cost_nano_usd * 1_000 - line.tokens * line.unit_pico) <= 500 * len(ledger)


@given(many, st.data())
def test_rows_sum_to_the_same_however_they_are_dealt_out(ledger: list[LedgerRow], data: st.DataObject) -> None:
    """A rollup of all rows, and those of any two halves together, say the same to the nano-dollar."""
    one = data.draw(st.sets(st.integers(0, len(ledger))))
    halves = [[row for i, row in enumerate(ledger) if (i in one) == side] for side in (True, False)]
    together = sums(roll(ledger))
    assert sums([*roll(halves[0]), *roll(halves[1])]) == together
    assert sums(roll([*halves[1], *halves[0]])) == together


@given(many)
@settings(max_examples=40)
def test_cells_survive_their_store_whatever_the_room_in_an_entity(ledger: list[LedgerRow]) -> None:
    """Told apart into as many entities as it takes and read back, they say what they said; no column is too long."""
    cells = [cell for repeated in range(3) for cell in roll(ledger)]
    stored = [encode_cell(cell, "p", n) for n, cell in enumerate(storable(cells, 300))]
    assert sums(map(decode_cell, stored)) == sums(cells)
    assert all(len(entity.get("lines", "")) <= 300 for entity in stored)
    for entity in stored:
        cell = decode_cell(entity)
        assert sum(line.cost_nano_usd for line in cell.lines) == cell.cost_nano_usd


calls = st.lists(
    st.tuples(
        st.sampled_from(["search", "ads"]), st.integers(0, 3), st.integers(0, 10**10), st.booleans(), st.booleans()
    ),
    max_size=40,
)


@given(calls, st.integers(1, 4))
def test_no_refusal_is_lost_or_counted_twice_on_its_way(noted: list[tuple[Any, ...]], room: int) -> None:
    """However refusals and flushes alternate and however often an event is delivered: each is in one event, or counted
    as lost; and no two events share an identity."""
    most, refused.MOST_GROUPS = refused.MOST_GROUPS, room
    try:
        refusals, delivered = Refusals("worker-1"), []
        for team, user, estimate_nano_usd, flush, twice in noted:
            refusals.add(_refusal(team, f"u{user}", estimate_nano_usd), CheckRequest(model="gpt-4o"), {"session"})
            if flush:
                sealed = [body for _, body in refusals.seal()]
                delivered += sealed * (2 if twice else 1)
        delivered += [body for _, body in refusals.seal()]
    finally:
        refused.MOST_GROUPS = most
    ledger: dict[str, RefusalEvent] = {}
    for body in delivered:
        event = decode_event(body, TEN + timedelta(days=1))
        assert isinstance(event, RefusalEvent)
        assert ledger.setdefault(event.id, event) == event
        assert "session" not in event.data.scopes
    counted = sum(event.data.calls for event in ledger.values())
    assert counted + refusals.lost == len(noted)
    if not refusals.lost:
        assert sum(event.data.estimate_nano_usd for event in ledger.values()) == sum(each[2] for each in noted)


def _refusal(team: str, user: str, estimate_nano_usd: int) -> CheckAnswer:
    return CheckAnswer(
        decision="refuse",
        reason="budget_exhausted",
        tenant="contoso",
        scopes={"session": "s", "team": team, "user": user},
        requested_model="gpt-4o",
        model="gpt-4o",
        provider="azure-openai",
        deployment="gpt-4o",
        state="stopped",
        disabled_tools=[],
        budget=None,
        admitted_at_utc=TEN,
        error=BudgetExhausted("Budget team:search (2026-11) is spent"),
        estimate_nano_usd=estimate_nano_usd,
    )
