"""The reading doors: what a caller gets to see, and how little of others."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import Doors, Recorder, principal

from shared.budgets.cells import CellFamily, cell_at
from shared.budgets.periods import period_at
from shared.errors import StateUnavailable
from shared.health import Health
from shared.ledger.rollup import RollupCell

NOW = datetime.now(UTC)
MONTH = f"{NOW:%Y-%m}"
ADMIN = principal("Chargeback.Admin", oid="grace")
FINANCE = principal("Chargeback.Read", oid="fin", groups=["finance-group"])
ADA = principal("Chargeback.Read", oid="ada")  # a member of team search of contoso, and of fab of fabrikam
SEARCH_APP = principal("Chargeback.Read", oid="sp", app="search-app")
STRANGER = principal("Chargeback.Read", oid="nobody")
CONTOSO = {"tenant": "contoso"}


def counter(scope: str, tenant: str = "contoso", state: str = "active", spent: str = "10.00") -> dict[str, Any]:
    """A counter as the spend service shows it."""
    scope_type, _, key = scope.partition(":")
    cell = cell_at(CellFamily(scope_type, "month", "UTC"), key, period_at("month", "UTC", NOW.timestamp()))
    figures = {"limit": "100.00", "spent": spent, "reserved": "0.00", "remaining": "90.00", "currency": "USD"}
    return {"scope": scope, "period": MONTH, **figures, "state": state, "tenant": tenant, "cell": cell.id}


def used(team: str | None, cost: int, model: str = "gpt-4o", tenant: str = "contoso", **fields: Any) -> RollupCell:
    """A quarter hour of one team's use."""
    scopes = {"team": team} if team else {}
    values: dict[str, Any] = {
        "quarter_utc": NOW.replace(minute=0, second=0, microsecond=0),
        "scopes": scopes,
        "provider": "azure-openai",
        "model": model,
        "booked_period": MONTH,
        "requests": 2,
        "tokens": {"input": 100, "output": 50},
        "cost_nano_usd": cost,
        "charge_nano_usd": cost,
    }
    return RollupCell(tenant=tenant, **{**values, **fields})


COUNTERS = [
    counter("team:search"),
    counter("team:ads", state="stopped"),
    counter("user:ada"),
    counter("user:bob"),
    counter("app:search-app"),
    counter("tenant:contoso", state="warned"),
    counter("team:fab", tenant="fabrikam"),
]


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (ADMIN, ["team:search", "team:ads", "user:ada", "user:bob", "app:search-app", "tenant:contoso"]),
        (FINANCE, ["team:search", "team:ads", "user:ada", "user:bob", "app:search-app", "tenant:contoso"]),
        (ADA, ["team:search", "user:ada", "app:search-app"]),
        (SEARCH_APP, ["team:search", "app:search-app"]),
    ],
)
async def test_spend_lists_what_the_caller_may_see(
    doors: Doors, services: SimpleNamespace, who: str, expected: list[str]
) -> None:
    """Admins and finance see the tenant; a member sees their team's scopes and themselves, nothing of the others."""
    services.spend.rows = COUNTERS
    reply = await doors.call("spend", query=CONTOSO, as_=who)
    assert reply.status == 200
    assert sorted(each["scope"] for each in reply.json["budgets"]) == sorted(expected)


async def test_spend_narrows_by_type_and_state(doors: Doors, services: SimpleNamespace) -> None:
    """`scope_type` and `state` select."""
    services.spend.rows = COUNTERS
    reply = await doors.call("spend", query={**CONTOSO, "scope_type": "team", "state": "stopped"}, as_=ADMIN)
    assert [each["scope"] for each in reply.json["budgets"]] == ["team:ads"]


@pytest.mark.parametrize(
    ("query", "status", "code", "param"),
    [
        ({"tenant": "nobody"}, 403, "tenant_unknown", "tenant"),
        ({"tenant": "../x"}, 400, "invalid_request", "tenant"),
        ({"tenant": "a" * 5000}, 400, "invalid_request", "tenant"),
        ({**CONTOSO, "state": "asleep"}, 400, "invalid_request", "state"),
        ({**CONTOSO, "scope_type": "Te{am}"}, 400, "invalid_request", "scope_type"),
    ],
)
async def test_bad_spend_question(
    doors: Doors, services: SimpleNamespace, query: dict[str, str], status: int, code: str, param: str
) -> None:
    """The parameter that is wrong is named."""
    reply = await doors.call("spend", query=query, as_=ADMIN)
    assert (reply.status, reply.code, reply.param) == (status, code, param)


@pytest.mark.parametrize("name", ["spend", "usage_summary", "chargeback_report"])
async def test_member_of_no_team_sees_nothing(doors: Doors, services: SimpleNamespace, name: str) -> None:
    """Chargeback.Read alone, without a team in the tenant, reads nothing of it."""
    reply = await doors.call(name, query=CONTOSO, as_=STRANGER)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


async def test_finance_of_one_tenant_reads_no_other(doors: Doors, services: SimpleNamespace) -> None:
    """Tenant-wide reach ends at the tenant."""
    reply = await doors.call("spend", query={"tenant": "fabrikam"}, as_=FINANCE)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


async def test_one_scope_comes_with_rate_and_projection(doors: Doors, services: SimpleNamespace) -> None:
    """USD per hour over the last day, and a projection not below what is spent; on the first day without a range."""
    services.spend.rows = COUNTERS
    services.ledger.all = [used("search", 3 * 10**9), used("ads", 900 * 10**9)]
    route = {"scope_type": "team", "scope_key": "search"}
    reply = await doors.call("spend_of_scope", query=CONTOSO, route=route, as_=ADA)
    (budget,) = reply.json["budgets"]
    assert 0 < Decimal(budget["rate"]) <= 3
    projection = budget["projection"]
    assert projection["method"] == "linear"
    assert Decimal(10) <= Decimal(projection["value"])
    assert (projection["low"], projection["high"]) == (None, None)


@pytest.mark.parametrize("route", [("team", "ads"), ("user", "bob"), ("tenant", "contoso"), ("org", "all")])
async def test_other_peoples_scopes_are_refused(
    doors: Doors, services: SimpleNamespace, route: tuple[str, str]
) -> None:
    """403 scope_not_allowed, whether or not the scope exists: existence is not for strangers either."""
    services.spend.rows = COUNTERS
    params = {"scope_type": route[0], "scope_key": route[1]}
    reply = await doors.call("spend_of_scope", query=CONTOSO, route=params, as_=ADA)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


@pytest.mark.parametrize("key", ["", "a\x00b", "x" * 4096, "\ud800"])
async def test_hostile_scope_key_is_refused(doors: Doors, services: SimpleNamespace, key: str) -> None:
    """400 naming scope_key; separators, braces and slashes are fine, control characters and 4 KB are not."""
    route = {"scope_type": "session", "scope_key": key}
    reply = await doors.call("spend_of_scope", query=CONTOSO, route=route, as_=ADMIN)
    assert (reply.status, reply.param) == (400, "scope_key")


@pytest.mark.parametrize("key", ["a|b:{c}", "päth/with/slash", "%2e%2e", "'; drop"])
async def test_odd_but_legal_scope_key_is_looked_up_as_it_is(doors: Doors, services: SimpleNamespace, key: str) -> None:
    """No separator in a key can make it another scope."""
    services.spend.rows = [counter(f"session:{key}")]
    route = {"scope_type": "session", "scope_key": key}
    reply = await doors.call("spend_of_scope", query=CONTOSO, route=route, as_=ADMIN)
    assert (reply.status, reply.json["budgets"][0]["scope"]) == (200, f"session:{key}")


async def test_scope_without_budget_is_not_found(doors: Doors, services: SimpleNamespace) -> None:
    """404: an empty list would look like a budget that nothing was spent on."""
    route = {"scope_type": "team", "scope_key": "search"}
    reply = await doors.call("spend_of_scope", query=CONTOSO, route=route, as_=ADMIN)
    assert (reply.status, reply.code) == (404, "not_found")


async def test_counters_being_rebuilt_answer_503(doors: Doors, services: SimpleNamespace) -> None:
    """Empty is not zero: a spend of 0.00 during a rebuild would be a lie."""
    services.spend.list = Recorder(StateUnavailable("rebuilding", retry_after_seconds=2))
    reply = await doors.call("spend", query=CONTOSO, as_=ADMIN)
    assert (reply.status, reply.code) == (503, "state_unavailable")


async def test_summary_defaults_to_the_running_month_by_team(doors: Doors, services: SimpleNamespace) -> None:
    """Without parameters: since the first of this month, in UTC, grouped by team."""
    services.summaries.summarize = Recorder([{"team": "search"}])
    before = datetime.now(UTC)
    reply = await doors.call("usage_summary", query=CONTOSO, as_=ADMIN)
    ((tenant, start, end, groups, filters), _) = services.summaries.summarize.calls[0]
    assert (tenant, groups, filters) == ("contoso", ["team"], {})
    assert start == end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert before <= end <= datetime.now(UTC)
    assert reply.json["rows"] == [{"team": "search"}]


async def test_summary_takes_dates_groups_and_filters(doors: Doors, services: SimpleNamespace) -> None:
    """Dates mean midnight UTC, groups come apart at commas, every other parameter filters."""
    query = {**CONTOSO, "from": "2026-11-01", "to": "2026-11-02T01:00:00+01:00", "group_by": "team,model,day"}
    await doors.call("usage_summary", query={**query, "model": "gpt-4o,gpt-4o-mini"}, as_=ADMIN)
    ((_, start, end, groups, filters), _) = services.summaries.summarize.calls[0]
    assert (start, end) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
    assert (groups, filters) == (["team", "model", "day"], {"model": ["gpt-4o", "gpt-4o-mini"]})


async def test_summary_of_all_tenants_is_for_admins(doors: Doors, services: SimpleNamespace) -> None:
    """`tenant=*` sums over every tenant; who reads one tenant, even all of it, is refused."""
    query = {"tenant": "*", "group_by": "tenant,model"}
    reply = await doors.call("usage_summary", query=query, as_=ADMIN)
    ((tenant, _, _, groups, filters), _) = services.summaries.summarize.calls[0]
    assert (reply.json["tenant"], tenant, groups, filters) == ("*", None, ["tenant", "model"], {})
    for who in (FINANCE, ADA):
        reply = await doors.call("usage_summary", query=query, as_=who)
        assert (reply.status, reply.code) == (403, "role_required")
    assert len(services.summaries.summarize.calls) == 1


async def test_summary_of_a_member_is_held_to_their_teams(doors: Doors, services: SimpleNamespace) -> None:
    """Whatever is asked, the filter on own teams is added; naming another team is refused."""
    await doors.call("usage_summary", query={**CONTOSO, "group_by": "user"}, as_=ADA)
    assert services.summaries.summarize.calls[0][0][4] == {"team": ["search"]}
    reply = await doors.call("usage_summary", query={**CONTOSO, "team": "search,ads"}, as_=ADA)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "0001-01-01"}, "from"),
        ({"from": "9999-12-31T23:59:59-23:00"}, "from"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "to"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "to"),
        ({"group_by": "team;drop"}, "group_by"),
        ({"group_by": ","}, "group_by"),
        ({"group_by": ",".join(f"s{i}" for i in range(9))}, "group_by"),
        ({"Not A Dimension": "x"}, "Not A Dimension"),
    ],
)
async def test_bad_summary_question(doors: Doors, services: SimpleNamespace, query: dict[str, str], param: str) -> None:
    """400 naming the parameter; the ledger is not scanned."""
    reply = await doors.call("usage_summary", query={**CONTOSO, **query}, as_=ADMIN)
    assert (reply.status, reply.code, reply.param) == (400, "invalid_request", param)
    assert services.summaries.summarize.calls == []


LEDGER = [
    used("search", 1_000_000_001),
    used("search", 5, measured=False),
    used("search", 7, model="gpt-4o-mini"),
    used("ads", 11),
    used(None, 13, unpriced=1, pricing_status="unpriced"),
    used("search", 999, booked_period="2020-01"),
    used("fab", 17, tenant="fabrikam"),
    used("search", 0, cell="team:search|month|UTC|0", charge_nano_usd=-500, requests=0, tokens={}),
]
TOTAL_NANO_USD = 1_000_000_001 + 5 + 7 + 11 + 13


async def test_statement_adds_up_in_every_format(doors: Doors, services: SimpleNamespace) -> None:
    """JSON lines, JSON totals and CSV rows sum to the same nano-dollar, requests and tokens."""
    services.ledger.all = LEDGER
    document = (await doors.call("chargeback_report", query=CONTOSO, as_=FINANCE)).json
    table = await doors.call("chargeback_report", query={**CONTOSO, "format": "csv"}, as_=FINANCE)
    rows = list(csv.DictReader(io.StringIO(table.raw.decode("utf-8-sig"))))
    total = Decimal(TOTAL_NANO_USD) / 10**9
    assert Decimal(document["totals"]["cost"]) == total
    assert sum(Decimal(line["cost"]) for line in document["lines"]) == total
    parts = ("measured_cost_usd", "estimated_cost_usd", "missing_cost_usd")
    assert sum(Decimal(row[part]) for row in rows for part in parts if row[part]) == total
    assert sum(int(row["requests"]) for row in rows) == document["totals"]["requests"] == 5 * 2
    assert document["totals"]["tokens"]["output"] == 5 * 50
    assert document["totals"]["unpriced_requests"] == 1
    assert document["status"] == "draft"


PARTS = ("measured", "estimated", "missing")


async def test_statement_says_how_much_is_measured(doors: Doors, services: SimpleNamespace) -> None:
    """Totals, teams and lines each tell the three parts; costs sum to the cost, shares to exactly 1."""
    services.ledger.all = LEDGER
    document = (await doors.call("chargeback_report", query=CONTOSO, as_=FINANCE)).json
    for figures in (document["totals"], *document["team_totals"], *document["lines"]):
        assert sum(Decimal(figures[f"{part}_cost"]) for part in PARTS) == Decimal(figures["cost"] or 0)
        assert sum(Decimal(figures[f"{part}_share"]) for part in PARTS) == 1
    measured = {team["team"]: team["measured_cost"] for team in document["team_totals"]}
    assert measured == {"(unassigned)": "0.000000013", "ads": "0.000000011", "search": "1.000000008"}
    assert {team["team"]: team["cost_centre"] for team in document["team_totals"]}["search"] == "CC-1001"
    assert sum(team["requests"] for team in document["team_totals"]) == document["totals"]["requests"]


FORMS = {
    "json": ("application/json", "inline", "statement.json"),
    "csv": ("text/csv; charset=utf-8", "attachment", "journal.csv"),
    "focus": ("text/csv; charset=utf-8", "attachment", "focus-1.4.csv"),
    "parquet": ("application/vnd.apache.parquet", "attachment", "focus-1.4.parquet"),
    "html": ("text/html; charset=utf-8", "inline", "statement.html"),
    "xlsx": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "attachment", "statement.xlsx"),
}


@pytest.mark.parametrize("wanted", FORMS)
async def test_every_form_is_served_as_what_it_is(doors: Doors, services: SimpleNamespace, wanted: str) -> None:
    """Its media type, the name to save it under, and whether a browser shows it."""
    services.ledger.all = LEDGER
    reply = await doors.call("chargeback_report", query={**CONTOSO, "format": wanted}, as_=FINANCE)
    media_type, how, saved_as = FORMS[wanted]
    assert (reply.status, reply.media_type) == (200, media_type)
    assert reply.headers["Content-Disposition"] == f'{how}; filename="contoso-{MONTH}-{saved_as}"'
    assert "sandbox" in reply.headers["Content-Security-Policy"]  # names in a page are others' words
    assert reply.raw


async def test_a_statement_too_large_for_an_answer_is_refused(
    doors: Doors, services: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """413, naming what to narrow: an answer is held in memory whole."""
    monkeypatch.setattr("functions.downloads.MAX_FILE_BYTES", 100)
    reply = await doors.call("chargeback_report", query=CONTOSO, as_=FINANCE)
    assert (reply.status, reply.code, reply.param) == (413, "file_too_large", "format")


async def test_focus_is_to_be_had_in_an_older_version(doors: Doors, services: SimpleNamespace) -> None:
    """1.2 has the older names of the provider; another version, or one for JSON, is refused by its parameter."""
    services.ledger.all = LEDGER
    query = {**CONTOSO, "format": "focus", "focus_version": "1.2"}
    reply = await doors.call("chargeback_report", query=query, as_=FINANCE)
    header = reply.raw.decode().splitlines()[0].split(",")
    assert "ProviderName" in header
    assert "ServiceProviderName" not in header
    for wrong in ({"focus_version": "1.3"}, {"format": "json"}):
        reply = await doors.call("chargeback_report", query=query | wrong, as_=FINANCE)
        assert (reply.status, reply.code, reply.param) == (400, "unsupported_format", "focus_version")


async def test_statement_of_one_team(doors: Doors, services: SimpleNamespace) -> None:
    """Finance asks for any team; a member for their own, and for another's gets 403."""
    services.ledger.all = LEDGER
    for who in (FINANCE, ADA):
        document = (await doors.call("chargeback_report", query={**CONTOSO, "team": "search"}, as_=who)).json
        assert (document["teams"], document["number"]) == (["search"], f"contoso-{MONTH}-search")
        assert Decimal(document["totals"]["cost"]) == Decimal(1_000_000_001 + 5 + 7) / 10**9
    reply = await doors.call("chargeback_report", query={**CONTOSO, "team": "ads"}, as_=ADA)
    assert (reply.status, reply.code) == (403, "scope_not_allowed")
    reply = await doors.call("chargeback_report", query={**CONTOSO, "team": "a" * 300}, as_=FINANCE)
    assert (reply.status, reply.param) == (400, "team")


async def test_statement_of_a_member_holds_their_teams_only(doors: Doors, services: SimpleNamespace) -> None:
    """A member's statement names the teams it is limited to, and its totals are theirs."""
    services.ledger.all = LEDGER
    document = (await doors.call("chargeback_report", query=CONTOSO, as_=ADA)).json
    assert document["teams"] == ["search"]
    assert {line["team"] for line in document["lines"]} == {"search"}
    assert Decimal(document["totals"]["cost"]) == Decimal(1_000_000_001 + 5 + 7) / 10**9


async def test_csv_cannot_run_in_a_spreadsheet(doors: Doors, services: SimpleNamespace) -> None:
    """Names that begin like a formula are shown, not run; the file has LF ends and a header."""
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "plain", 'quo"te,comma']
    services.ledger.all = [used("ads", 1, scopes={"team": "ads", "app": name}) for name in names]
    reply = await doors.call("chargeback_report", query={**CONTOSO, "format": "csv"}, as_=FINANCE)
    rows = list(csv.DictReader(io.StringIO(reply.raw.decode("utf-8-sig"))))
    assert {row["app"] for row in rows} == {f"'{n}" if n[0] in "=+-@" else n for n in names}
    assert {row["cost_centre"] for row in rows} == {"'=cmd()"}
    assert b"\r" not in reply.raw
    assert reply.raw.decode("utf-8-sig").startswith("period,statement_id,status,as_of,line_type,cost_centre,team,app,")


@pytest.mark.parametrize("wanted", ["focus-1.2", "pdf", "x" * 500])
async def test_format_that_is_not_there_names_those_that_are(
    doors: Doors, services: SimpleNamespace, wanted: str
) -> None:
    """400 unsupported_format."""
    reply = await doors.call("chargeback_report", query={**CONTOSO, "format": wanted}, as_=FINANCE)
    assert (reply.status, reply.code, reply.param) == (400, "unsupported_format", "format")
    assert "json, csv, focus, parquet, html or xlsx" in reply.json["error"]["message"]


@pytest.mark.parametrize("period", ["2026", "2026-13", "2026-1", "1999-01", "../2026-01", "2026-11\n"])
async def test_period_must_be_a_month(doors: Doors, services: SimpleNamespace, period: str) -> None:
    """400 naming the parameter; the text can never reach a file name."""
    reply = await doors.call("chargeback_report", query={**CONTOSO, "period": period}, as_=FINANCE)
    assert (reply.status, reply.param) == (400, "period")


async def test_models_show_prices_and_fallbacks(doors: Doors, services: SimpleNamespace) -> None:
    """Every configured model with the price in force."""
    reply = await doors.call("models", query=CONTOSO)
    by_id = {each["id"]: each for each in reply.json["models"]}
    assert by_id["gpt-4o"]["prices"]["usd_per_million"]["input"] == "2.50"
    assert by_id["gpt-4o-mini"]["fallback_for"] == ["gpt-4o"]


async def test_route_names_the_cheapest_capable_model(doors: Doors, services: SimpleNamespace) -> None:
    """A model's own capabilities count as asked for; the answer says what else was possible and why."""
    ask = {"tenant": "contoso", "capabilities": ["chat"], "input_tokens": 1000, "max_output_tokens": 100}
    reply = await doors.call("route", body=ask)
    assert (reply.json["model"], reply.json["cost"]) == (
        "gpt-4o-mini",
        "0.00021",
    )  # 1000 x 0.15 + 100 x 0.60 per million
    reply = await doors.call("route", body={**ask, "model": "gpt-4o"})
    assert reply.json["model"] == "gpt-4o"
    assert reply.json["rejected"] == {"gpt-4o-mini": "lacks vision"}
    by_deployment = await doors.call("route", body={**ask, "model": "gpt-4o-weu"})
    assert by_deployment.json == reply.json


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        ({"input_tokens": -1}, 400, "invalid_request"),
        ({"capabilities": ["x"] * 40}, 400, "invalid_request"),
        ({"tenant": "nobody"}, 403, "tenant_unknown"),
        ({"model": "gpt-17"}, 404, "model_unknown"),
    ],
)
async def test_bad_route_question(doors: Doors, services: SimpleNamespace, body: Any, status: int, code: str) -> None:
    """A clear answer to each."""
    reply = await doors.call("route", body=body)
    assert (reply.status, reply.code) == (status, code)


async def test_dead_letters_are_listed_and_replayed(doors: Doors, services: SimpleNamespace) -> None:
    """Filters pass through; a replay names who asked and reports ids that are not there."""
    services.dead_letters.list = Recorder([{"id": "hub-1"}])
    listed = await doors.call(
        "dead_letters", query={"tenant": "contoso", "code": "id_conflict", "limit": "5"}, as_=ADMIN
    )
    assert listed.json == {"dead_letters": [{"id": "hub-1"}]}
    assert services.dead_letters.list.calls == [(("contoso", "id_conflict", 5), {})]
    services.replay.run = Recorder(SimpleNamespace(replayed=1, unknown=["hub-2"]))
    reply = await doors.call("dead_letters_replay", body={"ids": ["hub-1", "hub-2"]}, as_=ADMIN)
    assert (reply.status, reply.json) == (202, {"replayed": 1, "unknown": ["hub-2"]})
    assert services.replay.run.calls == [((["hub-1", "hub-2"], "grace"), {})]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "1e3", "²"])
async def test_dead_letter_limit_is_bounded(doors: Doors, services: SimpleNamespace, limit: str) -> None:
    """400 naming limit."""
    reply = await doors.call("dead_letters", query={"limit": limit}, as_=ADMIN)
    assert (reply.status, reply.param) == (400, "limit")


@pytest.mark.parametrize(
    ("query", "param"), [({"code": "x' or 'a' eq 'a"}, "code"), ({"tenant": "a'b"}, "tenant"), ({"code": "A"}, "code")]
)
async def test_dead_letter_filters_are_plain(
    doors: Doors, services: SimpleNamespace, query: dict[str, str], param: str
) -> None:
    """400 naming the parameter: no text from a request becomes part of a store's query unchecked."""
    reply = await doors.call("dead_letters", query=query, as_=ADMIN)
    assert (reply.status, reply.param) == (400, param)
    assert services.dead_letters.list.calls == []


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["x"] * 1001}, {"ids": "all"}, {"ids": [1]}])
async def test_replay_needs_a_bounded_list_of_ids(doors: Doors, services: SimpleNamespace, body: Any) -> None:
    """There is no way to replay everything by accident."""
    reply = await doors.call("dead_letters_replay", body=body, as_=ADMIN)
    assert reply.status == 400
    assert services.replay.run.calls == []


async def test_health_is_open_and_tells_states_only(doors: Doors, services: SimpleNamespace) -> None:
    """200 while everything answers, 503 naming what does not; no role, no principal, no detail."""
    reply = await doors.call("health", as_="none")
    assert (reply.status, reply.json["status"]) == (200, "ok")
    services.health.check = Recorder(Health({"redis": "unavailable", "storage": "ok"}, "v1"))
    reply = await doors.call("health")
    assert (reply.status, reply.json["dependencies"]) == (503, {"redis": "unavailable", "storage": "ok"})
    assert set(json.loads(reply.raw)) == {"status", "dependencies", "config_version"}
