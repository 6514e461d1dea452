"""Statements add up: whatever the calls, pools, percentages and currency, no nano-dollar appears or goes."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.billing import Percent, Pool, PoolTerm, SharedCost, SharedTerm
from shared.ledger.rollup import CellLine, RollupCell
from shared.money import line_nano_usd
from shared.reports.basis import Basis
from shared.reports.bill import Bill, make_bill
from shared.reports.charge import Charge
from shared.reports.spool import Spool
from shared.reports.statement import Rate, Usage
from shared.reports.tally import Tally
from tests.support.read_files import amounts_due

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
WAIT = timedelta(minutes=30)
TEAMS = ("", "search", "shop", "labs")
PRICES = {"input": 2_500_000, "output": 10_000_000, "cached_input": 1_374_999}  # pico-USD per token


def bill_of(basis: Basis, cells: list[RollupCell], spool: Spool | None = None) -> Bill:
    """The bill of these cells at the end of the month."""
    tally = Tally(basis, END, WAIT, spool)
    for cell in sorted(cells, key=lambda cell: cell.quarter_utc):
        tally.add(cell)
    tally.finish()
    return make_bill(tally, spool, status="provisional", as_of_utc=END)


def call_cell(team: str, minute: int, counts: dict[str, int], **changes: Any) -> RollupCell:
    """One call as its rollup holds it: each kind's line rounded once, half-up."""
    sign = changes.pop("sign", 1)
    lines = [
        CellLine(kind, f"p-{kind}", PRICES[kind], PRICES[kind] * 2, "", sign * n, sign * line_nano_usd(n, PRICES[kind]))
        for kind, n in counts.items()
    ]
    return RollupCell(
        tenant="contoso",
        quarter_utc=START + timedelta(minutes=15 * minute),
        scopes={"team": team, "app": f"app-{minute % 2}"} if team else {},
        provider="azure-openai",
        model="gpt-4o",
        booked_period="2026-11",
        requests=sign,
        tokens={kind: sign * n for kind, n in counts.items()},
        lines=lines,
        cost_nano_usd=sum(line.cost_nano_usd for line in lines),
        **changes,
    )


counts = st.dictionaries(st.sampled_from(sorted(PRICES)), st.integers(1, 3_000), min_size=1)
calls = st.builds(
    call_cell,
    st.sampled_from(TEAMS),
    st.integers(0, 30 * 24 * 4 - 1),
    counts,
    deployment=st.sampled_from(["", "ptu-1", "gpu-1"]),
    measured=st.booleans(),
)
corrections = st.builds(
    lambda team, minute, counts, negative: call_cell(
        team,
        -1 - minute,
        counts,
        sign=-1 if negative else 1,
        correction="negative" if negative else "new",
    ),
    st.sampled_from(TEAMS),
    st.integers(0, 96 * 20),
    counts,
    st.booleans(),
)
adjustments = st.builds(
    lambda team, nano: RollupCell(
        tenant="contoso",
        quarter_utc=START - timedelta(days=3),
        scopes={"team": team} if team else {},
        booked_period="2026-11",
        correction="adjustment",
        remark="invoice variance",
        cost_nano_usd=nano,
    ),
    st.sampled_from(TEAMS),
    st.integers(-(10**9), 10**9),
)
unpriced = st.builds(
    lambda team, minute, n: RollupCell(
        tenant="contoso",
        quarter_utc=START + timedelta(minutes=15 * minute),
        scopes={"team": team} if team else {},
        model="new-model",
        deployment="ptu-1" if n % 2 else "",
        pricing_status="unpriced",
        booked_period="2026-11",
        requests=1,
        unpriced=1,
        tokens={"input": n},
    ),
    st.sampled_from(TEAMS),
    st.integers(0, 2_000),
    st.integers(1, 1_000),
)
amounts = st.integers(0, 10**13)
pools = st.builds(
    lambda idle, hourly, monthly, units, per_unit: (
        Pool(
            id="ptu",
            tenant="contoso",
            label="PTU",
            kind="ptu",
            deployments=frozenset({"ptu-1"}),
            terms=(PoolTerm(START - timedelta(days=9), units, hourly), PoolTerm(START + timedelta(days=11), 7, hourly)),
            weights={"output": 4_000, "cached_input": 0},
            tokens_per_minute_per_unit=per_unit,
            idle=idle,
            owner="labs" if idle == "owner" else None,
        ),
        Pool(
            id="gpu",
            tenant="contoso",
            label="GPU",
            kind="fixed",
            deployments=frozenset({"gpu-1"}),
            terms=(PoolTerm(START, 0, None, monthly),),
        ),
    ),
    st.sampled_from(["separate", "proportional", "owner"]),
    st.integers(1, 10**10),
    amounts,
    st.integers(1, 200),
    st.sampled_from([None, 1, 100]),
)
shared = st.lists(
    st.builds(
        lambda number, by, nano, exclude: SharedCost(
            id=f"shared-{number}",
            tenant="contoso",
            label="Platform",
            by=by,
            terms=(SharedTerm(START - timedelta(days=1), nano), SharedTerm(START + timedelta(days=9), nano // 3)),
            exclude=frozenset(exclude),
        ),
        st.integers(1, 99),
        st.sampled_from(["tokens", "cost", "even"]),
        amounts,
        st.sets(st.sampled_from(["search", "(unassigned)"])),
    ),
    max_size=2,
    unique_by=lambda cost: cost.id,
)
percents = st.none() | st.integers(1, 3_000_000).map(lambda ppm: Percent(ppm, START, "Percent"))
rates = st.none() | st.integers(10**6, 10**11).map(
    lambda nano: Rate(currency="EUR", usd_per_unit_nano=nano, effective_from=START, source="test")
)
bases = st.builds(
    lambda pools, shared, markup, tax, rate: Basis(
        tenant="contoso",
        period="2026-11",
        currency="USD" if rate is None else "EUR",
        rate=rate,
        cost_centres={"search": "CC-1", "idle-team": "CC-2"},
        pools=pools,
        shared=tuple(shared),
        markup=markup,
        tax=tax,
    ),
    pools,
    shared,
    percents,
    percents,
    rates,
)


@settings(max_examples=150, deadline=None)
@given(bases, st.lists(calls | corrections | adjustments | unpriced, max_size=25))
def test_every_way_to_add_a_bill_up_gives_the_same_sum(basis: Basis, cells: list[RollupCell]) -> None:
    """Statement, sum of the team statements, and sum of the charges (billed and amortised) are equal to the nano unit;
    the charges hold the ledger's cost exactly; every price times its quantity is its amount."""
    with Spool() as spool:
        bill = bill_of(basis, cells, spool)
        statement, charges = bill.statement, list(bill.charges())
    teams = [statement.of_teams([team]) for team in statement.team_ids]
    assert [team for _, team in statement.by_team()] == teams
    assert statement.total_nano * 1000 == sum(charge.billed_pico for charge in charges)
    assert statement.total_nano * 1000 == sum(charge.effective_pico for charge in charges)
    assert statement.total_nano == sum(team.total_nano for team in teams)
    by_team: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        by_team[charge.team].append(charge)
    for team in teams:
        (name,) = team.teams or ()
        assert team.total_nano * 1000 == sum(charge.billed_pico for charge in by_team[name])
        assert team.total_nano * 1000 == sum(charge.effective_pico for charge in by_team[name])
    ledger = sum(cell.cost_nano_usd for cell in cells)
    assert ledger == sum(charge.ledger_nano_usd for charge in charges) == statement.totals.cost_nano_usd
    for charge in charges:
        if charge.price_pico is not None:
            covered = charge.commitment_status == "Used"
            assert charge.billed_pico == (0 if covered else charge.tokens * charge.price_pico)
    for line in statement.lines:
        assert sum(kind.ledger_nano_usd for kind in line.kinds) == line.usage.cost_nano_usd


def test_a_late_call_of_a_covered_month_owes_nothing_and_takes_no_share() -> None:
    """Its own month's pool was paid in full: it neither costs its price by the token nor moves this month's shares."""
    ptu = Pool(
        id="ptu",
        tenant="contoso",
        label="PTU",
        kind="ptu",
        deployments=frozenset({"ptu-1"}),
        terms=(PoolTerm(START - timedelta(days=31), 1, 10**9),),
    )
    late = call_cell("shop", -96, {"input": 3_000}, deployment="ptu-1", correction="new")
    own = call_cell("search", 5, {"input": 1_000}, deployment="ptu-1")
    with Spool() as spool:
        bill = bill_of(Basis(tenant="contoso", period="2026-11", pools=(ptu,)), [late, own], spool)
        charges = list(bill.charges())
    (line,) = bill.statement.corrections
    assert (line.owed_nano, line.covered_nano) == (0, 7_500_000)  # 3,000 tokens at 2.50 USD per million
    assert {(a.team, a.kind): a.amount_nano for a in bill.statement.allocated} == {("search", "pool"): 720 * 10**9}
    assert {charge.team: charge.effective_pico for charge in charges if charge.commitment_status == "Used"} == {
        "shop": 0,
        "search": 720 * 10**12,
    }


def test_a_pool_pays_for_calls_however_its_deployment_is_spelled_and_for_no_adjustment() -> None:
    """`PTU-1` of billing.yaml is `ptu-1` of the calls; what the invoice corrects of it is owed, as the pool is no part
    of an amount without tokens."""
    ptu = Pool("ptu", "contoso", "PTU", "ptu", frozenset({"PTU-1"}), (PoolTerm(START, 1, 10**9),))
    covered = call_cell("search", 5, {"input": 1_000}, deployment="ptu-1")
    variance = RollupCell(
        tenant="contoso",
        quarter_utc=START,
        scopes={"team": "search"},
        deployment="ptu-1",
        booked_period="2026-11",
        correction="adjustment",
        remark="variance",
        cost_nano_usd=-7,
    )
    bridge = bill_of(Basis(tenant="contoso", period="2026-11", pools=(ptu,)), [variance, covered]).statement.bridge
    assert (bridge.usage_nano, bridge.covered_nano, bridge.corrections_nano) == (2_500_000, -2_500_000, -7)
    assert bridge.total_nano == 720 * 10**9 - 7


def test_an_amount_whose_price_was_not_kept_is_in_every_file_beside_a_call_without_a_price() -> None:
    """Rows from before prices were kept, and calls of the same model that have no price: no form may take both for
    unknown, as what is owed would be missing from its sum."""
    known = RollupCell(
        tenant="contoso",
        quarter_utc=START,
        scopes={"team": "search"},
        provider="azure-openai",
        model="gpt-4o",
        booked_period="2026-11",
        requests=1,
        tokens={"input": 10},
        lines=[CellLine("input", "p-1", 0, 0, "", 10, 25_000)],
        cost_nano_usd=25_000,
    )
    unknown = call_cell("search", 3, {"output": 4}, pricing_status="unpriced", unpriced=1)
    unknown.lines, unknown.cost_nano_usd, unknown.scopes = [], 0, {"team": "search"}
    with Spool() as spool:
        bill = bill_of(Basis(tenant="contoso", period="2026-11"), [known, unknown], spool)
        assert set(amounts_due(bill.statement, list(bill.charges())).values()) == {Decimal("0.000025")}


def test_a_cost_is_unknown_only_where_no_amount_is_known() -> None:
    """An invoice's correction is money even where none of the calls has a price."""
    assert Usage(requests=2, unpriced_requests=2).cost is None
    assert Usage(requests=2, unpriced_requests=2, cost_nano_usd=-(10**9)).cost == "-1.00"


def test_shared_costs_do_not_make_each_other_dearer() -> None:
    """Two costs by cost are both split by what was owed before either, whatever their order."""
    costs = [
        SharedCost(id=name, tenant="contoso", label=name, by="cost", terms=(SharedTerm(START, nano),))
        for name, nano in (("a", 9 * 10**9), ("b", 3 * 10**9))
    ]
    costs[0] = SharedCost(
        id="a", tenant="contoso", label="a", by="even", terms=costs[0].terms, include=frozenset({"shop"})
    )
    cells = [call_cell("search", 1, {"input": 2_000}), call_cell("shop", 2, {"input": 1_000})]
    statement = bill_of(Basis(tenant="contoso", period="2026-11", shared=tuple(costs)), cells).statement
    assert {(line.team, line.id): line.amount_nano for line in statement.allocated} == {
        ("shop", "a"): 9 * 10**9,
        ("search", "b"): 2 * 10**9,
        ("shop", "b"): 1 * 10**9,
    }


def test_only_calls_that_still_have_no_price_are_told() -> None:
    """A closed month's call that was rated again takes none away from this month's; a late one rated again is gone."""

    def missing(day: int, calls: int, correction: str = "") -> RollupCell:
        return RollupCell(
            tenant="contoso",
            quarter_utc=START + timedelta(days=day),
            scopes={"team": "search"},
            model="new-model",
            pricing_status="unpriced",
            booked_period="2026-11",
            correction=correction,  # type: ignore[arg-type]
            requests=calls,
            unpriced=calls,
            tokens={"input": 10 * calls},
        )

    october = [missing(-3, -4, "negative"), missing(-40, 2, "new"), missing(-40, -1, "negative")]
    november = [missing(1, 5), missing(2, -2)]
    statement = bill_of(Basis(tenant="contoso", period="2026-11"), [*october, *november]).statement
    (told,) = statement.unpriced
    assert (told.calls, told.tokens) == ((5 - 2) + (2 - 1), {"input": 40})
