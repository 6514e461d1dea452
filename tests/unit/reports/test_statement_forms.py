"""Every file of a statement says the same, to the nano-unit, and says it the same way each time."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal, localcontext
from html import unescape

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.reports.charge import Charge
from shared.reports.exact import plain, scaled
from shared.reports.focus_rows import FocusRows
from shared.reports.formats import FORMATS, require_format
from shared.reports.shown import amount as shown_amount
from shared.reports.shown import column
from shared.reports.statement import Rate, Statement
from tests.support.read_files import amounts_due, csv_rows, parquet_rows, written
from tests.support.statements import AS_OF, USD, day, every_charge, statement_of, used

EURO = Rate(currency="EUR", usd_per_unit_nano=1_170_000_000, effective_from=AS_OF, source="rates.yaml")


def in_euro(charge: Charge) -> Charge:
    """The charge with unit prices in euro, half-up to the pico-euro; amounts follow from them."""

    def converted(pico: int | None) -> int | None:
        return None if pico is None else (pico * 1_000_000_000 + 585_000_000) // 1_170_000_000

    price = converted(charge.unit_pico)
    if price is None:
        return charge
    owed = 0 if charge.commitment_status else charge.tokens * price
    effective = charge.effective_pico if charge.commitment_status else owed
    return msgspec.structs.replace(
        charge,
        price_pico=price,
        list_price_pico=converted(charge.list_pico),
        billed_pico=owed,
        effective_pico=effective,
    )


@pytest.mark.parametrize("currency", ["USD", "EUR"])
def test_every_form_adds_up_to_the_same_amount(currency: str) -> None:
    """Two teams with every kind of charge: the rows of all eight files sum to the amount due, none off by a nano."""
    charges = [*every_charge("search"), *every_charge("support")]
    changes: dict[str, object] = {}
    if currency == "EUR":
        charges = [in_euro(charge) for charge in charges]
        changes = {"currency": "EUR", "rate": EURO}
    statement, charges = statement_of(charges, **changes)
    due = amounts_due(statement, charges)
    assert due == dict.fromkeys(due, scaled(statement.total_nano, 9))
    if currency == "USD":
        calls = Decimal("2.2509") + Decimal("0.4") + Decimal("2.400008") + Decimal("0.000000001")
        corrections = Decimal("-0.002") + Decimal("0.0015") + Decimal("0.123456789")
        allocated = 40 + Decimal("5.000000001") + 2 + 3
        assert due["json"] == 2 * (calls + corrections + allocated)


def test_the_files_of_the_teams_add_up_to_the_tenants() -> None:
    """A team's files hold its own rows and nothing else; together they are the tenant's."""
    statement, charges = statement_of([*every_charge("search"), *every_charge("support")])
    whole = amounts_due(statement, charges)
    parts = [
        amounts_due(statement.of_teams([team]), [charge for charge in charges if charge.team == team])
        for team in statement.team_ids
    ]
    for form, total in whole.items():
        assert sum(part[form] for part in parts) == total


@pytest.mark.parametrize("name", FORMATS)
def test_equal_statements_give_equal_bytes(name: str) -> None:
    """Closing a month twice must publish the same files."""
    statement, charges = statement_of(every_charge())
    assert written(name, statement, charges) == written(name, statement, charges)


@pytest.mark.parametrize("name", FORMATS)
def test_a_form_says_whether_it_reads_charges(name: str) -> None:
    """A form that says no is written without any: it must not need them, and one that says yes must."""
    statement, charges = statement_of(every_charge())
    needs_none = written(name, statement, ()) == written(name, statement, charges)
    assert needs_none is not FORMATS[name].reads_charges


def test_csv_and_parquet_hold_the_same_rows() -> None:
    """Every cell of the FOCUS CSV is the Parquet file's: nulls empty, decimals exact, instants in UTC."""
    statement, charges = statement_of(every_charge())
    for version in ("focus", "focus-1.2"):
        texts = csv_rows(written(version, statement, charges))
        values = parquet_rows(written(version.replace("focus", "parquet"), statement, charges))
        assert [list(row) for row in texts] == [list(row) for row in values]
        for text_row, value_row in zip(texts, values, strict=True):
            for name, value in value_row.items():
                if isinstance(value, Decimal):
                    assert Decimal(text_row[name]) == value, name
                elif isinstance(value, datetime):
                    assert datetime.fromisoformat(text_row[name]) == value, name
                else:
                    assert text_row[name] == (value or ""), name


kinds = st.sampled_from(["input", "cached_input", "output", "output_audio"])
usages = st.builds(
    lambda kind, tokens, unit, discount, pooled: used(
        "search",
        kind,
        tokens,
        "0",
        unit_pico=unit,
        price_pico=unit,
        list_pico=unit + discount,
        list_price_pico=unit + discount,
        ledger_nano_usd=(tokens * unit + 500) // 1000,
        billed_pico=0 if pooled else tokens * unit,
        effective_pico=0 if pooled else tokens * unit,
        **({"commitment_id": "ptu", "commitment_status": "Used"} if pooled else {}),
    ),
    kinds,
    st.integers(-(10**12), 10**15),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.booleans(),
)


@given(st.lists(usages, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_cost_is_price_times_quantity_on_every_row(charges: list[Charge]) -> None:
    """On every row ListCost = ListUnitPrice x PricingQuantity, and ContractedCost likewise, to the last digit,
    with discounts, corrections and pools; and the billed costs sum to the amount due."""
    statement, charges = statement_of(charges)
    rows = FocusRows(statement)
    billed = Decimal(0)
    with localcontext(prec=100):
        for charge in charges:
            row = rows.row(charge)
            if row.get("PricingQuantity") is not None:
                quantity = row["PricingQuantity"]
                assert row["ListCost"] == row["ListUnitPrice"] * quantity  # type: ignore[operator]
                assert row["ContractedCost"] == row["ContractedUnitPrice"] * quantity  # type: ignore[operator]
            billed += row["BilledCost"]  # type: ignore[operator]
        assert billed == scaled(statement.total_nano, 9)


def test_discount_shows_as_list_and_contracted_price() -> None:
    """1,250,500 input tokens at 1.80 USD per million, listed at 2.00: the specification's own way to say so."""
    statement, charges = statement_of(every_charge())
    row = csv_rows(written("focus", statement, charges))[0]
    expected = {
        "ConsumedQuantity": "1250500.0",
        "ConsumedUnit": "Tokens",
        "PricingQuantity": "1.2505",
        "PricingUnit": "1000000 Tokens",
        "ListUnitPrice": "2.0",
        "ContractedUnitPrice": "1.8",
        "ListCost": "2.501",  # 1.2505 x 2.00
        "ContractedCost": "2.2509",  # 1.2505 x 1.80
        "BilledCost": "2.2509",
        "EffectiveCost": "2.2509",
        "ChargeClass": "",
        "SubAccountId": "search",
        "InvoiceId": "contoso-2026-11",
        "Tags": '{"app":"assistant","cost_centre":"CC-1","team":"search"}',
    }
    assert {name: row[name] for name in expected} == expected
    details = json.loads(row["SkuPriceDetails"])
    assert (details["x_TokenDirection"], details["x_TokenCacheAction"]) == ("Input", "Uncached")


def test_a_pool_is_bought_once_and_spread_over_what_it_covered() -> None:
    """What the purchase bills is what its used and unused rows amortise: 40 = 30 + 10, and nothing is paid twice."""
    statement, charges = statement_of(every_charge())
    rows = [r for r in csv_rows(written("focus", statement, charges)) if r["CommitmentDiscountId"]]
    figures = [(r["ChargeCategory"], r["CommitmentDiscountStatus"], r["BilledCost"], r["EffectiveCost"]) for r in rows]
    assert figures == [
        ("Usage", "Used", "0.0", "30.0"),
        ("Usage", "Unused", "0.0", "10.0"),
        ("Purchase", "", "40.0", "0.0"),
    ]


def test_tokens_without_a_price_are_marked_and_cost_nothing() -> None:
    """FOCUS allows no null cost: the row says Unpriced, the journal leaves the cost empty, JSON counts the calls."""
    statement, charges = statement_of(every_charge())
    [row] = [r for r in csv_rows(written("focus", statement, charges)) if r["x_PricingStatus"] == "Unpriced"]
    assert (row["BilledCost"], row["x_Tokens"], row["SkuPriceId"]) == (
        "0.0",
        "500.0",
        "azure-openai/brand-new/input/unpriced",
    )
    [line] = [r for r in csv_rows(written("csv", statement, charges)) if r["pricing_status"] == "unpriced"]
    assert (line["total"], line["list_cost"], line["tokens"]) == ("", "", "500")


def test_numbers_are_plain_decimals() -> None:
    """No exponent, no plus, no trailing noise, always a point: one type in a column for whoever reads it."""
    numbers = [0, 1, -1, 10**12, 137, -125 * 10**9, 10**30]
    texts = [plain(scaled(number, 12)) for number in numbers]
    assert texts == [
        *("0.0", "0.000000000001", "-0.000000000001", "1.0", "0.000000000137", "-0.125"),
        "1000000000000000000.0",
    ]


@given(st.lists(st.integers(-(10**15), 10**15), max_size=30), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_shown_parts_add_up_to_the_shown_sum(parts: list[int], decimals: int) -> None:
    """Rounded for the eye, a column still sums to the rounded total below it."""
    values = [Decimal(text.replace(",", "").replace("\u2212", "-")) for text in column(parts, decimals)]
    assert sum(values) == Decimal(shown_amount(sum(parts), decimals).replace(",", "").replace("\u2212", "-"))


def test_an_unknown_form_is_refused_by_name() -> None:
    """The answer names what there is; a version only goes with FOCUS."""
    for wanted, version, param in (
        ("pdf", None, "format"),
        ("focus", "1.0", "focus_version"),
        ("json", "1.2", "focus_version"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            require_format(wanted, version)
        assert (caught.value.param, caught.value.code) == (param, "unsupported_format")
    assert require_format("parquet", "1.2").file_name == "focus-1.2.parquet"


def test_the_page_tells_downgrades_and_refusals_with_what_they_saved() -> None:
    """1,234 calls served by a cheaper model saved 17 USD, one refused call was expected to cost 2.000000001 USD."""
    statement, charges = statement_of(every_charge())
    text = re.sub(r"<[^>]+>", " ", unescape(written("html", statement, charges).decode()))
    words = " ".join(text.split())
    assert "gpt-4o \u2192 gpt-4o-mini 1,234 calls 17.0000" in words
    assert "o3 refused 1 call 2.0000" in words
    assert {row["decision"]: row["saved"] for row in json.loads(written("json", statement, charges))["savings"]} == {
        "downgrade": "17.00",
        "refuse": "2.000000001",
    }


def big_statement() -> Statement:
    """A tenant with 400 teams, each with an app and a model of its own with a long name."""
    charges = [
        used(
            f"team-{n:03d}-{'x' * 60}",
            "output",
            1_000_000 + n,
            "10",
            app=f"application-{n:03d}-{'y' * 120}",
            model=f"model-{n:03d}-{'z' * 120}",
            starts_utc=day(1 + n % 30),
            ends_utc=day(1 + n % 30),
        )
        for n in range(400)
    ]
    charges += [charge for n in range(40) for charge in every_charge(f"other-{n:02d}")]
    return statement_of(charges)[0]


def test_the_page_of_a_big_tenant_stays_small_and_adds_up() -> None:
    """440 teams, 402 models: under 100 KB, and each table's rows, others included, sum to the total it shows."""
    statement = big_statement()
    page = written("html", statement, []).decode()
    assert len(page.encode()) < 100_000
    tables = re.findall(r"<tbody>((?:(?!</tbody>).)*)</tbody>\s*<tfoot>.*?<td>([^<]+)</td>", page, flags=re.DOTALL)
    assert len(tables) >= 6
    for body, total in tables:
        amounts = [re.findall(r"<td>([^<]+)</td>", row)[0] for row in body.split("<tr>")[1:]]
        values = [Decimal(text.replace(",", "").replace("\u2212", "-")) for text in amounts]
        assert sum(values) == Decimal(total.replace(",", ""))
    assert "432 others" in unescape(page)  # 440 teams without the eight largest
    assert shown_amount(statement.total_nano) in page
    assert statement.total_nano > 400 * 10 * USD + 40 * 50 * USD
