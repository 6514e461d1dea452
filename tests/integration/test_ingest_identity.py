"""Calls that no check saw: billed from their events, by identity and by the caller's own name of the model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shared.config.model import Team, Tenant
from shared.pseudonyms import Pseudonyms
from tests.support.engine import MICRO_USD, budget, config, usd
from tests.support.stack import Stack, changed, delivery, open_stack, usage_bytes

TEAM = budget("team:*", usd(100))
MODEL = budget("model:big", usd(100))
SEARCH = {"subscription": "search-prod", "oid": "0f0e"}


def configured(teams: dict[str, Team], version: str = "v1") -> Any:
    """Tenants acme and globex, the teams, and model big deployed as big-weu."""
    known = config(TEAM, MODEL, version=version)
    tenants = {**known.tenants, "globex": Tenant("globex")}
    models = {**known.models, "big": replace(known.models["big"], deployments=("big-weu",))}
    return replace(known, tenants=tenants, teams=teams, models=models)


def search(tenant: str = "acme", team: str = "search") -> dict[str, Team]:
    """The team that owns the subscription search-prod."""
    return {team: Team(team, tenant, subscriptions=frozenset({"search-prod"}))}


def unchecked(id: str, tokens: int, **data: Any) -> bytes:  # noqa: A002
    """The event of a call that was let pass without a check: no tenant, no reservation, the deployment's name."""
    event = msgspec.json.decode(usage_bytes(id, tokens, model="big-weu"))
    del event["data"]["tenant"]
    event["data"] |= {"identity": SEARCH, "scopes": {}, "requested_model": "big-weu", **data}
    return msgspec.json.encode(event)


async def rows(stack: Stack, tenant: str = "acme") -> list[Any]:
    """Every row of the tenant."""
    start = datetime.now(UTC) - timedelta(hours=1)
    return [row async for row in stack.ledger.rows(tenant, start, start + timedelta(hours=2))]


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Team search of tenant acme, ready, on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, configured(search())) as stack:
        await stack.open("globex")
        yield stack


async def test_an_unchecked_call_is_billed_like_a_checked_one(stack):
    """Tenant, team, model, price and every budget are what the check would have said."""
    await stack.ingest.run([delivery(unchecked("a", 100, scopes={"session": "s-1"}), 0)])
    [row] = await rows(stack)
    assert row.scopes == {"session": "s-1", "subscription": "search-prod", "team": "search", "user": "0f0e"}
    assert (row.model, row.requested_model, row.deployment, row.provider) == ("big", "big", "big-weu", "azure-openai")
    assert (row.cost_nano_usd, row.pricing_status) == (100 * MICRO_USD, "priced")
    assert await stack.spent_and_held("team:search") == (100 * MICRO_USD, 0)
    assert await stack.spent_and_held("model:big") == (100 * MICRO_USD, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"identity": {"oid": "stranger"}}, "identity_unknown"),
        ({"scopes": {"team": "ads"}}, "scope_not_allowed"),
        ({"tenant": "acme"}, "invalid_event"),
        ({"identity": {"oid": "x" * 257}}, "invalid_event"),
        ({"identity": {"oid": "a\u0000b"}}, "invalid_event"),
    ],
)
async def test_an_identity_that_resolves_to_nobody_costs_only_itself(stack, data, code):
    """A dead letter with the check's code; the event beside it is billed, and nobody pays for the other."""
    await stack.ingest.run([delivery(unchecked("a", 100, **data), 0), delivery(unchecked("b", 10), 1)])
    assert [letter["code"] for letter in await stack.dead_letters.list()] == [code]
    assert await stack.ledger_total_nano_usd() == 10 * MICRO_USD


async def test_a_tenant_that_is_gone_stops_nobody(stack):
    """Its row comes again after the tenant left the configuration: the batch goes on, its counters wait for repair."""
    gone = delivery(unchecked("a", 70), 0)
    await stack.ingest.run([gone])
    known = configured(search("globex", "movers"), "v2")
    stack.configure(replace(known, tenants={"globex": known.tenants["globex"]}))
    await stack.ingest.run([gone, delivery(unchecked("b", 10), 1)])
    assert [row.id for row in await rows(stack, "globex")] == ["b"]
    assert "acme" in await stack.state.dirty_tenants()


async def test_a_dead_letter_is_billed_once_its_team_is_configured(stack):
    """Nobody listed the subscription, then a team does: the same bytes are taken, at the price of their own time."""
    stack.configure(configured({}))
    event = unchecked("a", 70)
    await stack.ingest.run([delivery(event, 0)])
    [letter] = await stack.dead_letters.list(code="identity_unknown")
    [kept] = await stack.dead_letters.take([letter["id"]])
    assert kept.body == event
    stack.configure(configured(search(), "v2"))
    await stack.ingest.run([delivery(kept.body, 1)])
    assert await stack.spent_and_held("team:search") == (70 * MICRO_USD, 0)


async def test_a_moved_team_does_not_move_what_was_billed(stack):
    """Delivered again after the subscription went to another tenant: the stored row says whose money it is."""
    batch = [delivery(unchecked("a", 70), 0)]
    await stack.ingest.run(batch)
    stack.configure(configured(search("globex", "movers"), "v2"))
    await stack.ingest.run(batch)
    await stack.ingest.run([delivery(batch[0].body, 1)])
    assert await stack.spent_and_held("team:search") == (70 * MICRO_USD, 0)
    assert await rows(stack, "globex") == []
    assert await stack.store.cells("globex", int(datetime.now(UTC).timestamp() * 1000)) == []


async def test_a_crash_before_the_counters_settles_the_stored_tenant(stack):
    """The row was written, the counters were not, then the team moved: the first tenant is charged, not the new one."""
    batch = [delivery(unchecked("a", 70), 0)]
    settle, stack.store.settle = stack.store.settle, _raise
    with pytest.raises(ConnectionError):
        await stack.ingest.run(batch)
    stack.store.settle = settle
    stack.configure(configured(search("globex", "movers"), "v2"))
    await stack.ingest.run(batch)
    assert await stack.spent_and_held("team:search") == (70 * MICRO_USD, 0)
    assert await stack.store.cells("globex", int(datetime.now(UTC).timestamp() * 1000)) == []


@pytest.mark.parametrize("token", ["forged", "v1.AAAA.BBBB", "x" * 60_000])
async def test_a_forged_reservation_is_ignored(stack, token):
    """The call is billed and nothing that others hold is freed."""
    await stack.check("big-weu")
    held = (await stack.spent_and_held())[1]
    await stack.ingest.run([delivery(unchecked("a", 10, reservation=token), 0)])
    assert await stack.spent_and_held() == (10 * MICRO_USD, held)


async def test_a_foreign_reservation_frees_nothing(stack):
    """A token of acme in an event that resolves to globex: acme's hold stays."""
    answer = await stack.check("big-weu")
    held = (await stack.spent_and_held())[1]
    stack.configure(configured(search("globex", "movers"), "v2"))
    event = changed(unchecked("a", 10), reservation=answer.reservation)
    await stack.ingest.run([delivery(event, 0)])
    assert await stack.spent_and_held() == (0, held)
    assert len(await rows(stack, "globex")) == 1


async def _raise(*_: Any) -> None:
    raise ConnectionError("Redis is away")


async def test_an_address_becomes_one_hash_from_check_to_ledger(stack):
    """The check, the event that repeats its scopes, and one that states the address itself count on one counter, whose
    budget names the address; no store holds it. 100 + 50 tokens at 1 micro-USD."""
    pseudonyms = Pseudonyms("a secret of more than thirty-two characters")
    stack.configure(pseudonyms.config(config(budget("user:ada@contoso.com", usd(1)), version="v2")))
    stack.service._pseudonyms = stack.ingest._pseudonyms = pseudonyms
    answer = await stack.check(scopes={"team": "search", "user": "Ada@contoso.com"})
    checked = usage_bytes("a", 100, scopes=dict(answer.scopes), reservation=answer.reservation)
    await stack.ingest.run([delivery(checked, 0)])
    stated = pseudonyms.event(usage_bytes("b", 50, scopes={"team": "search", "user": "ada@contoso.com"}))
    await stack.ingest.run([delivery(stated, 1), delivery(usage_bytes("c", 1, scopes={"user": "ada@contoso.com"}), 2)])
    hashed = pseudonyms.scope("user:ada@contoso.com")
    assert await stack.spent_and_held(hashed) == (151 * MICRO_USD, 0)
    kept = [await stack.client.execute_command("KEYS", "*")]
    for name in ("ledger", "hours", "rollups", "deadletters", "outbox", "state", "streams"):
        kept += [dict(each) async for each in getattr(stack.tables, name).list_entities()]
    assert len(kept) > 4
    assert "ada@" not in str(kept).lower()
