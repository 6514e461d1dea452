"""validate-jwt against keys that a real endpoint serves, and every reason for which a token is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from local.entra import FLAWS, Flaw, Issuer, build_app
from local.process import free_port
from tests.integration.apim.conftest import Start
from tests.support.policy_files import serve_app

CHAT = "/openai/v1/chat/completions"
SHOW = """<return-response><set-body>@{ var jwt = (Jwt)context.Variables["jwt"];
    return jwt.Issuer + "|" + jwt.Claims.GetValueOrDefault("oid", "") + "|" + string.Join(",", jwt.Claims["groups"]); }
    </set-body></return-response>"""


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    """A token issuer that serves its metadata and keys."""
    port = free_port()
    made = Issuer(f"http://127.0.0.1:{port}")
    async with serve_app(build_app(made), port):
        yield made


def validate(issuer: Issuer, inner: str = "", attributes: str = "") -> str:
    """The element as a policy would have it."""
    return f"""<validate-jwt header-name="Authorization" require-scheme="Bearer" output-token-variable-name="jwt"
        {attributes}>
        <openid-config url="{issuer.metadata_url}" />
        <audiences><audience>{issuer.audience}</audience></audiences>{inner}</validate-jwt>"""


async def test_a_valid_token_passes_and_can_be_read(start: Start, issuer: Issuer, client: httpx.AsyncClient) -> None:
    """Its claims are in the variable; an array claim has all its values."""
    runner = await start(validate(issuer) + SHOW)
    token = issuer.mint(oid="ada", groups=["g1", "g2"])
    answer = await client.post(runner.url + CHAT, headers={"authorization": f"Bearer {token}"})
    assert answer.text == f"{issuer.issuer}|ada|g1,g2"


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ("expired", "TokenExpired"),
        ("not_yet_valid", "JwtInvalid"),
        ("wrong_audience", "TokenAudienceNotAllowed"),
        ("wrong_issuer", "TokenIssuerNotAllowed"),
        ("wrong_key", "TokenSignatureInvalid"),
        ("unknown_key", "TokenSignatureKeyNotFound"),
        ("unsigned", "JwtInvalid"),
        ("public_key_as_secret", "JwtInvalid"),
    ],
)
async def test_a_flawed_token_is_refused_with_the_documented_reason(
    start: Start, issuer: Issuer, client: httpx.AsyncClient, flaw: Flaw, reason: str
) -> None:
    """Each flaw alone, in a token that is otherwise valid."""
    runner = await start(validate(issuer) + SHOW)
    headers = {"authorization": f"Bearer {issuer.mint(flaw=flaw, groups=['g'])}"}
    answer = await client.post(runner.url + CHAT, headers=headers)
    assert (answer.status_code, runner.errors[0]["Reason"]) == (401, reason)
    assert runner.errors[0]["Source"] == "validate-jwt"
    assert answer.json()["message"] == runner.errors[0]["Message"]


def test_every_flaw_that_the_issuer_knows_is_tried() -> None:
    """A flaw added there must be refused here."""
    tried = test_a_flawed_token_is_refused_with_the_documented_reason.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {flaw for flaw, _ in tried} == set(FLAWS)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", "Bearer no-token", "Bearer a.b.c"])
async def test_what_is_no_token_is_refused(
    start: Start, issuer: Issuer, client: httpx.AsyncClient, header: str | None
) -> None:
    """Missing, of another scheme or broken: with the policy's own status and message."""
    attributes = 'failed-validation-httpcode="403" failed-validation-error-message="who are you?"'
    runner = await start(validate(issuer, attributes=attributes) + SHOW)
    answer = await client.post(runner.url + CHAT, headers={"authorization": header} if header is not None else {})
    assert (answer.status_code, answer.json()["message"]) == (403, "who are you?")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"roles": ["a", "b"], "azp": "x"}, None),
        ({"roles": ["a"], "azp": "x"}, "TokenClaimValueNotAllowed"),
        ({"roles": ["a", "b"], "azp": "z"}, "TokenClaimValueNotAllowed"),
        ({"azp": "x"}, "TokenClaimNotFound"),
    ],
)
async def test_required_claims(
    start: Start, issuer: Issuer, client: httpx.AsyncClient, claims: dict[str, object], reason: str | None
) -> None:
    """`all` asks for every value, `any` for one of them."""
    required = """<required-claims>
        <claim name="roles" match="all"><value>a</value><value>b</value></claim>
        <claim name="azp" match="any"><value>x</value><value>y</value></claim></required-claims>"""
    runner = await start(validate(issuer, required))
    headers = {"authorization": f"Bearer {issuer.mint(**claims)}"}
    status = (await client.post(runner.url + CHAT, headers=headers)).status_code
    assert (status, [error["Reason"] for error in runner.errors]) == ((401, [reason]) if reason else (200, []))


async def test_keys_that_cannot_be_read_are_our_outage_not_the_callers(start: Start, client: httpx.AsyncClient) -> None:
    """An issuer that is away gives 500, which on-error may answer as it likes; never 401."""
    away = Issuer(f"http://127.0.0.1:{free_port()}")
    runner = await start(validate(away))
    answer = await client.post(runner.url + CHAT, headers={"authorization": f"Bearer {away.mint()}"})
    assert (answer.status_code, runner.errors[0]["Reason"]) == (500, "OpenIdConfigurationFailure")
