"""Logins for Redis: one request for all, early, and never waited for while the present token is valid."""

from __future__ import annotations

import asyncio
import time

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.budgets.entra import Login, Logins
from shared.budgets.redis_errors import is_outage
from tests.support.entra_redis import fake_token


class Issuer:
    """Answers requests when the gate is open; a test sets what it answers."""

    def __init__(self, seconds: float = 60) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.token = AccessToken(fake_token({"oid": "me", "n": 0}), int(time.time() + seconds))

    async def __call__(self) -> AccessToken:
        self.asked += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.token

    def next(self, seconds: float = 60) -> None:
        self.token = AccessToken(fake_token({"oid": "me", "n": self.asked}), int(time.time() + seconds))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds to add to the time that is told."""
    ahead, now = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    return ahead


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_user_is_the_tokens_object_id() -> None:
    """Name and password of Redis are both read from one answer."""
    issuer = Issuer()
    assert await Logins(issuer).current() == Login("me", issuer.token.token, issuer.token.expires_on)


async def test_all_wait_for_one_request_and_one_who_leaves_does_not_end_it() -> None:
    """A check whose time is over must not take the token away from the checks behind it."""
    issuer = Issuer()
    issuer.gate.clear()
    logins = Logins(issuer)
    impatient, *others = [asyncio.create_task(logins.current()) for _ in range(20)]
    await settled()
    impatient.cancel()
    issuer.gate.set()
    assert len(set(await asyncio.gather(*others))) == 1
    assert issuer.asked == 1


async def test_the_next_token_is_fetched_at_half_time_behind_the_callers_backs(clock: list[float]) -> None:
    """Nobody waits: they get the present login until the next is there, and one request is enough."""
    issuer = Issuer(60)
    logins = Logins(issuer)
    first = await logins.current()
    clock[0] = 28
    assert await logins.current() is first
    await settled()
    assert issuer.asked == 1
    clock[0] = 31
    issuer.next()
    issuer.gate.clear()
    assert {await logins.current() for _ in range(5)} == {first}
    issuer.gate.set()
    await settled()
    assert (await logins.current()).token == issuer.token.token != first.token
    assert issuer.asked == 2


async def test_the_same_token_again_is_no_new_login(clock: list[float]) -> None:
    """The platform may hand out its own copy for a while: connections need not sign in, and the next try is later."""
    issuer = Issuer(60)
    logins = Logins(issuer)
    first = await logins.current()
    for seconds, asked in ((31, 2), (44, 2), (46, 3)):
        clock[0] = seconds
        assert await logins.current() is first
        await settled()
        assert issuer.asked == asked


@pytest.mark.parametrize("failure", [ClientAuthenticationError("no"), TimeoutError(), KeyError("x")])
async def test_a_failed_request_costs_nothing_until_the_token_ends(clock: list[float], failure: Exception) -> None:
    """Then it is an outage of Redis, for which there are fail modes, and over as soon as a token is to be had."""
    issuer = Issuer(60)
    logins = Logins(issuer)
    first = await logins.current()
    issuer.failure = failure
    for clock[0] in (31, 46, 58):
        assert await logins.current() is first
        await settled()
    clock[0] = 61
    with pytest.raises(RedisConnectionError) as refused:
        await logins.current()
    assert is_outage(refused.value)
    assert refused.value.__cause__ is failure
    issuer.failure = None
    issuer.next(61 + 60)
    assert (await logins.current()).token == issuer.token.token


@pytest.mark.parametrize("token", ["opaque", "a.b.c", fake_token({"sub": "me"}), "e30.W10.x"])
async def test_a_token_without_an_object_id_is_an_outage_not_a_fault(token: str) -> None:
    """Whatever answers instead of Entra ID, a check ends in its fail mode."""
    issuer = Issuer()
    issuer.token = AccessToken(token, issuer.token.expires_on)
    with pytest.raises(RedisConnectionError) as refused:
        await Logins(issuer).current()
    assert token not in str(refused.value)


async def test_a_token_that_has_ended_already_is_not_used() -> None:
    """With a clock that is far ahead every token looks so; the log says what is missing, and nothing loops."""
    issuer = Issuer(-5)
    logins = Logins(issuer)
    with pytest.raises(RedisConnectionError):
        await logins.current()
    assert issuer.asked == 1
