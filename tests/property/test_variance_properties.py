"""Whatever the amounts: corrections sum to the variance, and a variance corrected is none."""

from __future__ import annotations

from datetime import UTC, date, datetime

from hypothesis import given
from hypothesis import strategies as st

from shared.config.model import Config
from shared.config.reconciliation import Account, Reconciliation
from shared.ledger.rollup import CellLine, RollupCell
from shared.reports.reconcile.invoice import ATTO_PER_NANO, InvoiceRow
from shared.reports.reconcile.meters import Meters
from shared.reports.reconcile.sides import Accounts, InvoiceSide, LedgerSide
from shared.reports.reconcile.variance import compare, openings, remark_prefix

PERIOD, FIRST, LAST = "2026-10", date(2026, 10, 1), date(2026, 10, 31)
RULES = Reconciliation(tolerance_ppm=0, tolerance_nano_usd=0, accounts=(Account("a", tenant="t"),))
RESOURCE = "/x/providers/microsoft.cognitiveservices/accounts/a"
METER = "gpt 4o Inp glbl Tokens"
CONFIG = Config(version="v", tenants={}, teams={}, budgets=(), models={})
amounts = st.lists(st.tuples(st.integers(1, 28), st.integers(-(10**30), 10**30)), min_size=1, max_size=8)
usage = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**15)), max_size=8)


def cell(team: str, nano: int, **fields: object) -> RollupCell:
    """A quarter hour of a team, or a correction."""
    line = CellLine("input", "p", 1, 1, "", 1, nano)
    values = {"model": "gpt-4o", "scopes": {"team": team}, "lines": [line], "cost_nano_usd": nano}
    return RollupCell(tenant="t", quarter_utc=datetime(2026, 10, 2, tzinfo=UTC), **{**values, **fields})


@given(billed=amounts, used=usage)
def test_corrections_sum_to_the_variance_and_close_it(
    billed: list[tuple[int, int]], used: list[tuple[str, int]]
) -> None:
    """Over any charges, credits among them, and any teams: the parts are the whole, and with them nothing is open."""
    meters = Meters(["gpt-4o"], {})
    invoice = InvoiceSide(meters, Accounts(RULES.accounts), FIRST, LAST)
    for day, atto in billed:
        invoice.add(InvoiceRow(date(2026, 10, day), "Usage", "USD", atto, RESOURCE, METER, "s"))
    cells = [cell(team, nano) for team, nano in used]

    def variances(corrections: list[RollupCell]) -> tuple[list, LedgerSide]:
        ledger = LedgerSide(CONFIG, meters, Accounts(RULES.accounts), remark_prefix(PERIOD))
        for each in [*cells, *corrections]:
            ledger.add(each)
        return compare(PERIOD, invoice, ledger, RULES), ledger

    (found,), ledger = variances([])
    whole = sum(atto for _, atto in billed)
    rounded = (abs(whole) + ATTO_PER_NANO // 2) // ATTO_PER_NANO * (1 if whole >= 0 else -1)
    assert found.open_nano_usd == rounded - sum(nano for _, nano in used)
    opened, held = openings(PERIOD, [found], invoice, ledger, {"a": "t"})
    assert held == []
    assert sum(each.amount_nano_usd for each in opened) == found.open_nano_usd
    assert len({each.id for each in opened}) == len(opened)
    booked = [
        cell("", 0, correction="adjustment", remark=each.remark, cost_nano_usd=each.amount_nano_usd, lines=[])
        for each in opened
    ]
    (after,), ledger = variances(booked)
    assert after.open_nano_usd == 0
    assert openings(PERIOD, [after], invoice, ledger, {"a": "t"}) == ([], [])
