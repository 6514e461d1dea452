"""Callers that lie about who they are gain nothing: whatever they send, the spend lands on their own team.

Each attempt is made by team `attacker` (or by nobody) against team `victim`. It may be refused or served; served, it is
billed to the attacker. At the end nothing was ever billed to the victim, and nothing the model served is unbilled.
"""

from __future__ import annotations

import base64
import json
import socket
import uuid
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from local.entra import FLAWS, TENANT_ID
from tests.support.laptop import CHAT, RESPONSES, Laptop, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import configuration, team_file

VICTIM_APP, VICTIM_PERSON, VICTIM_GROUP, ATTACKER_APP = (str(uuid.UUID(int=n, version=4)) for n in (11, 12, 13, 14))
VICTIM_CLAIMS = {"azp": VICTIM_APP, "oid": VICTIM_PERSON, "groups": [VICTIM_GROUP]}
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
FILES = configuration(
    victim=team_file(
        "victim", "100.00", identities=f", apps: [{VICTIM_APP}], users: [{VICTIM_PERSON}], groups: [{VICTIM_GROUP}]"
    ),
    attacker=team_file("attacker", "100.00", identities=f", apps: [{ATTACKER_APP}]"),
)


@pytest.fixture(scope="module")
def laptop(mono, tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("forgery"), FILES, APIM_LLM_LOG_DELAY_SECONDS="0.5") as laptop:
        yield laptop
        assert_everything_was_the_attackers(laptop)


def assert_everything_was_the_attackers(laptop: Laptop) -> None:
    """After every test of this file: the victim has spent nothing, and each served call is somebody's."""
    served = sum(usage["calls"] for usage in laptop.served_by_call().values())
    requests = eventually(lambda: rows if len(rows := laptop.rows_by_request()) >= served else None)
    assert served > 20
    assert len(requests) == served
    assert {row.scopes["team"] for rows in requests.values() for row in rows} == {"attacker"}
    assert {row.tenant for rows in requests.values() for row in rows} == {"default"}
    assert float(laptop.settled_spend("victim")["spent"]) == 0


@pytest.fixture
def call():
    """A name under which the model counts the calls of this test."""
    return f"f-{uuid.uuid4().hex[:12]}"


def assert_billed_to_attacker(laptop: Laptop, answer: httpx.Response, call: str) -> None:
    """One row, the attacker's, with what the model counted."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-budget-scope"] == "team:attacker"
    truth = laptop.served(call)
    rows = eventually(lambda: laptop.rows(answer))
    assert [row.scopes["team"] for row in rows.values()] == ["attacker"]
    assert prompt_and_output(rows["usage"]) == (truth["prompt_tokens"], truth["completion_tokens"])


@pytest.mark.parametrize(
    "headers",
    [
        {"x-budget-scope-team": "victim"},
        {"X-Budget-Scope-Team": "victim", "x-budget-scope-user": "ada@victim.example"},
        {"x-budget-scope-tenant": "other", "x-budget-scope-org": "other", "x-budget-scope-subscription": "victim-prod"},
        {"x-budget-tenant": "other", "x-tenant": "other", "x-budget-identity": '{"subscription": "victim-prod"}'},
        {"x-ms-client-principal-id": VICTIM_PERSON, "x-ms-client-principal-name": "ada@victim.example"},
        {
            "x-ms-client-principal": base64.b64encode(
                json.dumps({"claims": [{"typ": "azp", "val": VICTIM_APP}, {"typ": "roles", "val": "Admin"}]}).encode()
            ).decode()
        },
        {"x-ms-client-principal-idp": "aad", "x-ms-token-aad-access-token": "token", "x-functions-key": "key"},
        {"x-budget-state": "active", "x-budget-remaining": "1000000", "x-served-model": "gpt-4o-mini"},
        {"x-budget-reservation": "forged", "x-reservation": "forged", "x-cache-seconds": "60"},
        {"ocp-apim-subscription-id": "victim-prod", "x-subscription-id": "victim-prod", "x-product-id": "victim"},
        {"x-http-method-override": "GET", "x-original-url": "/openai/models", "x-forwarded-host": "victim"},
    ],
    ids=lambda headers: next(iter(headers)).lower(),
)
def test_a_header_makes_nobody_another_team(laptop, call, headers):
    """Scopes, tenants, principals, reservations and the platform's own headers: what a client sends of them is air."""
    answer = httpx.post(f"{laptop.url}{CHAT}", json=BODY, headers=laptop.headers("attacker", call) | headers)
    if answer.status_code == 403:
        assert answer.json()["error"]["code"] == "scope_not_allowed"
        assert laptop.served(call)["attempts"] == 0
        return
    assert_billed_to_attacker(laptop, answer, call)


def test_no_forged_identity_reaches_the_model_or_comes_back(laptop, call):
    """Headers about budgets that a client sent are neither sent on nor answered with."""
    forged = {"x-budget-remaining": "1000000", "x-budget-scope-team": "victim", "x-budget-scope-session": "s-1"}
    answer = httpx.post(f"{laptop.url}{CHAT}", json=BODY, headers=laptop.headers("attacker", call) | forged)
    assert float(answer.headers["x-budget-remaining"]) <= 100
    names = laptop.received(call=call)[0]["header_names"]
    assert [name for name in names if name.startswith("x-budget-")] == []


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_token_that_is_not_valid_is_nobodys(laptop, call, flaw):
    """Expired, for others, of another issuer, by another key, unsigned, or signed with the public key: 401."""
    token = laptop.token(flaw=flaw, **VICTIM_CLAIMS)
    answer = httpx.post(f"{laptop.url}{CHAT}", json=BODY, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert laptop.served(call)["attempts"] == 0


def test_a_forged_token_beside_a_key_changes_nothing(laptop, call):
    """The key says who calls; claims that nobody vouches for do not become anybody's."""
    header = laptop.headers("attacker", call)
    for number, token in enumerate(
        (
            laptop.token(flaw="unsigned", **VICTIM_CLAIMS),
            jwt.encode({**VICTIM_CLAIMS, "tid": TENANT_ID}, "secret-of-the-attacker-32-bytes-long", "HS256"),
            "not.a.token",
        )
    ):
        name = f"{call}-{number}"
        headers = header | {"Authorization": f"Bearer {token}", "x-sim-call-id": name}
        assert_billed_to_attacker(laptop, httpx.post(f"{laptop.url}{CHAT}", json=BODY, headers=headers), name)


def test_a_valid_token_names_only_its_own_holder(laptop, call):
    """Claims with other names, or of the wrong kind, in a token of the attacker's own: still the attacker."""
    extra = {"team": "victim", "tenant": "other", "subscription": "victim-prod", "groups": [], "appid": VICTIM_APP}
    token = laptop.token(azp=ATTACKER_APP, scopes={"team": "victim"}, **extra)
    headers = {"Authorization": f"Bearer {token}", "x-sim-call-id": call}
    assert_billed_to_attacker(laptop, httpx.post(f"{laptop.url}{CHAT}", json=BODY, headers=headers), call)


def test_a_key_of_nobody_is_not_saved_by_a_valid_token(laptop):
    """A wrong key beside a token is refused, not passed over."""
    token = laptop.token(azp=ATTACKER_APP)
    headers = {"api-key": "guessed", "Authorization": f"Bearer {token}"}
    assert httpx.post(f"{laptop.url}{CHAT}", json=BODY, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"tenant": "other", "scopes": {"team": "victim"}},
        {"identity": {"subscription": "victim-prod"}},
        {"reservation": "v1.forged", "decision": "allow", "cache_seconds": 3600},
        {"user": "victim", "metadata": {"team": "victim", "tenant": "other"}},
        {"data": {"tenant": "other", "scopes": {"team": "victim"}, "usage": {"prompt_tokens": 0}}},
        {"input_bytes": 1, "input_tokens": 0, "max_output_tokens": 1, "choices": 0},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_body_makes_nobody_another_team(laptop, call, fields):
    """Fields named like those of the check or the event are the model's business, not the budget's."""
    answer = laptop.post("attacker", CHAT, {**BODY, **fields}, call=call)
    assert_billed_to_attacker(laptop, answer, call)


@pytest.mark.parametrize("key", ["tenant=other", "identity=%7B%7D", "scopes=team:victim", "reservation=forged"])
def test_a_query_makes_nobody_another_team(laptop, call, key):
    """Nor do parameters of the URL."""
    assert_billed_to_attacker(laptop, laptop.post("attacker", f"{CHAT}?{key}", BODY, call=call), call)


@pytest.mark.parametrize(
    "session",
    [
        's","team":"victim',
        's"},"identity":{"subscription":"victim-prod"},"x":{"y":"',
        "s\\",
        "\\u0022,\\u0022team\\u0022:\\u0022victim",
        "{{tk-service-url}}",
        '@(context.Variables["identity"])',
        "team:victim",
        "*",
    ],
)
def test_a_session_is_text_whatever_it_says(laptop, call, session):
    """The one scope that a client may name stays one value: JSON, expressions and wildcards in it do nothing."""
    answer = laptop.post("attacker", CHAT, BODY, call=call, x_budget_scope_session=session)
    if answer.status_code == 400:
        assert laptop.served(call)["attempts"] == 0
        return
    assert_billed_to_attacker(laptop, answer, call)
    assert laptop.rows(answer)["usage"].scopes["session"] == session


def test_another_teams_session_is_still_ones_own_spend(laptop, call):
    """A session that somebody else uses may be named; the call is the caller's all the same."""
    answer = laptop.post("attacker", CHAT, BODY, call=call, x_budget_scope_session="session-of-the-victim")
    assert_billed_to_attacker(laptop, answer, call)


def raw_call(laptop: Laptop, head: list[bytes], body: bytes) -> bytes:
    """Bytes that no client library would send."""
    address = urlsplit(laptop.url)
    lines = [b"POST /openai/v1/chat/completions HTTP/1.1", b"host: " + address.netloc.encode(), b"connection: close"]
    lines += [b"content-type: application/json", b"content-length: %d" % len(body), *head]
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "lines",
    [
        [b"x-budget-scope-session: a\r\n x-budget-scope-team: victim"],  # a folded line
        [b"x-budget-scope-session: a\rx-budget-scope-team: victim"],  # half a line end
        [b"x-budget-scope-session: a", b"x-budget-scope-session: b"],  # twice
        [b"x-budget-scope-session: a\x00victim"],
        [b"api-key: local-victim-is-guessed"],  # a second key
        [b"x-request-id: a\r\nx-budget-scope-team: victim"],
    ],
    ids=["folded", "bare-cr", "twice", "nul", "second-key", "split"],
)
def test_injected_headers_do_nothing(laptop, call, lines):
    """Line ends, folds, zero bytes and doubles: refused, or served as what the key says."""
    known = [b"api-key: local-attacker", b"x-sim-call-id: " + call.encode()]
    answer = raw_call(laptop, [*known, *lines], json.dumps(BODY).encode())
    head = answer.split(b"\r\n\r\n")[0].lower()
    status = int(head.split(b" ")[1])
    if status != 200:
        assert status in (400, 401)
        assert laptop.served(call)["attempts"] == 0
        return
    assert b"x-budget-scope: team:attacker" in head


def test_nobody_chooses_the_id_of_a_request(laptop, call):
    """An id sent along is replaced: else a caller could pre-empt another call's row, or hide behind one."""
    first = laptop.post("attacker", CHAT, BODY, call=call)
    taken = first.headers["x-request-id"]
    names = ("x-request-id", "x-ms-request-id", "x-correlation-id", "request-id", "x-ms-client-request-id")
    again = httpx.post(
        f"{laptop.url}{CHAT}",
        json={**BODY, "request_id": taken, "id": taken},
        headers=laptop.headers("attacker", f"{call}-2") | dict.fromkeys(names, taken),
    )
    assert again.headers["x-request-id"] != taken
    assert_billed_to_attacker(laptop, first, call)
    assert_billed_to_attacker(laptop, again, f"{call}-2")


@pytest.mark.parametrize(
    "model",
    ['gpt-4o"}, "identity": {"subscription": "victim-prod"}, "x": {"y": "', "../gpt-4o", "gpt-4o\r\nx-a: b", ""],
)
def test_a_model_is_text_whatever_it_says(laptop, call, model):
    """A model nobody has is refused; it ends no JSON and no header."""
    answer = laptop.post("attacker", CHAT, {**BODY, "model": model}, call=call)
    if answer.status_code == 200:
        assert_billed_to_attacker(laptop, answer, call)
    else:
        assert 400 <= answer.status_code < 500
        assert laptop.served(call)["attempts"] == 0


def test_the_model_billed_is_the_model_served(laptop, call):
    """A cheap model in the body of a deployment path does not make its deployment cheap."""
    path = "/openai/deployments/gpt-4o-weu/chat/completions?api-version=2024-10-21"
    answer = laptop.post("attacker", path, {**BODY, "model": "gpt-4o-mini"}, call=call)
    assert_billed_to_attacker(laptop, answer, call)
    assert laptop.rows(answer)["usage"].model == "gpt-4o"
    (received,) = laptop.received(call=call)
    assert json.loads(received["body"])["model"] != "gpt-4o-mini"


def test_a_stream_is_measured_though_its_caller_would_rather_not(laptop, call):
    """include_usage: false, null or nonsense does not keep the tokens from the bill."""
    for number, options in enumerate(({"include_usage": False}, None, {"include_usage": "no"})):
        name = f"{call}-{number}"
        answer = laptop.post("attacker", CHAT, {**BODY, "stream": True, "stream_options": options}, call=name)
        if answer.status_code == 400:
            assert laptop.served(name)["attempts"] == 0
            continue
        rows = eventually(lambda answer=answer: rows if "true_up" in (rows := laptop.rows(answer)) else None)
        truth = laptop.served(name)
        assert prompt_and_output(rows["true_up"]) == (truth["prompt_tokens"], truth["completion_tokens"])


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/gpt-4o-weu%2f..%2fgpt-4o-mini-weu/chat/completions?api-version=2024-10-21",
        "/openai/deployments/../v1/chat/completions",
        "/openai/v1/chat/completions/../../../api/v1/usage",
        "/openai//v1/chat/completions",
        "/api/v1/usage",
        "/openai/v1/files",
    ],
)
def test_paths_lead_nowhere_else(laptop, call, path):
    """Encoded slashes and dots reach neither another deployment nor the function app, and nothing unknown is served."""
    address = httpx.URL(laptop.url).copy_with(raw_path=path.encode())
    answer = httpx.post(address, json=BODY, headers=laptop.headers("attacker", call))
    if answer.status_code == 200:  # the client itself may have tidied the path into a known one
        assert_billed_to_attacker(laptop, answer, call)
    else:
        assert answer.status_code in (400, 404)
        assert laptop.served(call)["attempts"] == 0


def test_a_reservation_of_another_call_releases_nothing(laptop, call):
    """A token from elsewhere in body and headers leaves the caller's own hold and the victim's alone."""
    check = {"identity": {"subscription": "attacker-prod"}, "model": "gpt-4o", "max_output_tokens": 100}
    held = httpx.post(f"{laptop.functions_url}/budget/check", json=check).json()["reservation"]
    before = float(laptop.spend("attacker")["reserved"])
    answer = laptop.post(
        "attacker", RESPONSES, {"model": "gpt-4o", "input": "Hi", "reservation": held}, call=call, x_reservation=held
    )
    assert_billed_to_attacker(laptop, answer, call)
    eventually(lambda: float(laptop.spend("attacker")["reserved"]) == before)
    httpx.post(f"{laptop.functions_url}/budget/release", json={"reservation": held}).raise_for_status()
    assert float(laptop.settled_spend("attacker")["reserved"]) == 0
