"""Tokens of Entra ID at the built-in gateway: who is let in, who is not, and how seldom the issuer is asked."""

import asyncio
import hashlib
import time

import httpx
import pytest

from gateway.auth import Authenticator, authenticator
from gateway.issuer_keys import IssuerKeys, KeysUnavailable
from gateway.tokens import EntraTokens, identity_of
from local.entra import FLAWS, Issuer, build_app, new_key
from shared.errors import NotAuthenticated
from shared.settings import Settings

APP, OID, GROUP = "0f0e0d0c-1111-4222-8333-444455556666", "e2b7c9a1-5f36-4d8e-8c04-91d0a6b3f721", "g-1"
KEYS = {hashlib.sha256(b"local-search").hexdigest(): "search-local"}
ISSUER = Issuer("https://login.example.com", key=new_key())


class Network(httpx.AsyncBaseTransport):
    """The way to the issuer, which can be cut and counts what is asked."""

    def __init__(self, issuer=ISSUER):
        self.issuer = issuer
        self.asked = 0
        self.changed = asyncio.Condition()
        self.is_cut = False

    async def handle_async_request(self, request):
        async with self.changed:
            self.asked += 1
            self.changed.notify_all()
        if self.is_cut:
            raise httpx.ConnectError("cut")
        return await httpx.ASGITransport(build_app(self.issuer)).handle_async_request(request)


@pytest.fixture
async def network():
    return Network()


@pytest.fixture
def clock():
    """The time that keys are aged by; `clock[0] += 60` is a minute later."""
    return [1000.0]


@pytest.fixture
async def tokens(network, clock):
    tokens = EntraTokens(ISSUER.issuer, ISSUER.audience, IssuerKeys(ISSUER.issuer, network, lambda: clock[0]))
    yield tokens
    await tokens.close()


async def asked_of(network, times):
    """Wait until the issuer was asked so often."""
    async with asyncio.timeout(10), network.changed:
        await network.changed.wait_for(lambda: network.asked >= times)


async def refused(tokens, token) -> NotAuthenticated:
    with pytest.raises(NotAuthenticated) as raised:
        await tokens.identity(token)
    assert raised.value.code == "invalid_api_key"
    assert token not in raised.value.message
    return raised.value


async def test_an_apps_token_names_the_app_and_its_object(tokens):
    """What the policies of API Management make of the same token."""
    token = ISSUER.mint(azp=APP, oid=OID, groups=[GROUP])
    assert await tokens.identity(token) == {"app": APP, "oid": OID, "groups": [GROUP]}


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"oid": OID, "azp": APP, "scp": "user_impersonation"}, {"oid": OID}),
        ({"appid": APP}, {"app": APP}),
        ({"azp": "", "appid": APP}, {"app": APP}),
        ({"groups": ["a", 7, "b"]}, {"groups": ["a", "b"]}),
        ({"oid": 7, "groups": "a"}, {}),
    ],
)
def test_a_person_is_no_member_of_the_team_that_owns_their_app(claims, identity):
    """Through which app somebody signed in says nothing about whose budget pays; odd claims say nothing at all."""
    assert identity_of(claims) == identity


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_token_with_a_flaw_is_refused(tokens, flaw):
    """Each is as valid as can be but for that: times, audience, issuer, key, algorithm."""
    await refused(tokens, ISSUER.mint(flaw=flaw, azp=APP))
    assert await tokens.identity(ISSUER.mint(azp=APP)) == {"app": APP}


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": None}, "no valid token"),
        ({"aud": None}, "no valid token"),
        ({"iss": None}, "no valid token"),
        ({"tid": "99999999-2222-4333-8444-555555555555"}, "another directory"),
    ],
)
async def test_what_must_be_in_a_token_may_not_be_left_out(tokens, claims, why):
    """A token without an end would be good for ever."""
    assert why in (await refused(tokens, ISSUER.mint(azp=APP, **claims))).message


async def test_clocks_may_differ_by_a_minute(tokens):
    """Machines are not on time; the policies allow as much."""
    now = int(time.time())
    assert await tokens.identity(ISSUER.mint(azp=APP, exp=now - 30))
    assert await tokens.identity(ISSUER.mint(azp=APP, nbf=now + 30))
    assert "expired" in (await refused(tokens, ISSUER.mint(azp=APP, exp=now - 90))).message


@pytest.mark.parametrize("token", ["a.b.c", "..", "é.é.é", "x" * 20_000, "eyJhbGciOiJSUzI1NiIsImtpZCI6N30.e30.c2ln"])
async def test_what_is_no_token_is_refused(tokens, network, token):
    """Nothing that can be seen to be none makes anybody ask the issuer."""
    await refused(tokens, token)
    assert network.asked == 0


async def test_keys_are_asked_for_once_and_by_one_caller(tokens, network):
    """A hundred callers at once are one question; those after them are none."""
    await asyncio.gather(*(tokens.identity(ISSUER.mint(azp=APP)) for _ in range(100)))
    assert network.asked == 2  # the configuration, and the keys it names


async def test_keys_are_there_before_the_first_call(tokens, network):
    """Started with the gateway, so that no caller pays for it."""
    tokens.start()
    await asked_of(network, 2)
    assert await tokens.identity(ISSUER.mint(azp=APP)) == {"app": APP}
    assert network.asked == 2


async def test_a_new_key_is_found_at_once_and_invented_ones_do_not_flood_the_issuer(tokens, network, clock):
    """Whoever sends unknown key ids makes one question in half a minute, and keeps nobody else from theirs."""
    await tokens.identity(ISSUER.mint(azp=APP))
    newer = Issuer(ISSUER.url, key=new_key())
    network.issuer = newer
    await refused(tokens, newer.mint(azp=APP))  # too soon after the last question
    clock[0] += 31
    assert await tokens.identity(newer.mint(azp=APP)) == {"app": APP}
    asked = network.asked
    for _ in range(20):
        await refused(tokens, Issuer(ISSUER.url, key=ISSUER.key).mint(azp=APP))  # a key that was withdrawn
    assert network.asked == asked


async def test_keys_are_renewed_behind_the_callers_back(tokens, network, clock):
    """An hour later the next caller is answered by what is known, whatever the network does."""
    await tokens.identity(ISSUER.mint(azp=APP))
    network.is_cut = True
    clock[0] += 3_601
    assert await tokens.identity(ISSUER.mint(azp=APP)) == {"app": APP}
    await asked_of(network, 3)
    assert await tokens.identity(ISSUER.mint(azp=APP)) == {"app": APP}


async def test_an_issuer_that_is_away_is_no_fault_of_the_caller(tokens, network, clock):
    """503 and come back, not 401 and fetch another token; the next try is two seconds later."""
    network.is_cut = True
    with pytest.raises(KeysUnavailable) as raised:
        await tokens.identity(ISSUER.mint(azp=APP))
    assert (raised.value.code, raised.value.http_status) == ("identity_unavailable", 503)
    assert raised.value.retry_after_seconds == 2
    network.is_cut = False
    clock[0] += 2
    assert await tokens.identity(ISSUER.mint(azp=APP)) == {"app": APP}


async def test_keys_of_an_issuer_that_was_away_for_a_day_are_believed_no_more(tokens, network, clock):
    """One of them may have been withdrawn since."""
    await tokens.identity(ISSUER.mint(azp=APP))
    network.is_cut = True
    clock[0] += 24 * 3_600 + 1
    with pytest.raises(KeysUnavailable):
        await tokens.identity(ISSUER.mint(azp=APP))


@pytest.mark.parametrize(
    "answer",
    [
        {"issuer": "https://login.example.org/x/v2.0", "jwks_uri": "https://login.example.com/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "http://login.example.com/keys"},
        {"issuer": ISSUER.issuer},
        {"issuer": ISSUER.issuer, "jwks_uri": "https://[", "keys": []},
        {"issuer": ISSUER.issuer, "jwks_uri": "https://login.example.com/keys", "keys": []},
        ["no object"],
    ],
)
async def test_keys_are_taken_from_the_issuer_alone(answer):
    """A configuration of somebody else, keys over plain HTTP, or none at all: nobody is let in by them."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    tokens = EntraTokens(ISSUER.issuer, ISSUER.audience, IssuerKeys(ISSUER.issuer, transport))
    with pytest.raises(KeysUnavailable):
        await tokens.identity(ISSUER.mint(azp=APP))
    await tokens.close()


async def test_a_bearer_may_be_a_key_or_a_token_and_a_key_decides(tokens):
    """OpenAI clients always send a Bearer; a wrong `api-key` beside a good token is a mistake or an attempt."""
    callers = Authenticator(KEYS, tokens)
    token = ISSUER.mint(azp=APP)
    assert await callers.identity({"authorization": f"Bearer {token}"}) == {"app": APP}
    assert await callers.identity({"authorization": "Bearer local-search"}) == {"subscription": "search-local"}
    assert await callers.identity({"api-key": "local-search", "authorization": f"Bearer {token}"}) == {
        "subscription": "search-local"
    }
    for headers in ({"api-key": "wrong", "authorization": f"Bearer {token}"}, {"api-key": token}, {}):
        with pytest.raises(NotAuthenticated) as raised:
            await callers.identity(headers)
        assert raised.value.code == "invalid_api_key"


async def test_without_an_issuer_no_token_is_taken():
    """Trust is a setting, never a default."""
    callers = authenticator(Settings(gateway_keys=KEYS))
    with pytest.raises(NotAuthenticated):
        await callers.identity({"authorization": f"Bearer {ISSUER.mint(azp=APP)}"})
    await callers.close()
