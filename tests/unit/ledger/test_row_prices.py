"""What rating writes beside the cost: the prices of the lines, the tier, and what a downgrade saved."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shared.budgets.snapshot import Snapshot
from shared.config.model import Config, Discount, Model, PriceOverride, Tenant
from shared.ledger.codec import decode, encode
from shared.ledger.rating import usage_row
from shared.ledger.refusals import refusal_row
from shared.ledger.rollup import CellLine, RollupCell, correction_of, roll
from shared.ledger.rollup_codec import MAX_LINES_CHARS, decode_cell, encode_cell, storable
from shared.ledger.row import LedgerRow
from shared.ppm import PPM
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.usage.build import refusal_event_bytes, usage_event_bytes
from shared.usage.events import UsageEvent, decode_event, decode_http
from shared.usage.refusal_events import RefusalEvent
from shared.usage.rejected import EventRejected
from tests.ledger_rows import TEN, position, usage
from tests.support.engine import LONG_AGO

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def snapshot() -> Snapshot:
    """`big` costs 1 micro-USD in and 2 out, `small` a tenth; gpt-4o is on the list, a fifth off."""
    prices = (
        PriceOverride("big", LONG_AGO, {"input": 1_000_000, "output": 2_000_000}),
        PriceOverride("small", LONG_AGO, {"input": 100_000, "output": 200_000}),
    )
    models = {name: Model(name) for name in ("big", "small", "gpt-4o")}
    discounts = (Discount(effective_from=LONG_AGO, off_ppm=PPM // 5),)
    config = Config("v1", {"acme": Tenant("acme")}, {}, (), models, prices, discounts)
    pricer = Pricer(PriceBook.load(), config)
    return Snapshot(config, pricer, Router(config, pricer))


def rated(model: str = "small", **data: Any) -> LedgerRow:
    """The row of a call with 100 tokens in and 50 out."""
    used = {"prompt_tokens": 100, "completion_tokens": 50}
    told = {"tenant": "acme", "scopes": {"team": "search"}, "model": model, "usage": used, "status": 200, **data}
    event = decode_event(usage_event_bytes("test", "call-1", TEN, told), NOW)
    assert isinstance(event, UsageEvent)
    return usage_row(event, position(1), snapshot(), None, 500)


def test_a_row_keeps_the_price_of_each_line_beside_the_list_price() -> None:
    """gpt-4o lists 2.50 and 10.00 USD per million; a fifth off is 2.00 and 8.00."""
    row = rated("gpt-4o", provider="azure-openai")
    assert row.unit_pico == {"input": 2_000_000, "output": 8_000_000}
    assert row.list_pico == {"input": 2_500_000, "output": 10_000_000}
    assert row.lines_nano_usd == {"input": 100 * 2_000, "output": 50 * 8_000}


def test_the_tier_stands_in_the_row() -> None:
    """Batch costs half, so the row must say that it was batch."""
    row = rated("gpt-4o", provider="azure-openai", processing_tier="batch")
    assert (row.processing_tier, row.list_pico) == ("batch", {"input": 1_250_000, "output": 5_000_000})


def test_a_downgrade_saves_what_the_requested_model_would_have_cost() -> None:
    """100 in and 50 out are 200 micro-USD on `big` and 20 on `small`."""
    row = rated(requested_model="big", decision="downgrade")
    assert (row.cost_nano_usd, row.saved_nano_usd) == (20_000, 200_000 - 20_000)


@pytest.mark.parametrize(
    "change",
    [
        {"requested_model": "nobody-knows", "decision": "downgrade"},
        {"model": "nobody-knows", "requested_model": "big", "decision": "downgrade"},
        {"requested_model": "big", "decision": "allow"},
    ],
)
def test_what_nobody_knows_is_not_taken_for_saved(change: dict[str, Any]) -> None:
    """Either price unknown, or no downgrade: null, never zero."""
    assert rated(**change).saved_nano_usd is None


def test_rows_and_cells_from_before_these_columns_still_decode() -> None:
    """Their lines have no price; the cost stays what was billed."""
    entity = encode(usage(1))
    assert not {"unit_pico", "list_pico", "processing_tier", "saved_nano_usd", "refused"} & set(entity)
    (cell,) = roll([decode(entity)])
    assert cell.lines[0] == CellLine("input", "book/gpt-4o", 0, 0, "", 10, 1_000)
    stored = encode_cell(cell, "p", 0)
    for column in ("lines", "region"):
        del stored[column]
    old = decode_cell(stored)
    assert (old.lines, old.region, old.saved_nano_usd, old.refused) == ([], "", 0, 0)
    assert old.cost_nano_usd == 1_001


def cell_of(prices: int) -> RollupCell:
    """A cell with this many prices, 7 tokens each, and calls whose price is not known."""
    lines = [CellLine("input", f"book/model-{n}@2026-01-01", n, n, "", 7, n) for n in range(prices)]
    return RollupCell(
        tenant="acme",
        quarter_utc=TEN,
        scopes={"team": "search"},
        requests=prices,
        tokens={"input": 7 * prices, "output": 3},
        lines=lines,
        cost_nano_usd=sum(range(prices)),
        charge_nano_usd=5,
        unpriced=1,
        saved_nano_usd=9,
        refused=2,
    )


def test_a_cell_with_very_many_prices_is_stored_as_several() -> None:
    """No column reaches the 32 Ki characters that a store takes; together they say what the one said."""
    cell = cell_of(3_000)
    parts = list(storable([cell]))
    assert len(parts) > 10
    assert all(len(encode_cell(part, "p", n)["lines"]) <= MAX_LINES_CHARS for n, part in enumerate(parts))
    assert [line for part in parts for line in part.lines] == cell.lines
    assert sum(part.cost_nano_usd for part in parts) == cell.cost_nano_usd
    assert sum(part.tokens["input"] for part in parts) == 7 * 3_000
    first, *others = parts
    assert (first.requests, first.charge_nano_usd, first.unpriced, first.saved_nano_usd, first.refused) == (
        3_000, 5, 1, 9, 2,
    )  # fmt: skip
    assert first.tokens["output"] == 3
    assert not any(part.requests or part.charge_nano_usd or part.saved_nano_usd or part.refused for part in others)


def test_an_ordinary_cell_is_stored_as_it_is() -> None:
    """One entity, unchanged."""
    cell = cell_of(20)
    assert list(storable([cell])) == [cell]


@pytest.mark.parametrize(
    ("kind", "booked", "correction"),
    [
        ("usage", "2026-11", ""),
        ("reversal", "2026-11", ""),  # of a stream, in its own month: nothing was billed before
        ("usage", "2026-12", "new"),
        ("true_up", "2026-12", "new"),
        ("re_rate", "2026-12", "new"),
        ("reversal", "2026-12", "negative"),
        ("correction", "2026-11", "adjustment"),
        ("correction", "2026-12", "adjustment"),
    ],
)
def test_a_cell_says_why_its_rows_stand_on_another_months_statement(kind: str, booked: str, correction: str) -> None:
    """A call of November that is booked into December corrects November; an amount without a call always corrects."""
    row = usage(1, kind=kind, booked_period=booked, why="invoice of October")
    assert correction_of(row) == correction
    (cell,) = roll([row])
    assert (cell.correction, cell.remark) == (correction, "invoice of October" if kind == "correction" else "")


def refusal(**change: Any) -> bytes:
    told = {"tenant": "acme", "scopes": {"team": "search"}, "requested_model": "big", "reason": "budget_exhausted"}
    return refusal_event_bytes(
        "tollkeeper/refusals", "w/1/0", TEN, **{**told, "status": 402, "calls": 3, "estimate_nano_usd": 900, **change}
    )


def test_nobody_may_post_refusals() -> None:
    """Whoever may report usage could otherwise invent savings: the product alone publishes these."""
    with pytest.raises(EventRejected) as rejected:
        decode_http("application/cloudevents+json", refusal(), NOW, "some-app")
    assert rejected.value.code == "type_unknown"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"calls": 0}, "data.calls"),
        ({"estimate_nano_usd": -1}, "data.estimate"),
        ({"status": 200}, "data.status"),
        ({"requested_model": ""}, "data.requested_model"),
        ({"scopes": {"Team": "x"}}, "data.scopes"),
    ],
)
def test_a_refusal_event_that_cannot_be_right_is_refused(change: dict[str, Any], param: str) -> None:
    """By the field that is wrong."""
    with pytest.raises(EventRejected) as rejected:
        decode_event(refusal(**change), NOW)
    assert (rejected.value.param or "").startswith(param)


def test_refusals_of_an_unknown_tenant_are_no_rows() -> None:
    """As for every event."""
    event = decode_event(refusal(tenant="nobody"), NOW)
    assert isinstance(event, RefusalEvent)
    with pytest.raises(EventRejected) as rejected:
        refusal_row(event, position(1), snapshot())
    assert rejected.value.code == "tenant_unknown"
