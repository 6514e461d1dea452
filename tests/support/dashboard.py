"""The function app with a month of invented calls, and the people who look at its dashboard."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from shared.bootstrap import Services
from shared.settings import Settings
from shared.usage.build import usage_event_bytes
from tests.support.hosted_app import hosted_app

ROOT = Path(__file__).parents[2]
TENANT = "contoso"
HOSTILE = '<img src=x onerror="window.hacked=1">=cmd()|\u202egpj.exe\u202c 😀 "quoted"'
CONFIG = {
    "tenants.yaml": """
tenants:
  - {id: default}
  - {id: contoso, finance: [finance-group], client_asserted_scopes: [session]}
  - {id: fabrikam}
""",
    "budgets.yaml": """
budgets:
  - {id: team-month, scope: "team:*", period: month, limit: 100.00, warn: 0.8, degrade: 0.9, timezone: UTC,
     downgrade: [{from: gpt-4o, to: gpt-4o-mini}]}
  - {id: session-day, scope: "session:*", period: day, limit: 10.00, timezone: UTC}
""",
    "teams/search.yaml": """
{team: search, tenant: contoso, cost_centre: CC-1, identities: {users: [ada]},
 budgets: [{id: search-month, period: month, limit: 40.00, warn: 0.5, timezone: UTC}]}
""",
    "teams/ads.yaml": """
{team: ads, tenant: contoso, identities: {users: [bob]},
 budgets: [{id: ads-month, period: month, limit: 0.50, timezone: UTC}]}
""",
    "teams/research.yaml": "{team: research, tenant: contoso, identities: {users: [eve]}}",
    "models.yaml": """
models:
  - {id: gpt-4o, provider: azure-openai, deployments: [gpt-4o-weu], capabilities: [chat, tools]}
  - {id: gpt-4o-mini, provider: azure-openai, deployments: [gpt-4o-mini-weu], capabilities: [chat, tools]}
""",
    "prices.yaml": """
prices:
  - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}}
  - {model: gpt-4o-mini, effective_from: 2026-01-01, usd_per_million: {input: 0.15, cached_input: 0.075, output: 0.60}}
""",
}


def someone(*roles: str, oid: str, name: str | None = None, groups: tuple[str, ...] = ()) -> dict[str, str]:
    """The header of a principal."""
    claims = [{"typ": "roles", "val": role} for role in roles] + [{"typ": "groups", "val": group} for group in groups]
    claims += [{"typ": "oid", "val": oid}] + ([{"typ": "name", "val": name}] if name else [])
    document = {"auth_typ": "aad", "claims": claims}
    return {"x-ms-client-principal": base64.b64encode(json.dumps(document).encode()).decode()}


ADMIN = someone("Chargeback.Admin", oid="grace", name="Grace Admin")
FINANCE = someone("Chargeback.Read", oid="fay", name="Fay Finance", groups=("finance-group",))
MEMBER = someone("Chargeback.Read", oid="ada", name="Ada of Search")
STRANGER = someone("Chargeback.Read", oid="mallory", name="Mallory")
NO_ROLE = someone(oid="nobody-special")
NOBODY = {"x-ms-client-principal": "none"}


@contextmanager
def start_app(directory: Path, azurite: Azurite, redis_url: str, hub: EmbeddedHub, port: int = 0) -> Iterator[str]:
    """The address of a hosted function app with data of its own, its calls made and counted."""
    with hosted_app(directory, CONFIG, azurite, redis_url, hub, port) as (app, host):
        host.wait_until(lambda: app.shows_spend(TENANT), timeout_seconds=90)
        _make_calls(app.url, hub.connection_string(app.hub_name))
        asyncio.run(_publish_statements(app.env))
        yield app.url


def check(url: str, team: str, **more: Any) -> httpx.Response:
    """Ask whether a call of the team may run."""
    scopes = {"team": team, **more.pop("scopes", {})}
    ask = {"tenant": TENANT, "scopes": scopes, "model": "gpt-4o", "input_tokens": 1000, **more}
    return httpx.post(f"{url}/budget/check", json=ask, timeout=10)


def _make_calls(url: str, hub_connection: str) -> None:
    asyncio.run(_send(hub_connection, list(_events(datetime.now(UTC)))))
    deadline = time.monotonic() + 90
    while _billed(url) < _CALLS:
        assert time.monotonic() < deadline, "the calls of the dashboard's tests are not billed"
        time.sleep(0.2)
    for team, scopes in (("search", {"user": "ada"}), ("ads", {"user": "bob"}), ("ads", {"session": HOSTILE})):
        check(url, team, scopes=scopes)


async def _publish_statements(env: Mapping[str, str]) -> None:
    """What the nightly timer does."""
    services = Services(Settings.from_env(env))
    try:
        await services.start()
        await services.reports.publish_statements()
    finally:
        await services.close()


_DAYS, _CALLS = 24, 24 * 3 + 4


def _billed(url: str) -> int:
    query = {"tenant": TENANT, "group_by": "tenant", "from": "2026-01-01"}
    rows = httpx.get(f"{url}/usage/summary", params=query, timeout=10).json()["rows"]
    return int(rows[0]["requests"]) if rows else 0


def _events(now: datetime) -> Iterator[bytes]:
    for day in range(_DAYS):
        at = now - timedelta(days=day, minutes=5)
        pace = (3 if at.weekday() < 5 else 1) + day * 7 % 5  # busier on weekdays, and never quite the same
        yield _event(at, {"team": "search", "user": "ada"}, 110_000 * pace, 11_234 * pace)
        yield _event(at, {"team": "ads", "user": "bob"}, 8_000 * pace, 1_111 * pace, model="gpt-4o-mini")
        yield _event(at, {"team": "research", "user": "eve"}, 90_000 * pace, 7_000 * pace, model="gpt-4o-mini")
    recent = now - timedelta(minutes=2)
    yield _event(recent, {"team": "ads", "session": HOSTILE, "user": "bob"}, 1_000, 501)
    yield _event(recent, {"team": "research", "user": HOSTILE}, 1_000, 500, model=HOSTILE[:60])
    yield _event(recent, {"team": "research", "user": "eve"}, None, None, streamed=True)
    yield _event(recent, {"team": "search", "user": "ada"}, 12_000, 900, model="gpt-4o-mini", decision="downgrade")
    for region in ("westeurope", HOSTILE):  # the second is another content under the same id: a dead letter
        yield _event(recent, {"team": "search", "user": "ada"}, 0, 0, id_="twice", region=region, status=500)


def _event(
    at: datetime,
    scopes: Mapping[str, str],
    prompt: int | None,
    completion: int | None,
    *,
    model: str = "gpt-4o",
    id_: str | None = None,
    **data: Any,
) -> bytes:
    usage = None if prompt is None else {"prompt_tokens": prompt, "completion_tokens": completion}
    base = {
        "tenant": TENANT,
        "scopes": dict(scopes),
        "provider": "azure-openai",
        "operation": "chat",
        "requested_model": "gpt-4o",
        "model": model,
        "usage": usage,
    }
    return usage_event_bytes("dashboard/test", id_ or uuid.uuid4().hex, at, {**base, **data})


async def _send(hub_connection: str, bodies: list[bytes]) -> None:
    async with EventHubProducerClient.from_connection_string(hub_connection) as producer:
        batch = await producer.create_batch(partition_id="0")
        for body in bodies:
            batch.add(EventData(body))
        await producer.send_batch(batch)
