"""Every door of the real function app over real stores: host, hub, Redis and Table Storage in their own processes."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from local.redis_server import RedisServer
from shared.usage.build import usage_event_bytes
from tests.support.hosted_app import HostedApp, hosted_app

ROOT = Path(__file__).parents[2]
CONFIG = {
    "tenants.yaml": """
tenants:
  - {id: default}
  - {id: contoso, finance: [finance-group], client_asserted_scopes: [session]}
  - {id: fabrikam}
""",
    "budgets.yaml": """
budgets:
  - {id: team-month, scope: "team:*", period: month, limit: 100.00, timezone: UTC}
  - {id: job/day, scope: "job:*", period: day, limit: 10.00, timezone: UTC}
  - {id: session-day, scope: "session:*", period: day, limit: 10.00, timezone: UTC}
""",
    "teams/search.yaml": "{team: search, tenant: contoso, cost_centre: CC-1, identities: {users: [ada]}}",
    "teams/ads.yaml": "{team: ads, tenant: contoso, identities: {users: [bob]}}",
    "models.yaml": """
models:
  - {id: gpt-4o, provider: azure-openai, deployments: [gpt-4o-weu], capabilities: [chat, tools]}
  - {id: tiny, provider: azure-openai, capabilities: [chat]}
""",
    "prices.yaml": """
prices:
  - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}}
  - {model: tiny, effective_from: 2026-01-01, usd_per_million: {input: 0.10, output: 0.40}}
""",
}
CALL_NANO_USD = 1000 * 2_500 + 500 * 10_000  # 1000 input tokens at 2.50 and 500 output tokens at 10.00 USD per million
READ = {"tenant": "contoso"}
ONE = {"content-type": "application/cloudevents+json"}


@pytest.fixture(scope="module")
def hosted(
    azurite: Azurite, redis_server: RedisServer, hub: EmbeddedHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HostedApp]:
    """The function app, hosted; its tables, hubs and Redis data are this module's own."""
    directory = tmp_path_factory.mktemp("doors")
    with hosted_app(directory, CONFIG, azurite, f"{redis_server.url}/7", hub) as (app, host):
        host.wait_until(lambda: app.answers_checks("contoso"), timeout_seconds=60)
        yield app


@pytest.fixture(scope="module")
def host_url(hosted: HostedApp) -> str:
    """The address of its routes, with a slash at the end."""
    return f"{hosted.url}/"


@pytest.fixture
async def client(host_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the hosted app: the local developer unless a request says otherwise."""
    async with httpx.AsyncClient(base_url=host_url, timeout=15) as found:
        yield found


def someone(*roles: str, oid: str, groups: tuple[str, ...] = ()) -> dict[str, str]:
    """The header of a principal."""
    claims = [{"typ": "roles", "val": role} for role in roles] + [{"typ": "groups", "val": group} for group in groups]
    document = {"auth_typ": "aad", "claims": [*claims, {"typ": "oid", "val": oid}]}
    return {"x-ms-client-principal": base64.b64encode(json.dumps(document).encode()).decode()}


def event(team: str, source: str = "doors/test", id: str | None = None, **data: Any) -> bytes:  # noqa: A002
    """One priced call of a team."""
    base = {
        "tenant": "contoso",
        "scopes": {"team": team},
        "provider": "azure-openai",
        "model": "gpt-4o",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500},
    }
    return usage_event_bytes(source, id or uuid.uuid4().hex, datetime.now(UTC), {**base, **data})


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until it holds; fails when it does not within the time."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.05)


async def spent(client: httpx.AsyncClient, scope: str) -> int:
    """What a scope's counter shows, in nano-USD; 0 while there is none."""
    found = await client.get(f"spend/{scope.replace(':', '/', 1)}", params=READ)
    return int(Decimal(found.json()["budgets"][0]["spent"]) * 10**9) if found.status_code == 200 else 0


async def test_a_call_from_check_to_statement(client: httpx.AsyncClient) -> None:
    """Checked, reported, counted within two seconds, summed, on the statement, to the nano-dollar."""
    team = f"team-{uuid.uuid4().hex[:8]}"
    ask = {"tenant": "contoso", "scopes": {"team": team}, "model": "gpt-4o", "input_tokens": 1000}
    check = await client.post("budget/check", json=ask)
    assert (check.status_code, check.json()["decision"]) == (200, "allow")
    assert check.headers["x-budget-scope"] == f"team:{team}"
    body = event(team, reservation=check.json()["reservation"])
    sent = await client.post("usage", content=body, headers=ONE)
    assert (sent.status_code, sent.json()) == (202, {"accepted": 1, "rejected": []})
    await eventually(lambda: _is(spent(client, f"team:{team}"), CALL_NANO_USD), seconds=2)
    (budget,) = (await client.get(f"spend/team/{team}", params=READ)).json()["budgets"]
    assert Decimal(budget["rate"]) > 0
    assert Decimal(budget["projection"]["value"]) >= Decimal(budget["spent"])
    summary = await client.get("usage/summary", params={**READ, "group_by": "team,model", "team": team})
    (row,) = summary.json()["rows"]
    assert (row["requests"], Decimal(row["cost"])) == (1, Decimal(CALL_NANO_USD) / 10**9)
    document = (await client.get("chargeback/report", params=READ)).json()
    (line,) = [each for each in document["lines"] if each["team"] == team]
    assert (line["cost"], line["tokens"]) == ("0.0075", {"input": 1000, "output": 500})
    table = await client.get("chargeback/report", params={**READ, "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(table.content.decode("utf-8-sig"))))
    mine = {each["token_kind"]: each["total"] for each in rows if each["team"] == team}
    assert mine == {"input": "0.0025", "output": "0.005"}  # 1,000 at 2.50 and 500 at 10 USD per million
    assert sum(Decimal(each["ledger_cost_usd"] or 0) for each in rows) == Decimal(document["totals"]["cost"])
    assert sum(Decimal(each["total"] or 0) for each in rows) == Decimal(document["amount_due"])


async def test_a_call_that_no_check_saw_is_billed_to_its_team(client: httpx.AsyncClient) -> None:
    """The identity and the caller's own name of the model suffice; a stream without tokens is told to be estimated."""
    before = await spent(client, "team:ads")
    sent = json.loads(event("ads", model="gpt-4o-weu"))
    del sent["data"]["tenant"]
    sent["data"] |= {"identity": {"oid": "bob"}, "scopes": {"session": f"s-{uuid.uuid4().hex}"}}
    stream = {**sent, "id": uuid.uuid4().hex, "data": {**sent["data"], "streamed": True, "usage": None}}
    for each in (sent, stream):
        assert (await client.post("usage", content=json.dumps(each), headers=ONE)).status_code == 202
    params = {**READ, "group_by": "team,model,deployment,user", "session": sent["data"]["scopes"]["session"]}

    async def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await client.get("usage/summary", params=params)).json()["rows"]
        return found if [row["requests"] for row in found] == [2] else []

    await eventually(lambda: _is(_count(rows), 1))
    (row,) = await rows()
    assert (row["team"], row["model"], row["deployment"], row["user"]) == ("ads", "gpt-4o", "gpt-4o-weu", "bob")
    assert row["measured_cost"] == "0.0075"
    assert Decimal(row["estimated_cost"]) > 0
    assert sum(Decimal(row[f"{part}_share"]) for part in ("measured", "estimated", "missing")) == 1
    cost_nano_usd = int(Decimal(row["cost"]) * 10**9)
    await eventually(lambda: _is(spent(client, "team:ads"), before + cost_nano_usd))


async def _is(actual: Awaitable[int], expected: int) -> bool:
    return await actual == expected


async def test_the_same_event_sent_again_changes_nothing(client: httpx.AsyncClient) -> None:
    """A retry over HTTP keeps its identity through the source binding."""
    team, writer = f"team-{uuid.uuid4().hex[:8]}", someone("Usage.Write", oid="gateway")
    body, last = event(team), event(team)
    for sent in (body, body, last):
        await client.post("usage", content=sent, headers={**ONE, **writer})
    await eventually(lambda: _is(spent(client, f"team:{team}"), 2 * CALL_NANO_USD))


async def test_stranger_cannot_suppress_anothers_bill(client: httpx.AsyncClient) -> None:
    """The stranger sends the gateway's id first, at zero cost; the gateway's own event is billed all the same."""
    team, id_ = f"team-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    free = event(team, id=id_, usage={"prompt_tokens": 0, "completion_tokens": 0})
    await client.post("usage", content=free, headers={**ONE, **someone("Usage.Write", oid="stranger")})
    await client.post("usage", content=event(team, id=id_), headers={**ONE, **someone("Usage.Write", oid="gateway")})
    await eventually(lambda: _is(spent(client, f"team:{team}"), CALL_NANO_USD))


async def test_reset_moves_the_counter_and_not_the_bill(client: httpx.AsyncClient) -> None:
    """After a reset the counter shows what was asked for; summary and statement show what was used."""
    team = f"team-{uuid.uuid4().hex[:8]}"
    await client.post("usage", content=event(team), headers=ONE)
    await eventually(lambda: _is(spent(client, f"team:{team}"), CALL_NANO_USD))
    body = {"tenant": "contoso", "scope": f"team:{team}", "why": "goodwill", "spent": "0.001"}
    reset = await client.post("budget/reset", json=body, headers=someone("Chargeback.Admin", oid="grace"))
    assert reset.status_code == 202
    await eventually(lambda: _is(spent(client, f"team:{team}"), 1_000_000))
    rows = (await client.get("usage/summary", params={**READ, "team": team})).json()["rows"]
    assert [row["cost"] for row in rows] == ["0.0075"]


async def test_bad_event_on_the_hub_becomes_a_dead_letter_and_can_be_replayed(client: httpx.AsyncClient) -> None:
    """The same identity with other content is kept with its reason; a replay goes back to the hub and is recorded."""
    team, id_ = f"team-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    await client.post("usage", content=event(team, id=id_), headers=ONE)
    await client.post("usage", content=event(team, id=id_, region="elsewhere"), headers=ONE)

    async def letters() -> list[dict[str, Any]]:
        found = await client.get("dead-letters", params={"tenant": "contoso", "code": "id_conflict"})
        return [each for each in found.json()["dead_letters"] if each["event_id"] == id_]

    await eventually(lambda: _is(_count(letters), 1))
    letter = (await letters())[0]
    replay = await client.post("dead-letters/replay", json={"ids": [letter["id"], "hub-0"]})
    assert (replay.status_code, replay.json()) == (202, {"replayed": 1, "unknown": ["hub-0"]})
    assert [each["replayed_by"] for each in await letters() if each["id"] == letter["id"]] == ["local-developer"]
    assert await spent(client, f"team:{team}") == CALL_NANO_USD


@pytest.fixture
async def llm_log(host_url: str, hub: EmbeddedHub, hosted: HostedApp) -> AsyncIterator[Callable[..., Any]]:
    """Puts one message onto the hub that the gateway's diagnostic setting writes to."""
    async with EventHubProducerClient.from_connection_string(hub.connection_string(hosted.logs_hub_name)) as producer:

        async def send(*records: dict[str, Any]) -> None:
            await producer.send_batch([EventData(json.dumps({"records": records}))])

        yield send


def log_record(id: str, **properties: Any) -> dict[str, Any]:  # noqa: A002
    """A record of the LLM log as the gateway writes it, with a text that must go nowhere."""
    said = {"isStreamCompletion": True, "sequenceNumber": 1, "requestMessages": "do not keep", **properties}
    return {"Category": "GatewayLlmLogs", "correlationId": id.upper(), "Properties": said}


async def usage_of(client: httpx.AsyncClient, team: str) -> dict[str, Any]:
    """The team's line of the summary; empty while there is none."""
    rows = (await client.get("usage/summary", params={**READ, "group_by": "team", "team": team})).json()["rows"]
    found: dict[str, Any] = rows[0] if rows else {}
    return found


async def test_a_message_of_the_llm_log_trues_a_stream_up(
    client: httpx.AsyncClient, llm_log: Callable[..., Awaitable[None]]
) -> None:
    """Through both triggers and both hubs: estimated at once, measured to the nano-dollar when the log has come, in
    counter, summary and both forms of the statement; a second message changes nothing."""
    team, id_ = f"team-{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
    await client.post("usage", content=event(team, id=id_, usage=None, streamed=True), headers=ONE)

    async def measured() -> int:
        return int((await usage_of(client, team)).get("measured_share") == "1.0000")

    async def accrued() -> int:
        return int((await usage_of(client, team)).get("estimated_share") == "1.0000")

    await eventually(lambda: _is(accrued(), 1))
    await llm_log(log_record(id_, promptTokens=1000), log_record(id_, completionTokens=0, sequenceNumber=3))
    await llm_log(log_record(id_, completionTokens=500, sequenceNumber=2))
    await eventually(lambda: _is(spent(client, f"team:{team}"), CALL_NANO_USD))
    await eventually(lambda: _is(measured(), 1))
    await llm_log(log_record(id_, completionTokens=500, sequenceNumber=2))
    row = await usage_of(client, team)
    assert (row["requests"], row["cost"], row["measured_cost"]) == (1, "0.0075", "0.0075")
    assert (row["tokens"], row["estimated_cost"], row["missing_cost"]) == (
        {"input": 1000, "output": 500},
        "0.00",
        "0.00",
    )
    document = (await client.get("chargeback/report", params=READ)).json()
    (line,) = [each for each in document["lines"] if each["team"] == team]
    table = await client.get("chargeback/report", params={**READ, "format": "csv"})
    text = io.StringIO(table.content.decode("utf-8-sig"))
    flat, *further = [each for each in csv.DictReader(text) if each["team"] == team]
    for name in ("measured_cost", "estimated_cost", "missing_cost"):
        assert line[name] == flat[f"{name}_usd"] == row[name]
        assert not any(each[f"{name}_usd"] for each in further)  # a line's are on its first row


async def test_a_bad_record_of_the_llm_log_goes_back_to_its_own_hub(
    client: httpx.AsyncClient, llm_log: Callable[..., Awaitable[None]]
) -> None:
    """The letter of a record that cannot be read is replayed on the LLM log hub, where it is refused again; the good
    records of its message have done their work."""
    team, id_, marker = f"team-{uuid.uuid4().hex[:8]}", str(uuid.uuid4()), 10**9 + 7
    await client.post("usage", content=event(team, id=id_, usage=None, streamed=True), headers=ONE)
    await llm_log(
        log_record(str(uuid.uuid4()), promptTokens=marker), log_record(id_, promptTokens=1000, completionTokens=500)
    )
    await eventually(lambda: _is(spent(client, f"team:{team}"), CALL_NANO_USD))

    async def letters() -> list[dict[str, Any]]:
        found = await client.get("dead-letters", params={"code": "usage_unreadable"})
        return [
            each for each in found.json()["dead_letters"] if each["position"]["stream"].split("/")[1][-5:] == "-logs"
        ]

    await eventually(lambda: _is(_count(letters), 1))
    (letter,) = await letters()
    replay = await client.post("dead-letters/replay", json={"ids": [letter["id"]]})
    assert (replay.status_code, replay.json()) == (202, {"replayed": 1, "unknown": []})
    await eventually(lambda: _is(_count(letters), 2))


async def _count(found: Callable[[], Awaitable[list[dict[str, Any]]]]) -> int:
    return len(await found())


async def test_helicone_call_is_billed_once_however_often_it_is_told(client: httpx.AsyncClient) -> None:
    """Two deliveries of one webhook, one bill."""
    team = f"team-{uuid.uuid4().hex[:8]}"
    body = {
        "request_id": str(uuid.uuid4()),
        "model": "gpt-4o",
        "provider": "AZURE",
        "metadata": {"promptTokens": 1000, "completionTokens": 500, "latencyMs": 900},
    }
    for _ in range(2):
        told = await client.post("webhooks/helicone", json=body, params={**READ, "team": team})
        assert told.status_code == 204
    await eventually(lambda: _is(spent(client, f"team:{team}"), CALL_NANO_USD))
    await client.post("usage", content=event(team), headers=ONE)
    await eventually(lambda: _is(spent(client, f"team:{team}"), 2 * CALL_NANO_USD))


async def test_members_read_their_own_team_only(client: httpx.AsyncClient) -> None:
    """Ada of search sees search; finance sees all of the tenant and nothing of the other."""
    for team in ("search", "ads"):
        await client.post("usage", content=event(team), headers=ONE)
        await eventually(lambda team=team: _at_least(spent(client, f"team:{team}"), CALL_NANO_USD))
    ada = someone("Chargeback.Read", oid="ada")
    finance = someone("Chargeback.Read", oid="fin", groups=("finance-group",))
    own = (await client.get("spend", params=READ, headers=ada)).json()["budgets"]
    assert {each["scope"] for each in own} == {"team:search"}
    everything = (await client.get("spend", params=READ, headers=finance)).json()["budgets"]
    assert {"team:search", "team:ads"} <= {each["scope"] for each in everything}
    lines = (await client.get("chargeback/report", params=READ, headers=ada)).json()["lines"]
    assert {each["team"] for each in lines} == {"search"}
    for path in ("spend/team/ads?tenant=contoso", "usage/summary?tenant=contoso&team=ads"):
        refused = await client.get(path, headers=ada)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_not_allowed")
    other = await client.get("spend", params={"tenant": "fabrikam"}, headers=finance)
    assert other.status_code == 403


async def _at_least(actual: Awaitable[int], least: int) -> bool:
    return await actual >= least


@pytest.mark.parametrize("key", ["a/b/c", "100%", "%2F", "ünï", "a|b:{c}", "a b", "+", "?x=1"])
async def test_odd_session_keys_survive_the_way_into_the_path(client: httpx.AsyncClient, key: str) -> None:
    """Whatever a client names its session, the counter is found under exactly that key."""
    from urllib.parse import quote

    unique = f"{key}{uuid.uuid4().hex[:6]}"
    ask = {"tenant": "contoso", "scopes": {"team": "search", "session": unique}, "model": "gpt-4o"}
    assert (await client.post("budget/check", json=ask)).status_code == 200
    found = await client.get(f"spend/session/{quote(unique, safe='/')}", params=READ)
    assert [each["scope"] for each in found.json()["budgets"]] == [f"session:{unique}"]
    assert Decimal(found.json()["budgets"][0]["reserved"]) > 0


async def test_a_changed_limit_decides_the_next_calls_and_is_taken_back(client: httpx.AsyncClient) -> None:
    """An admin's change over HTTP is in force at once on this worker, with its history; ids with slashes find their
    way, encoded or not."""
    ask = {"tenant": "contoso", "scopes": {"job": uuid.uuid4().hex}, "model": "gpt-4o", "input_tokens": 1000}
    assert (await client.post("budget/check", json=ask)).status_code == 200
    budgets = (await client.get("budgets", params=READ)).json()["budgets"]
    before = next(each for each in budgets if each["id"] == "job/day")
    change = {"version": before["version"], "limit": "0.000001", "why": "runaway job"}
    changed = await client.put("budgets/job%2Fday", params=READ, json=change)
    assert (changed.status_code, changed.json()["budget"]["limit"]) == (200, "0.000001")
    assert (await client.post("budget/check", json=ask)).status_code == 402
    stale = await client.put("budgets/job/day", params=READ, json=change)
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "edit_conflict")
    back = {**READ, "version": changed.json()["budget"]["version"], "why": "stopped it"}
    assert (await client.delete("budgets/job/day", params=back)).json()["budget"] == before
    assert (await client.post("budget/check", json=ask)).status_code == 200
    history = (await client.get("budgets/job%2Fday/history", params=READ)).json()["changes"]
    assert [(each["kind"], each["who"], each["after"]["limit"]) for each in history] == [
        ("revert", "local-developer", "10.00"),
        ("edit", "local-developer", "0.000001"),
    ]


async def test_what_is_to_come_and_what_might_have_been_are_told_from_the_ledger(client: httpx.AsyncClient) -> None:
    """A billed call is in the forecast of its team at once, and a budget too small for it would have refused it, where
    the one in force did not. Nobody exported an invoice yet, and that is said."""
    await client.post("usage", content=event("search"), headers=ONE)
    await eventually(lambda: _at_least(spent(client, "team:search"), CALL_NANO_USD))
    forecast = (await client.get("forecast", params=READ)).json()
    (line,) = (each for each in forecast["teams"] if each["team"] == "search")
    assert Decimal(line["value"]) >= Decimal(line["spent"]) >= Decimal(CALL_NANO_USD) / 10**9
    assert (line["method"], line["history_days"]) == ("linear", 0)
    assert (await client.get("anomalies", params=READ)).json()["anomalies"] == []
    question = {"tenant": "contoso", "period": forecast["period"], "budget": {"id": "team-month", "limit": "0.000001"}}
    answer = (await client.post("budgets/simulate", json=question)).json()
    assert answer["changed"]["refused"]["calls"] == answer["changed"]["calls"] > 0
    assert (answer["in_force"]["refused"]["calls"], answer["in_force"]["budget"]["limit"]) == (0, "100.00")
    missing = await client.get("reconciliation")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "reconciliation_unknown")


async def test_models_and_route_answer_from_the_configuration(client: httpx.AsyncClient) -> None:
    """Prices in force, and the cheapest model for the work."""
    models = (await client.get("models", params=READ)).json()["models"]
    assert {each["id"]: each["pricing_status"] for each in models} == {"gpt-4o": "priced", "tiny": "priced"}
    routed = await client.post("route", json={"capabilities": ["chat"], "input_tokens": 10, "tenant": "contoso"})
    assert routed.json()["model"] == "tiny"


async def test_reservation_given_back_frees_the_budget(client: httpx.AsyncClient) -> None:
    """What was held is free again after a release."""
    team = f"team-{uuid.uuid4().hex[:8]}"
    ask = {"tenant": "contoso", "scopes": {"team": team}, "model": "gpt-4o", "input_tokens": 1000}
    token = (await client.post("budget/check", json=ask)).json()["reservation"]
    assert Decimal((await client.get(f"spend/team/{team}", params=READ)).json()["budgets"][0]["reserved"]) > 0
    assert (await client.post("budget/release", json={"reservation": token})).json() == {"released": True}
    assert (await client.get(f"spend/team/{team}", params=READ)).json()["budgets"][0]["reserved"] == "0.00"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "budget/check", b"{", 400, "invalid_request"),
        ("POST", "budget/check", b"x" * 10 * 1024 * 1024, 413, "payload_too_large"),
        ("POST", "budget/check", b'{"model":"gpt-4o","tenant":"nobody","scopes":{"team":"a"}}', 403, "tenant_unknown"),
        ("POST", "budget/check", b'{"model":"gpt-4o","identity":{"oid":"nobody"}}', 403, "identity_unknown"),
        ("POST", "usage", b"x" * 10 * 1024 * 1024, 413, "payload_too_large"),
        ("GET", "spend?tenant=nobody", b"", 403, "tenant_unknown"),
        ("GET", "chargeback/report?tenant=contoso&format=pdf", b"", 400, "unsupported_format"),
        ("GET", "usage/summary?tenant=contoso&group_by=a;b", b"", 400, "invalid_request"),
        ("GET", "spend/team/%00?tenant=contoso", b"", 400, "invalid_request"),
    ],
)
async def test_bad_requests_get_openais_error(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    """Through the host as well: the status, the stable code, OpenAI's four members, and a request id."""
    reply = await client.request(method, path, content=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert set(reply.json()["error"]) == {"code", "message", "type", "param"}
    assert reply.headers["x-request-id"]


async def test_anonymous_callers_get_health_and_nothing_else(client: httpx.AsyncClient) -> None:
    """Nobody is nobody on every door but /health, which names its dependencies."""
    nobody = {"x-ms-client-principal": "none"}
    assert (await client.get("spend", headers=nobody)).status_code == 401
    health = await client.get("health", headers=nobody)
    assert health.status_code == 200
    assert set(health.json()["dependencies"].values()) == {"ok"}


async def test_concurrent_checks_all_get_answers(client: httpx.AsyncClient) -> None:
    """Two hundred at once through one worker: no door keeps state between calls."""
    ask = {"tenant": "contoso", "scopes": {"team": f"burst-{uuid.uuid4().hex[:6]}"}, "model": "tiny"}
    replies = await asyncio.gather(*(client.post("budget/check", json=ask) for _ in range(200)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["reservation"] for reply in replies}) == 200
