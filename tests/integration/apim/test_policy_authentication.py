"""Who may call, who is billed for it, and what of the caller's own words goes no further than the gateway."""

from __future__ import annotations

import pytest

from local.entra import FLAWS
from tests.support.policy_bench import AZURE, CHAT, Bench, admission, start_bench

PERSON = {"oid": "11aa", "azp": "some-app", "scp": "access", "groups": ["group-1", "group-2"]}
ROBOT = {"oid": "22bb", "azp": "app one"}


def bearer(token: str) -> dict[str, str]:
    """A token as clients send it."""
    return {"authorization": f"Bearer {token}"}


def code_of(answer) -> str:
    """The error's code; asserts OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "type", "param"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    return error["code"]


async def test_subscription_key_is_resolved_by_apim_and_never_sent_on(bench: Bench) -> None:
    """Identity is the subscription and its product; the key reaches neither the service, the model nor the event."""
    key = bench.subscribe("sub-gold", product="gold")
    answer = await bench.post(key, headers={"ocp-apim-subscription-key": "another"})
    assert answer.status_code == 200
    assert bench.service.asked[-1]["identity"] == {"subscription": "sub-gold", "product": "gold"}
    _, headers, _ = bench.model.last
    assert headers["authorization"] == "Bearer local-managed-identity"
    assert not {"api-key", "ocp-apim-subscription-key"} & set(headers)
    assert key not in str(await bench.event(answer))
    assert bench.service.tokens[-1] == "Bearer local-managed-identity"


async def test_key_in_the_query_is_taken_off(bench: Bench) -> None:
    """A URL ends up in logs; the model's must not hold a key. Other parameters stay."""
    key = bench.subscribe()
    answer = await bench.client.post(f"{CHAT}?subscription-key={key}&api-key=x&keep=1", json=_body())
    assert answer.status_code == 200
    assert bench.model.last[0] == f"{CHAT}?keep=1"


async def test_key_decides_when_a_bearer_comes_along(bench: Bench) -> None:
    """The OpenAI client sends its api_key as a Bearer token always, whatever stands in default_headers."""
    answer = await bench.post(bench.subscribe("sub-both"), headers=bearer("unused"))
    assert answer.status_code == 200
    assert bench.service.asked[-1]["identity"] == {"subscription": "sub-both"}


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer"}])
async def test_caller_without_credential_gets_401(bench: Bench, headers: dict[str, str]) -> None:
    """In OpenAI's shape, with the challenge that HTTP asks for, and before anything else happens."""
    asked = len(bench.service.asked)
    answer = await bench.post(None, headers=headers)
    assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert len(bench.service.asked) == asked


async def test_wrong_key_gets_401_even_beside_a_valid_token(bench: Bench) -> None:
    """Two credentials that disagree are a mistake or an attempt: neither is believed."""
    for key in ("no-such-key", ""):
        headers = {"api-key": key, **bearer(bench.issuer.mint(**ROBOT))}
        answer = await bench.post(None, headers=headers)
        assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")


async def test_token_of_a_person_names_person_and_groups(bench: Bench) -> None:
    """The app through which a person signed in makes nobody a member of the team that owns the app."""
    answer = await bench.post(None, headers=bearer(bench.issuer.mint(**PERSON)))
    assert answer.status_code == 200
    assert bench.service.asked[-1]["identity"] == {"oid": "11aa", "groups": ["group-1", "group-2"]}
    assert bench.model.last[1]["authorization"] == "Bearer local-managed-identity"


async def test_token_of_an_app_names_the_app(bench: Bench) -> None:
    """Version 2 tokens say azp, version 1 appid; a token of neither names nobody, which the service refuses."""
    for claims, identity in (
        (ROBOT, {"oid": "22bb", "app": "app one"}),
        ({"appid": "v1-app"}, {"app": "v1-app"}),
        ({"azp": None}, {}),
    ):
        answer = await bench.post(None, headers=bearer(bench.issuer.mint(**claims)))
        assert answer.status_code == 200
        assert bench.service.asked[-1]["identity"] == identity


@pytest.mark.parametrize("flaw", FLAWS)
async def test_token_with_a_flaw_gets_401(bench: Bench, flaw: str) -> None:
    """Each way in which a token can be wrong, in the same words: what exactly failed helps only a forger."""
    answer = await bench.post(None, headers=bearer(bench.issuer.mint(flaw=flaw, **ROBOT)))  # type: ignore[arg-type]
    assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["message"] == "this key or token is not accepted here"


async def test_issuer_that_is_away_is_no_401(mono: None) -> None:
    """A client that gets 401 throws its good token away and asks for another; our outage says 503."""
    async with start_bench({"tk-entra-openid-config": "http://127.0.0.1:9/.well-known/openid-configuration"}) as bench:
        answer = await bench.post(None, headers=bearer(bench.issuer.mint(**ROBOT)))
    assert (answer.status_code, code_of(answer)) == (503, "identity_unavailable")
    assert answer.headers["retry-after"] == "2"


async def test_listed_scopes_are_asserted_and_no_others(bench: Bench) -> None:
    """A header names only what config lets it name; neither kind reaches the model, nor does where the call may go."""
    headers = {
        "x-budget-scope-session": "s-42",
        "x-budget-scope-task": "t/1",
        "x-budget-scope-team": "rich",
        "X-Budget-Tenant": "fabrikam",
        "x-tollkeeper-region": "westeurope",
        "x-tollkeeper-data-zone": "eu",
    }
    answer = await bench.post(bench.subscribe(), headers=headers)
    assert answer.status_code == 200
    assert bench.service.asked[-1]["scopes"] == {"session": "s-42", "task": "t/1"}
    assert [name for name in bench.model.last[1] if name.startswith(("x-budget", "x-tollkeeper"))] == []
    assert (await bench.event(answer))["data"]["scopes"] == {"team": "search", "session": "s-42", "task": "t/1"}


async def test_scopes_that_the_callers_tenant_does_not_list_are_ignored(bench: Bench) -> None:
    """Sent on, they would be refused by a check, and make the event of a call without one worthless."""
    headers = {"x-budget-scope-session": "s", "x-budget-scope-task": "t", "x-budget-scope--": "x"}
    for product, scopes in (("mute", {}), ("Brief", {"task": "t"}), ("loud", {"session": "s", "task": "t"})):
        answer = await bench.post(bench.subscribe(product=product), headers=headers)
        assert answer.status_code == 200
        assert bench.service.asked[-1]["scopes"] == scopes


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("2026-11-21T10:00:00+02:00", "2026-11-21T10:00:00+02:00"),
        ("/Date(0)/", "/Date(0)/"),
        ("tête".encode(), "tête"),
        ("tête".encode("latin-1"), "tête"),
        ("x" * 256, "x" * 256),
    ],
)
async def test_scope_keys_arrive_as_they_were_meant(bench: Bench, sent: str | bytes, key: str) -> None:
    """Text that looks like a date stays text all the way to the event, and UTF-8 is read as UTF-8."""
    answer = await bench.post(bench.subscribe(), headers={"x-budget-scope-session": sent})
    assert answer.status_code == 200
    assert bench.service.asked[-1]["scopes"] == {"session": key}
    assert (await bench.event(answer))["data"]["scopes"]["session"] == key


@pytest.mark.parametrize(
    "headers",
    [
        [("x-budget-scope-session", "")],
        [("x-budget-scope-session", "x" * 257)],
        [("x-budget-scope-session", "a\tb")],
        [("x-budget-scope-session", "a\u2028b".encode())],
        [("x-budget-scope-session", "a"), ("x-budget-scope-session", "b")],
        [(f"x-budget-scope-{n}", "x") for n in range(9)],
    ],
)
async def test_scopes_that_no_budget_could_have_are_refused(bench: Bench, headers) -> None:
    """Such a call would be served, and its event refused: spend that nobody sees."""
    answer = await bench.client.post(CHAT, json=_body(), headers=[("api-key", bench.subscribe()), *headers])
    assert (answer.status_code, code_of(answer)) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "x-budget-scope"


async def test_nothing_that_a_body_claims_is_believed(bench: Bench) -> None:
    """Tenant, identity, reservation or decision in a body or a query is just text that goes to the model."""
    forged = {"tenant": "fabrikam", "identity": {"subscription": "rich"}, "reservation": "mine", "decision": "allow"}
    answer = await bench.post(bench.subscribe("sub-forger"), f"{CHAT}?tenant=fabrikam", **forged)
    assert answer.status_code == 200
    asked = bench.service.asked[-1]
    assert asked["identity"] == {"subscription": "sub-forger"}
    assert not {"tenant", "reservation", "decision"} & set(asked)
    data = (await bench.event(answer))["data"]
    assert (data["tenant"], data["decision"]) == ("contoso", "allow")
    assert data["reservation"] != "mine"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/openai/v1/completions"),
        ("POST", "/openai/v1/images/generations"),
        ("GET", "/openai/v1/chat/completions"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("POST", "/openai/v1/models"),
        ("POST", "/openai/v2/chat/completions"),
        ("POST", "/openai/deployments/gpt-4o/models"),
        ("POST", "/openai/deployments/a%2Fb/chat/completions"),
        ("POST", "/openai/deployments/%2e%2e/chat/completions"),
        ("POST", "/openai/v1/chat%2Fcompletions"),
        ("DELETE", "/openai/v1/chat/completions"),
        ("POST", "/openai/chat/completions"),
    ],
)
async def test_everything_else_is_404(bench: Bench, method: str, path: str) -> None:
    """A call without a known shape has no price, so it does not go through; nor does a path that says two things."""
    before = len(bench.model.requests)
    answer = await bench.client.request(method, path, headers={"api-key": bench.subscribe()})
    assert (answer.status_code, code_of(answer)) == (404, "not_found")
    assert f"{method} " in answer.json()["error"]["message"]
    assert len(bench.model.requests) == before


async def test_models_are_listed_without_budget_and_event(bench: Bench) -> None:
    """Both paths, authenticated; the list costs nothing and is checked by nobody."""
    asked = len(bench.service.asked)
    key = bench.subscribe()
    for path in ("/openai/v1/models", "/openai/models?api-version=2024-10-21"):
        assert (await bench.client.get(path)).status_code == 401
        answer = await bench.client.get(path, headers={"api-key": key})
        assert answer.status_code == 200
        assert answer.json()["object"] == "list"
        assert await bench.events(answer) == []
        assert bench.model.last[1]["authorization"] == "Bearer local-managed-identity"
    assert len(bench.service.asked) == asked


async def test_responses_of_azure_clients_have_the_model_in_the_body(bench: Bench) -> None:
    """AzureOpenAI clients call /openai/responses with an api-version and no deployment in the path."""
    answer = await bench.client.post(
        "/openai/responses?api-version=2025-03-01-preview",
        json={"model": "gpt-4o", "input": "hello"},
        headers={"api-key": bench.subscribe()},
    )
    assert answer.status_code == 200
    assert bench.service.asked[-1]["operation"] == "responses"
    assert bench.model.last[2]["model"] == "gpt-4o-weu"


async def test_path_names_are_read_without_regard_to_case(bench: Bench) -> None:
    """The backend does not mind the case either, so a spelling must not lead around the budget."""
    answer = await bench.post(bench.subscribe(), AZURE.format("GPT-4o-WEU").replace("chat", "Chat"))
    assert answer.status_code in (200, 404)
    if answer.status_code == 200:
        assert bench.service.asked[-1]["deployment"] == "GPT-4o-WEU"


async def test_first_answer_teaches_the_team_for_the_rate_limit(bench: Bench) -> None:
    """Until then a caller counts by itself; two callers of one team share the team's limit from then on."""
    keys = [bench.subscribe(says=lambda asked: admission(asked, scopes={"team": "shared-rate"})) for _ in range(2)]
    statuses = [(await bench.post(keys[n % 2])).status_code for n in range(44)]
    assert statuses[:42] == [200] * 42  # one each by themselves, then 40 of the team
    assert statuses[42:] == [429, 429]
    refused = await bench.post(keys[0])
    assert (refused.status_code, code_of(refused)) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 60


def _body() -> dict:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
