"""Three invented months from ledger rows to every file, each amount written as arithmetic that a reader can check.

October: provisioned throughput with idle capacity, a shared cost, tax, and a budget whose month is Amsterdam's.
November: corrections of the closed October, markup, rounding, and what the budget carried over.
December: a tenant billed in euro, at the rate of the month's start, with a batch price.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from shared.config.loader import load_config
from shared.ledger.rollup import RollupCell, roll
from shared.ledger.row import LedgerRow
from shared.money import line_nano_usd
from shared.reports.bill import Bill
from shared.reports.files_focus import write_focus
from shared.reports.files_journal import write_journal
from shared.reports.files_json import write_json
from shared.reports.files_parquet import write_parquet
from tests.ledger_rows import usage
from tests.support.reports import MemoryFiles, MemoryMonths, reports_over

USD = EUR = 10**9  # nano
CONFIG = load_config(
    {
        "tenants.yaml": b"tenants: [{id: default}, {id: contoso}, {id: fabrikam, currency: EUR}]",
        "rates.yaml": b"""rates:
          - {currency: EUR, effective_from: 2026-01-01, usd_per_unit: 1.25, source: ECB}
          - {currency: EUR, effective_from: 2026-12-15, usd_per_unit: 1.50, source: ECB}""",
        "models.yaml": b"models: [{id: gpt-4o}, {id: tiny}]",
        "teams/search.yaml": b"""{team: search, tenant: contoso, cost_centre: CC-1, budgets: [
            {id: monthly, period: month, limit: 100, timezone: Europe/Amsterdam, rollover: true}]}""",
        "teams/shop.yaml": b"{team: shop, tenant: contoso, cost_centre: CC-2}",
        "teams/lab.yaml": b"{team: lab, tenant: fabrikam}",
        "billing.yaml": b"""
issuer: Platform
pools:
  - id: ptu
    tenant: contoso
    label: Provisioned throughput
    deployments: [gpt-4o-ptu]
    terms:
      - {effective_from: 2026-10-01, units: 10, usd_per_unit_hour: 2.00}
      - {effective_from: 2026-11-01, units: 0}
    tokens_per_minute_per_unit: 100
    weights: {output: 4}
shared:
  - id: gateway
    tenant: contoso
    label: API Management
    by: even
    terms: [{effective_from: 2026-10-01, usd_per_month: 310.00}, {effective_from: 2026-11-01, usd_per_month: 0}]
markup: [{percent: 10, effective_from: 2026-11-01, tenant: contoso}]
tax:
  - {percent: 20, effective_from: 2026-10-01, tenant: contoso, label: VAT}
  - {percent: 19, effective_from: 2026-10-01, tenant: fabrikam, label: VAT}
""",
    }
)
GPT_4O = {"input": 2_500_000, "output": 10_000_000}  # pico-USD per token: 2.50 and 10.00 USD per million
TINY = {"input": 137_500}  # a token is half a nano-dollar more than 137


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Rows:
    """Numbers rows as they are written."""

    def __init__(self) -> None:
        self.all: list[LedgerRow] = []

    def add(self, team: str, time: str, tokens: dict[str, int], prices: dict[str, int], **changes: Any) -> None:
        """A call: every kind's line rounded half-up to the nano-dollar, as ingest rates it."""
        lines = {kind: line_nano_usd(n, prices[kind]) for kind, n in tokens.items()}
        cost = sum(lines.values())
        fields: dict[str, Any] = {
            "tenant": "contoso",
            "scopes": {"team": team, "app": "chat"} if team else {},
            "time_utc": at(time),
            "model": "gpt-4o",
            "deployment": "gpt-4o-weu",
            "decision": "allow",
            "tokens": tokens,
            "lines_nano_usd": lines,
            "unit_pico": prices,
            "cost_nano_usd": cost,
            "charge_nano_usd": cost,
            "booked_period": time[:7],
        }
        self.all.append(usage(len(self.all), **fields | changes))

    def take_back(self, number: int, booked: str) -> None:
        """The reversal of a row: all its amounts and tokens the other way."""
        row = self.all[number]
        reversal: dict[str, Any] = {
            "id": f"{row.id}/reversal",
            "kind": "reversal",
            "tokens": {kind: -n for kind, n in row.tokens.items()},
            "lines_nano_usd": {kind: -n for kind, n in row.lines_nano_usd.items()},
            "cost_nano_usd": -(row.cost_nano_usd or 0),
            "charge_nano_usd": -row.charge_nano_usd,
            "booked_period": booked,
        }
        self.all.append(msgspec.structs.replace(row, **reversal))


def ledger_rows() -> list[LedgerRow]:
    """Three months of calls."""
    rows = Rows()
    # October. Covered by the pool: search 10,000,000 + 4 x 290,000 = 11,160,000 weighted tokens, shop 5,580,000.
    rows.add("search", "2026-10-10T09:00", {"input": 10_000_000, "output": 290_000}, GPT_4O, deployment="gpt-4o-ptu")
    rows.add("shop", "2026-10-11T09:00", {"input": 5_580_000}, GPT_4O, deployment="gpt-4o-ptu")
    rows.add("search", "2026-10-20T09:00", {"input": 1_000_000}, GPT_4O)  # 2.50 USD; number 2, corrected in November
    rows.add("search", "2026-10-31T23:30", {"output": 100_000}, GPT_4O)  # 1.00 USD; in Amsterdam it is November
    rows.add("shop", "2026-10-12T09:00", {"input": 2_000_000}, GPT_4O)  # 5.00 USD
    # November. The call of 20 October was 2.00 USD by contract, and October's invoice was 0.75 USD higher.
    rows.take_back(2, "2026-11")
    rows.add(
        "search",
        "2026-10-20T09:00",
        {"input": 1_000_000},
        {"input": 2_000_000},
        kind="re_rate",
        booked_period="2026-11",
    )
    rows.add(
        "",
        "2026-10-12T00:00",
        {},
        {},
        kind="correction",
        cost_nano_usd=750_000_000,
        charge_nano_usd=0,
        why="Invoice variance",
        booked_period="2026-11",
        model="",
        deployment="",
        unit_pico={},
    )
    rows.add("search", "2026-11-05T09:00", {"input": 4_000_000}, GPT_4O)  # 10.00 USD
    for _ in range(7):  # 137.5 nano-dollars each, billed as 138
        rows.add("shop", "2026-11-06T09:00", {"input": 1}, TINY, model="tiny", deployment="tiny")
    # December, of the other tenant.
    fabrikam = {"tenant": "fabrikam"}
    rows.add("lab", "2026-12-02T09:00", {"input": 1_000_000}, GPT_4O, **fabrikam)  # 2.50 USD
    rows.add(
        "lab", "2026-12-20T09:00", {"input": 2_000_000}, {"input": 1_250_000}, processing_tier="batch", **fabrikam
    )  # 2.50 USD
    for _ in range(10):
        rows.add("lab", "2026-12-21T09:00", {"input": 1}, TINY, model="tiny", deployment="tiny", **fabrikam)
    return rows.all


class Ledger:
    """The rows, rolled up."""

    def __init__(self, rows: Sequence[LedgerRow]) -> None:
        self._cells = sorted(roll(rows), key=lambda cell: cell.quarter_utc)

    async def cells(
        self, tenant: str, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]:
        for cell in self._cells:
            if cell.tenant == tenant and start_utc <= cell.quarter_utc < end_utc:
                yield cell


async def bill_of(tenant: str, period: str, closed: Sequence[str] = ()) -> Bill:
    """The bill of a month that is over."""
    rows = [row for row in ledger_rows() if row.booked_period <= period]  # as the ledger was when it was closed
    months = MemoryMonths(closed)
    reports = reports_over(lambda: CONFIG, Ledger(rows), MemoryFiles(), months)
    return await reports.bill(tenant, period, at("2027-01-05T02:10"))


def amounts(bill: Bill) -> dict[tuple[str, str], int]:
    """Allocated nano amounts by (team, kind)."""
    return {(line.team, line.kind): line.amount_nano for line in bill.statement.allocated}


async def test_october_pool_shared_cost_tax_and_zone() -> None:
    """744 hours of 10 units at 2 USD; 37.5 % of the capacity was used, the rest is nobody's; VAT on all of it."""
    bill = await bill_of("contoso", "2026-10")
    pool = 10 * 2 * 744 * USD
    capacity = 10 * 100 * 60 * 744
    assert (pool, capacity) == (14_880 * USD, 44_640_000)
    search_used = pool * 11_160_000 // capacity  # a quarter
    shop_used = pool * 5_580_000 // capacity  # an eighth
    idle = pool - search_used - shop_used
    before_tax = {
        "search": (2 * USD + USD // 2) + 1 * USD + search_used + 155 * USD,  # 2.50 + 1.00 + pool + half of 310
        "shop": 5 * USD + shop_used + 155 * USD,
        "(platform)": idle,
    }
    assert before_tax == {"search": 3_878_500_000_000, "shop": 2_020 * USD, "(platform)": 9_300 * USD}
    assert amounts(bill) == {
        ("search", "pool"): 3_720 * USD,
        ("search", "shared"): 155 * USD,
        ("search", "tax"): before_tax["search"] // 5,
        ("shop", "pool"): 1_860 * USD,
        ("shop", "shared"): 155 * USD,
        ("shop", "tax"): before_tax["shop"] // 5,
        ("(platform)", "idle"): 9_300 * USD,
        ("(platform)", "tax"): before_tax["(platform)"] // 5,
    }
    statement = bill.statement
    assert statement.total_nano == sum(before_tax.values()) * 6 // 5 == 18_238_200_000_000
    # The ledger has the covered calls at their pay-as-you-go price; the bill does not.
    covered = (10_000_000 * 2_500_000 + 290_000 * 10_000_000 + 5_580_000 * 2_500_000) // 1000
    assert statement.bridge.covered_nano == -covered
    assert statement.totals.cost_nano_usd == covered + 8_500_000_000  # 2.50 + 1.00 + 5.00
    # The budget's October ends an hour before the statement's: the call of 23:30 is not in it.
    (budget,) = statement.budgets
    assert (budget.scope, budget.spent_nano_usd, budget.carried_nano_usd) == ("team:search", 30_400_000_000, 0)
    assert budget.spent_nano_usd == 25 * USD + 2_900_000_000 + 2_500_000_000  # 25.00 + 2.90 covered, 2.50 paid
    bill.close()


async def test_november_corrections_markup_rounding_and_rollover() -> None:
    """October is closed: what changed in it stands here as a whole row back and a whole row anew."""
    bill = await bill_of("contoso", "2026-11", closed=["2026-10"])
    statement = bill.statement
    assert [(line.team, line.correction, line.month, line.owed_nano) for line in statement.corrections] == [
        ("(unassigned)", "adjustment", "2026-10", 750_000_000),
        ("search", "negative", "2026-10", -2_500_000_000),
        ("search", "new", "2026-10", 2_000_000_000),
    ]
    # search 10.00 - 2.50 + 2.00; shop 7 x 138 nano; nobody's 0.75; markup 10 %, then VAT 20 % on both
    assert amounts(bill) == {
        ("(unassigned)", "markup"): 75_000_000,
        ("(unassigned)", "tax"): 165_000_000,
        ("search", "markup"): 950_000_000,
        ("search", "tax"): 2_090_000_000,
        ("shop", "markup"): 97,  # of 966: 96.6
        ("shop", "tax"): 213,  # of 966 + 97: 212.6
    }
    assert statement.total_nano == (
        (9_500_000_000 + 950_000_000 + 2_090_000_000) + (966 + 97 + 213) + (750_000_000 + 75_000_000 + 165_000_000)
    )
    charges = list(bill.charges())
    rounding = [charge for charge in charges if charge.description.startswith("Rounding")]
    assert [(charge.team, charge.billed_pico) for charge in rounding] == [("shop", 7 * 138_000 - 7 * 137_500)]
    # October spent 30.40, less 2.50, plus 2.00: 70.10 of its 100 are left. November has the call of 23:30 and 10.00.
    (budget,) = statement.budgets
    assert (budget.carried_nano_usd, budget.spent_nano_usd) == (70_100_000_000, 11 * USD)
    assert budget.limit_nano_usd == 170_100_000_000
    bill.close()


async def test_december_in_euro_with_a_batch_price() -> None:
    """1.25 USD per EUR, the rate of 1 December, though another one began in the month; both prices convert exactly."""
    bill = await bill_of("fabrikam", "2026-12")
    statement = bill.statement
    assert statement.rate is not None
    assert (statement.currency, statement.rate.usd_per_unit_nano, statement.rate.source) == (
        "EUR",
        1_250_000_000,
        "ECB",
    )
    ledger = 2_500_000_000 + 2_500_000_000 + 10 * 138  # nano-USD
    net = ledger * 100 // 125  # 4.000001104 EUR, without remainder
    assert (ledger * 100) % 125 == 0
    vat = 760_000_210  # 19 % of 4.000001104 are 0.76000020976
    assert (statement.totals.cost_nano_usd, statement.total_nano) == (ledger, net + vat)
    charges = list(bill.charges())
    by_price = {(charge.tier, charge.price_pico): charge.billed_pico for charge in charges if charge.price_pico}
    assert by_price == {
        ("", 2_000_000): 1_000_000 * 2_000_000,  # 2.50 / 1.25
        ("batch", 1_000_000): 2_000_000 * 1_000_000,  # 1.25 / 1.25
        ("", 110_000): 10 * 110_000,  # 0.1375 / 1.25
    }
    (rounding,) = (charge for charge in charges if charge.description.startswith("Rounding"))
    assert rounding.billed_pico == net * 1000 - (2 * EUR * 1000 + 2 * EUR * 1000 + 1_100_000) == 4_000
    bill.close()


@pytest.mark.parametrize(
    ("tenant", "period", "closed"),
    [("contoso", "2026-10", []), ("contoso", "2026-11", ["2026-10"]), ("fabrikam", "2026-12", [])],
)
async def test_every_file_of_a_month_adds_up_to_the_same_nano_unit(tenant: str, period: str, closed: list[str]) -> None:
    """JSON, journal, FOCUS as CSV and as Parquet, of the tenant and of each team."""
    bill = await bill_of(tenant, period, closed)
    sums = []
    for teams in (None, *([team] for team in bill.statement.team_ids)):
        statement = bill.statement if teams is None else bill.statement.of_teams(teams)
        files = {}
        for write in (write_json, write_journal, write_focus, write_parquet):
            out = io.BytesIO()
            write(statement, bill.charges(teams), out)
            files[write] = out.getvalue()
        total = Decimal(statement.total_nano).scaleb(-9)
        document = json.loads(files[write_json])
        assert Decimal(document["bridge"]["total"]) == total
        journal = csv.DictReader(io.StringIO(files[write_journal].decode("utf-8-sig")))
        assert sum(Decimal(row["total"] or 0) for row in journal) == total
        focus = list(csv.DictReader(io.StringIO(files[write_focus].decode())))
        assert sum(Decimal(row["BilledCost"]) for row in focus) == total
        assert sum(Decimal(row["EffectiveCost"]) for row in focus) == total
        table = pq.read_table(io.BytesIO(files[write_parquet]))
        assert sum(table["BilledCost"].to_pylist()) == total
        sums.append(total)
    assert sums[0] == sum(sums[1:])
    bill.close()
