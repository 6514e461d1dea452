"""The budget check on real servers: what it answers, what it holds, and that it does so in one step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.budgets.breaker import CircuitBreaker
from shared.config.model import DowngradeRule
from shared.errors import DeadlinePassed, Forbidden, StateUnavailable
from shared.ledger.row import Position
from shared.ledger.settlement import Entry, TenantSettler
from tests.support.engine import MICRO_USD, Engine, budget, config, flushed, row

CALL = 100 * 1 * MICRO_USD + 100 * 2 * MICRO_USD  # 100 tokens in and at most 100 out on `big`: 300 micro-USD
SMALL_CALL = CALL // 10


@pytest.fixture
async def client(any_redis) -> AsyncIterator:
    """An emptied Valkey and an emptied Redis 6.2: the script may use only what both have."""
    client = await flushed(any_redis.url)
    yield client
    await client.aclose()


async def engine_of(client, *budgets, **tenant) -> Engine:
    engine = Engine(client, config(*budgets, **tenant))
    await engine.open()
    return engine


async def test_a_call_within_its_budget_is_allowed_and_held(client):
    """An allowed call holds exactly its estimate, and the answer shows the budget with the hold."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    answer = await engine.check()
    assert (answer.status, answer.decision, answer.model, answer.state) == (200, "allow", "big", "active")
    assert answer.budget["limit"] == "0.003"
    assert answer.budget["reserved"] == "0.0003"
    assert answer.budget["remaining"] == "0.0027"
    assert await engine.spent_and_held() == (0, CALL)


@pytest.mark.parametrize("late", ["before", "after"])
async def test_a_check_that_nobody_waits_for_any_more_holds_nothing(client, late, monkeypatch):
    """Past its deadline a check is 504 and holds nothing: its caller never learned the reservation to give back."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    deadline = datetime.now(UTC) + timedelta(seconds=-1 if late == "before" else 0.2)
    ask = engine.store.check

    async def slow(*args: Any) -> Any:
        reply = await ask(*args)
        await asyncio.sleep(0.3)  # Redis has held, and the answer comes too late
        return reply

    monkeypatch.setattr(engine.store, "check", slow)
    with pytest.raises(DeadlinePassed) as caught:
        await engine.check(deadline=deadline)
    assert (caught.value.http_status, caught.value.code) == (504, "deadline_passed")
    assert await engine.spent_and_held() == (0, 0)
    answer = await engine.check(deadline=datetime.now(UTC) + timedelta(seconds=30))
    assert (answer.status, await engine.spent_and_held()) == (200, (0, CALL))


async def test_a_budget_filled_by_calls_in_flight_asks_to_retry_shortly(client):
    """What only holds fill is 429 with Retry-After, because retrying helps; nothing more is held."""
    engine = await engine_of(client, budget("team:search", 2 * CALL))
    await engine.check()
    await engine.check()
    answer = await engine.check()
    assert (answer.status, answer.reason, answer.decision) == (429, "budget_reserved", "refuse")
    assert answer.headers["Retry-After"] == "1"
    assert await engine.spent_and_held() == (0, 2 * CALL)


async def test_a_spent_budget_refuses_with_402_and_says_not_to_retry(client):
    """What is spent is 402; OpenAI SDKs obey x-should-retry and do not storm."""
    engine = await engine_of(client, budget("team:search", 2 * CALL))
    settler = TenantSettler(engine.store)
    spent = row(2 * CALL, Position("ns/usage/0", 1_000, 1))
    await settler.settle(engine.snapshot.index, "acme", [Entry(spent.position, spent, True, False, None)])
    answer = await engine.check()
    assert (answer.status, answer.reason, answer.state) == (402, "budget_exhausted", "stopped")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.body["error"]["type"] == "budget"
    assert answer.body["budget"]["remaining"] == "0.00"


async def test_config_may_turn_402_into_429_until_the_reset(client):
    """exhausted_status 429 answers with a Retry-After that reaches to the reset, not a second."""
    engine = await engine_of(client, budget("team:search", 1, period="year"), exhausted_status=429)
    answer = await engine.check()
    assert answer.status == 429
    assert answer.reason == "budget_exhausted"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["x-should-retry"] == "false"


async def test_from_the_degrade_threshold_on_the_cheaper_model_serves(client):
    """At 90 % used a matching rule changes the model, the hold is the cheaper estimate, and tools are switched off."""
    engine = await engine_of(
        client,
        budget("team:*", 10 * CALL, downgrade=(DowngradeRule(("b*",), "small"),), disable_tools=("web_search",)),
    )
    for _ in range(9):
        assert (await engine.check()).model == "big"
    answer = await engine.check(tools=["web_search", "calculator"])
    assert (answer.decision, answer.model, answer.requested_model) == ("downgrade", "small", "big")
    assert answer.disabled_tools == ["web_search"]
    assert answer.headers["x-served-model"] == "small"
    assert await engine.spent_and_held() == (0, 9 * CALL + SMALL_CALL)


async def test_the_most_restrictive_of_several_budgets_wins(client):
    """All matching budgets must fit: the user's day refuses what the team's month would allow, and neither holds."""
    engine = await engine_of(client, budget("team:*", 100 * CALL), budget("user:*", CALL, period="day"))
    scopes = {"team": "search", "user": "ada"}
    assert (await engine.check(scopes=scopes)).status == 200
    answer = await engine.check(scopes=scopes)
    assert answer.status == 429
    assert answer.budget["scope"] == "user:ada"
    assert await engine.spent_and_held("team:search") == (0, CALL)
    assert (await engine.check(scopes={"team": "search", "user": "bob"})).status == 200


async def test_releasing_twice_gives_back_once(client):
    """A duplicate release would let a budget be overspent (10.8 % in simulation); the bit per ordinal prevents it."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    first = await engine.check()
    await engine.check()
    assert await engine.service.release(first.reservation)
    assert await engine.service.release(first.reservation)
    assert await engine.spent_and_held() == (0, CALL)


async def test_a_forged_reservation_gives_nothing_back(client):
    """A token that we did not sign is refused and changes nothing."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    token = (await engine.check()).reservation
    assert not await engine.service.release(token[:-4] + "AAAA")
    assert not await engine.service.release("not a token")
    assert await engine.spent_and_held() == (0, CALL)


async def test_a_reservation_from_before_a_flush_gives_nothing_back(client):
    """After the data vanished a hold of the old generation must not make the new counters negative."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    old = await engine.check()
    await client.flushall()
    await engine.store.begin("acme", "gen-2", [])
    cut = await engine.store.cut("acme", [])
    await engine.store.adjust("acme", cut, [], [f.id for f in engine.snapshot.index.families("acme")], ready=True)
    await engine.check()
    await engine.service.release(old.reservation)
    assert await engine.spent_and_held() == (0, CALL)


async def test_a_hold_expires_only_when_ingest_has_passed_it_too(client):
    """While ingest stalls holds stay, or 131 % would be spent; once the watermark moves on they come back, counted."""
    engine = Engine(client, config(budget("team:search", CALL)), hold_ttl_ms=300, bucket_ms=100)
    await engine.open()
    await engine.check()
    await asyncio.sleep(0.6)
    assert (await engine.check()).status == 429
    await engine.store.set_watermark("acme", await engine.store.now_ms())
    await asyncio.sleep(0.3)
    await engine.store.set_watermark("acme", await engine.store.now_ms())
    assert (await engine.check()).status == 200
    assert await engine.spent_and_held() == (0, CALL)
    assert (await engine.store.state("acme")).expired_holds == 1


async def test_empty_is_not_zero(client):
    """Without counters a closed tenant answers 503, an open one allows without a reservation: never a full budget."""
    closed = Engine(client, config(budget("team:search", CALL)))
    with pytest.raises(StateUnavailable) as raised:
        await closed.check()
    assert raised.value.http_status == 503
    opened = Engine(client, config(budget("team:search", CALL), fail_mode="open"))
    answer = await opened.check()
    assert (answer.status, answer.reason, answer.reservation) == (200, "state_unavailable_open", None)


async def test_the_cached_fail_mode_decides_on_the_last_figures_seen(client):
    """`cached` lets calls through that fitted when Redis was last seen, and refuses scopes it never saw."""
    engine = await engine_of(client, budget("team:*", 10 * CALL), fail_mode="cached")
    await engine.check()
    await client.flushall()
    assert (await engine.check()).reason == "state_unavailable_cached"
    with pytest.raises(StateUnavailable):
        await engine.check(scopes={"team": "never-seen"})


async def test_observe_mode_reports_what_it_would_have_done(client):
    """In observe mode a call past its budget passes, is held, and the answer says what enforcement would do."""
    engine = await engine_of(client, budget("team:search", CALL), enforcement="observe")
    await engine.check()
    answer = await engine.check()
    assert (answer.status, answer.decision, answer.reason) == (200, "allow", "observe_only")
    assert answer.observed == {"decision": "refuse", "reason": "budget_reserved"}
    assert await engine.spent_and_held() == (0, 2 * CALL)


async def test_on_stop_allow_only_alerts_and_downgrade_keeps_serving_the_cheap_model(client):
    """on_stop: allow lets everything pass; on_stop: downgrade serves rule targets past the stop, and nothing else."""
    rule = (DowngradeRule(("big",), "small"),)
    engine = await engine_of(
        client,
        budget("team:a", 1, on_stop="allow"),
        budget("team:d", 1, on_stop="downgrade", downgrade=rule),
    )
    assert (await engine.check(scopes={"team": "a"})).model == "big"
    assert (await engine.check(scopes={"team": "d"})).model == "small"
    assert (await engine.check(model="small", scopes={"team": "d"})).status == 200
    assert (await engine.check(model="other", scopes={"team": "d"})).status == 402


async def test_a_model_budget_counts_only_calls_that_the_model_serves(client):
    """A budget on model:big refuses big and does not hold for small."""
    engine = await engine_of(client, budget("model:big", CALL), budget("team:search", 100 * CALL))
    await engine.check()
    assert (await engine.check()).status == 429
    assert (await engine.check(model="small")).status == 200
    assert await engine.spent_and_held("model:big") == (0, CALL)


async def test_amounts_past_what_a_lua_number_holds_compare_exactly(client):
    """Past 2^53 nano ($9 million) a double would round; one nano-dollar over the limit is still refused."""
    limit = 2**60 + 1
    engine = await engine_of(client, budget("team:search", limit))
    settler = TenantSettler(engine.store)
    spent = row(limit - CALL + 1, Position("ns/usage/0", 1_000, 1))
    await settler.settle(engine.snapshot.index, "acme", [Entry(spent.position, spent, True, False, None)])
    assert (await engine.check()).status == 402
    less = row(-1, Position("ns/usage/0", 1_000, 2), id="2")
    await settler.settle(engine.snapshot.index, "acme", [Entry(less.position, less, True, False, None)])
    assert (await engine.check()).status == 200


async def test_invented_session_keys_cannot_fill_the_memory(client):
    """Client-asserted scopes have a cap on live keys; past it new keys are refused and old ones still work."""
    engine = Engine(client, config(budget("session:*", 100 * CALL, period="day")))
    engine.store._max_asserted_cells = 3
    await engine.open()
    for key in "abc":
        await engine.check(scopes={"session": key})
    with pytest.raises(Forbidden) as raised:
        await engine.check(scopes={"session": "d"})
    assert raised.value.code == "scope_not_allowed"
    assert (await engine.check(scopes={"session": "a"})).status == 200


async def test_a_new_budget_waits_until_it_was_seeded(client):
    """A family of counters the ledger was not summed for yet does not refuse, nor pass for unspent."""
    engine = await engine_of(client, budget("team:search", 100 * CALL))
    engine.configure(config(budget("team:search", 100 * CALL), budget("team:search", 1, period="day"), version="v2"))
    assert (await engine.check()).status == 200
    cut = await engine.store.cut("acme", [])
    await engine.store.adjust("acme", cut, [], [f.id for f in engine.snapshot.index.families("acme")], ready=True)
    assert (await engine.check()).status == 402


async def test_a_model_outside_the_allow_list_is_refused(client):
    """Tenants and teams may limit which models their callers name: 403 model_not_allowed names what is allowed."""
    engine = await engine_of(client, budget("team:search", 100 * CALL), allowed_models=("sm*",))
    assert (await engine.check(model="small")).status == 200
    with pytest.raises(Forbidden) as raised:
        await engine.check(model="big")
    assert (raised.value.code, raised.value.param) == ("model_not_allowed", "model")


async def test_an_unreachable_redis_opens_the_breaker_and_follows_the_fail_mode():
    """With Redis gone every check answers by the fail mode, and after a few failures without waiting for a timeout."""
    from redis.asyncio import Redis

    client = Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2)
    engine = Engine(client, config(budget("team:search", CALL)))
    engine.service._breaker = breaker = CircuitBreaker(failures=2, open_seconds=60)
    for _ in range(4):
        with pytest.raises(StateUnavailable):
            await engine.check()
    assert not breaker.allows()
    await client.aclose()


async def test_concurrent_checks_never_admit_more_than_fits(client):
    """200 callers at once on a budget of 44 calls: exactly 44 are admitted."""
    engine = await engine_of(client, budget("team:search", 44 * CALL))
    answers = await asyncio.gather(*(engine.check() for _ in range(200)))
    assert sum(answer.status == 200 for answer in answers) == 44
    assert await engine.spent_and_held() == (0, 44 * CALL)


async def test_a_bucket_whose_holds_were_all_given_back_can_expire(client):
    """Taking nothing off `held` was written -0, which Redis refuses: the scope would have failed for ever after."""
    engine = Engine(client, config(budget("team:search", 10 * CALL)), hold_ttl_ms=0, bucket_ms=1)
    await engine.open()
    await engine.service.release((await engine.check()).reservation)
    await asyncio.sleep(0.01)
    await engine.store.set_watermark("acme", await engine.store.now_ms())
    assert (await engine.check()).status == 200
    assert await engine.spent_and_held() == (0, CALL)


async def test_a_call_that_costs_nothing_can_be_given_back(client):
    """An estimate of 0 is a reservation like any other; giving it back must not stop the batch it came in."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    free = await engine.check(input_tokens=0, max_output_tokens=0)
    assert await engine.service.release(free.reservation)
    assert await engine.spent_and_held() == (0, 0)


async def test_a_budget_added_beside_others_of_its_kind_waits_for_its_own_seeding(client):
    """Spend of a team without a budget was never counted; another team's monthly budget must not vouch for it."""
    first = budget("team:search", 100 * CALL)
    engine = await engine_of(client, first)
    engine.configure(config(first, budget("team:research", 0), version="v2"))
    answer = await engine.check(scopes={"team": "research"})
    assert (answer.status, answer.state) == (200, "stopped")
    families = [family.id for family in engine.snapshot.index.families("acme")]
    await engine.store.adjust("acme", await engine.store.cut("acme", []), [], families, ready=True)
    assert (await engine.check(scopes={"team": "research"})).status == 402


async def test_rules_in_a_circle_still_serve_a_model(client):
    """big to small and small to big: once degraded the second serves, instead of a refusal that names no budget."""
    circle = (DowngradeRule(("big",), "small"), DowngradeRule(("small",), "big"))
    engine = await engine_of(client, budget("team:search", 10 * CALL, degrade_ppm=0, downgrade=circle))
    assert (await engine.check()).model == "small"
    assert (await engine.check(model="small")).model == "big"


async def test_only_the_cheapest_model_passes_the_stop_when_the_rule_says_cheapest(client):
    """A model that no rule matches must not slip past a hard stop because some other rule says `cheapest`."""
    rule = (DowngradeRule(("big",), "cheapest"),)
    engine = await engine_of(client, budget("team:search", 1, on_stop="downgrade", downgrade=rule))
    assert (await engine.check()).model == "small"
    assert (await engine.check(model="small")).status == 200
    assert (await engine.check(model="other")).status == 402


async def test_counters_of_ended_periods_leave_the_index(client):
    """Their names would pile up for ever, hour by hour and user by user, in a Redis that never evicts."""
    engine = Engine(client, config(budget("user:*", 10 * CALL, period="hour")), hold_ttl_ms=0, bucket_ms=1)
    await engine.open()
    await client.zadd("tk:{acme}:index", {"tk:{acme}:c:user:old|hour|UTC|0": 1})
    await engine.store.set_watermark("acme", await engine.store.now_ms() + 1_000)
    await engine.check(scopes={"user": "ada"})
    names = await client.zrange("tk:{acme}:index", 0, -1)
    assert [name.split(b"|")[0] for name in names] == [b"tk:{acme}:c:user:ada"]


async def test_a_charge_to_a_period_of_long_ago_leaves_no_counter_behind(client):
    """Expiring the counter before adding to it left it without an expiry, for ever."""
    engine = await engine_of(client, budget("team:search", 10 * CALL))
    late = row(CALL, Position("ns/usage/0", 1_000, 1), time_utc=datetime.now(UTC) - timedelta(days=400))
    settler = TenantSettler(engine.store)
    await settler.settle(engine.snapshot.index, "acme", [Entry(late.position, late, True, True, None)])
    assert [name async for name in client.scan_iter("tk:{acme}:c:*")] == []


async def test_a_session_that_is_only_charged_stays_alive(client):
    """Use restarts the idle time of a client-asserted scope; without it a busy session would lose its spend."""
    engine = await engine_of(client, budget("session:*", 10 * CALL, period="day"))
    settler = TenantSettler(engine.store)
    for sequence in (1, 2):
        charged = row(1, Position("ns/usage/0", 1_000, sequence), id=str(sequence), scopes={"session": "s"})
        await settler.settle(engine.snapshot.index, "acme", [Entry(charged.position, charged, True, True, None)])
        [name] = [name async for name in client.scan_iter("tk:{acme}:c:*")]
        assert await client.pttl(name) > 23 * 3_600_000
        await client.pexpire(name, 60_000)


async def test_one_tenants_broken_counter_does_not_cut_off_the_others(client):
    """A counter of the wrong type fails its own checks; the breaker is for servers that do not answer."""
    engine = await engine_of(client, budget("team:*", 10 * CALL))
    await engine.check(scopes={"team": "broken"})
    [name] = [name async for name in client.scan_iter("tk:{acme}:c:*")]
    await client.delete(name)
    await client.set(name, "not a hash")
    for _ in range(6):
        with pytest.raises(StateUnavailable):
            await engine.check(scopes={"team": "broken"})
    assert (await engine.check()).status == 200


async def test_observe_mode_reports_on_while_ingest_stalls(client):
    """It holds either way, so it must hand out the token; else what it holds would stay until it expires."""
    engine = await engine_of(client, budget("team:search", CALL), enforcement="observe")
    engine.service._stalled_ingest_ms = -1
    await engine.check()
    answer = await engine.check()
    assert answer.observed == {"decision": "refuse", "reason": "budget_reserved"}
    assert await engine.service.release(answer.reservation)
    assert await engine.spent_and_held() == (0, CALL)


async def test_a_stalled_ingest_leads_to_the_fail_mode(client):
    """When nothing that was held can come back, 429 and retry would be a lie: the tenant's fail mode answers."""
    for fail_mode in ("closed", "open"):
        await client.flushall()
        engine = await engine_of(client, budget("team:search", CALL), fail_mode=fail_mode)
        engine.service._stalled_ingest_ms = -1
        assert (await engine.check()).status == 200
        if fail_mode == "open":
            assert (await engine.check()).reason == "state_unavailable_open"
        else:
            with pytest.raises(StateUnavailable):
                await engine.check()
