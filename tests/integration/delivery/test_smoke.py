"""The smoke test finds what it is for, over HTTP against a stub of a function app and a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from functions.dashboard_page.page import dashboard_page
from scripts.azure import smoke as smoke_module
from scripts.azure.arm import Arm
from scripts.azure.smoke import Chosen, check_health, routes, smoke, smoke_model
from shared.config.loader import load_config
from shared.config.model import Config
from shared.config.source import DirectorySource
from tests.support.azure_stub import AzureStub, NotSignedIn, Reply, Sleeps, Tokens

GATEWAY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ApiManagement/service/apim"
SECRETS = f"{GATEWAY}/subscriptions/search-prod/listSecrets"
AUDIENCE = "api://11111111-1111-1111-1111-111111111111"
CHAT = "/openai/v1/chat/completions"
PREFIX = "/api/v1"
PAGE = Reply(dashboard_page().html.decode(), headers={**dashboard_page().headers, "Content-Type": "text/html"})
REFERENCES = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/func/config/configreferences/appsettings"


@pytest.fixture(scope="module")
def config() -> Config:
    """The configuration of the checkout."""
    return load_config(DirectorySource(Path(__file__).parents[3] / "config").read())


@pytest.fixture
def outputs(azure: AzureStub) -> dict[str, Any]:
    """A deployment that is as it should be."""
    refused = Reply("You do not have permission", 401)
    for method, path in routes():
        azure.on(method, f"{PREFIX}{path}", refused)
    for method, path in smoke_module._OF_THE_HOST:
        azure.on(method, path, refused)
    azure.on("GET", f"{PREFIX}/dashboard", PAGE)
    azure.on("GET", f"{PREFIX}/health", Reply({"config_version": "abcdef0123456789"}), refused)  # with a token, without
    azure.on("GET", REFERENCES, Reply({"value": [reference("Resolved")]}))
    azure.on("POST", SECRETS, Reply({"primaryKey": "key-of-search", "secondaryKey": "other"}))
    azure.on("POST", CHAT, Reply({"choices": []}, headers={"x-budget-state": "ok"}))
    return {
        "AZURE_SUBSCRIPTION_ID": "s",
        "AZURE_RESOURCE_GROUP": "g",
        "FUNCTIONS_NAME": "func",
        "FUNCTIONS_URL": f"{azure.url}{PREFIX}",
        "FUNCTIONS_AUDIENCE": AUDIENCE,
        "GATEWAY_URL": azure.url,
        "GATEWAY_ID": GATEWAY,
        "MODEL_DEPLOYMENTS": ["text-embedding-3-small-weu", "gpt-4o-mini-weu"],
        "SUBSCRIPTIONS": {"research": [], "search": ["search-prod"]},
    }


def reference(status: str) -> dict[str, Any]:
    """A reference to Key Vault as ARM lists it."""
    return {"id": f"{REFERENCES}/RESERVATION_KEYS", "name": "RESERVATION_KEYS", "properties": {"status": status}}


def found(arm: Arm, outputs: dict[str, Any], tokens: Tokens, config: Config, chosen: Chosen | None = None) -> list[str]:
    """The report's lines."""
    findings = smoke(arm, outputs, tokens, config, chosen or Chosen(), sleep=Sleeps())
    return [str(line) for line in findings]


def test_a_good_deployment_has_nothing_to_report(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """Every route refuses the anonymous; a token and a key of a team get through."""
    lines = found(arm, outputs, tokens, config)
    assert [line[:4] for line in lines] == ["ok  "] * 5
    asked = {(request.method, request.path) for request in azure.requests if "authorization" not in request.headers}
    assert {(method, f"{PREFIX}{path}") for method, path in routes()} <= asked
    (call,) = azure.to("POST", CHAT)
    assert call.headers["api-key"] == "key-of-search"
    assert call.json()["model"] == "gpt-4o-mini"
    (first,) = [r for r in azure.to("GET", f"{PREFIX}/health") if "authorization" in r.headers]
    assert first.headers["authorization"] == f"Bearer token for {AUDIENCE}/.default"


def test_every_route_of_the_app_is_asked() -> None:
    """The list is the app's own, so that a new door cannot be forgotten."""
    assert ("POST", "/budget/check") in routes()
    assert ("POST", "/dead-letters/replay") in routes()
    assert len(routes()) >= 14


@pytest.mark.parametrize("method_and_path", [("POST", f"{PREFIX}/budget/check"), ("GET", "/admin/host/status")])
def test_one_open_door_is_a_failure(
    azure: AzureStub,
    arm: Arm,
    tokens: Tokens,
    outputs: dict[str, Any],
    config: Config,
    method_and_path: tuple[str, str],
) -> None:
    """Even where the app behind it refuses: a 400 says that the platform let the caller in."""
    azure.on(*method_and_path, Reply(status=400))
    (line,) = [line for line in found(arm, outputs, tokens, config) if line.startswith("FAIL")]
    assert "{} {} answers 400".format(*method_and_path) in line


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply("You do not have permission", 401), "asks for a token"),
        (Reply({"error": {"code": "not_ready"}}, 503), "answers 503"),
        (Reply({"figures": []}), "answers 200 application/json"),
        (Reply("<!doctype html>", headers={"Content-Type": "text/html"}), "without its Content-Security-Policy"),
        (
            Reply(
                "<!doctype html>",
                headers={"Content-Type": "text/html", "Content-Security-Policy": "frame-ancestors 'self'"},
            ),
            "without its Content-Security-Policy",
        ),
    ],
)
def test_a_dashboard_that_nobody_can_open_or_that_may_load_anything_is_a_failure(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config, reply: Reply, words: str
) -> None:
    """Shut to people who are not signed in yet, another answer, or a page without the policy that pins its scripts."""
    azure.on("GET", f"{PREFIX}/dashboard", reply)
    (line,) = [line for line in found(arm, outputs, tokens, config) if line.startswith("FAIL")]
    assert line.startswith("FAIL  /dashboard")
    assert words in line


def test_an_app_that_is_closed_to_this_address_proves_nothing(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """403 everywhere is the firewall: a warning, not a pass; 403 on some routes only is a failure."""
    closed = Reply("Ip Forbidden", 403)
    azure.on("POST", f"{PREFIX}/usage", closed)
    assert [line[:4] for line in found(arm, outputs, tokens, config)] == ["ok  ", "ok  ", "FAIL", "ok  ", "ok  "]
    for method, path in [*((m, f"{PREFIX}{p}") for m, p in routes()), *smoke_module._OF_THE_HOST]:
        azure.on(method, path, closed)
    assert [line[:4] for line in found(arm, outputs, tokens, config)] == ["ok  ", "warn", "warn", "warn", "ok  "]


def test_a_start_is_waited_for_and_a_failure_is_not_for_ever(azure: AzureStub, tokens: Tokens, sleeps: Sleeps) -> None:
    """404 and 503 are what an app answers that loads its functions; after the patience they are the finding."""
    azure.on("GET", "/health", Reply(status=404), Reply(status=503), Reply({"config_version": "v"}))
    (line,) = check_health(azure.url, AUDIENCE, tokens, sleep=sleeps)
    assert line.state == "ok"
    azure.on("GET", "/health", Reply({"status": "not_ready"}, 503))
    (line,) = check_health(azure.url, AUDIENCE, tokens, sleep=sleeps, patience_seconds=0)
    assert (line.state, "not_ready" in line.what) == ("FAIL", True)


def test_a_refused_or_missing_token_is_told_with_its_audience(azure: AzureStub, tokens: Tokens) -> None:
    """A wrong audience in Easy Auth, or a caller without an app role."""
    azure.on("GET", "/health", Reply(status=401))
    (line,) = check_health(azure.url, AUDIENCE, tokens)
    assert (line.state, AUDIENCE in line.what) == ("FAIL", True)
    (line,) = check_health(azure.url, AUDIENCE, NotSignedIn())
    assert (line.state, "app role" in line.what) == ("FAIL", True)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply({"error": {"code": "subscription_unknown"}}, 401), "subscription_unknown"),
        (Reply({"choices": []}), "passed undecided"),
    ],
)
def test_a_call_that_is_refused_or_undecided_is_a_failure(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config, reply: Reply, words: str
) -> None:
    """A call that nobody decided on passed because of the fail mode: it would pass without a budget, too."""
    azure.on("POST", CHAT, reply)
    assert words in found(arm, outputs, tokens, config)[-1]


def test_parts_that_cannot_be_reached_do_not_hide_the_others(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """Each question is asked, whatever became of the one before."""
    outputs |= {"FUNCTIONS_URL": "http://127.0.0.1:9/api/v1"}
    assert [line[:4] for line in found(arm, outputs, tokens, config)] == ["ok  ", "FAIL", "FAIL", "FAIL", "ok  "]
    azure.on("GET", REFERENCES, Reply({"value": [reference("Resolved")]}))
    azure.on("POST", SECRETS, Reply({"error": {"code": "AuthorizationFailed", "message": "no"}}, 403))
    assert "AuthorizationFailed" in found(arm, outputs, tokens, config)[-1]


def test_a_secret_that_the_app_could_not_read_is_told(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """The role came after the app's first start: it stays without its key until it is told to look again."""
    azure.on("GET", REFERENCES, Reply({"value": [reference("AccessToKeyVaultDenied")]}))
    line = found(arm, outputs, tokens, config)[0]
    assert line.startswith("FAIL  not read from Key Vault: RESERVATION_KEYS (AccessToKeyVaultDenied)")
    assert f"{REFERENCES}/refresh" in line


def test_a_gateway_that_still_goes_by_the_deployments_enforcement_is_given_a_minute(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """Undecided calls, and the 503 of a first check that meets a start, are asked again; a refusal is not."""
    decided = Reply({"choices": []}, headers={"x-budget-state": "active"})
    azure.on("POST", CHAT, Reply({"choices": []}), Reply({"error": {"code": "state_unavailable"}}, 503), decided)
    assert found(arm, outputs, tokens, config)[-1].endswith("passed, budget active")
    azure.on("POST", CHAT, Reply({"error": {"code": "budget_exhausted"}}, 402))
    azure.requests.clear()
    assert "budget_exhausted" in found(arm, outputs, tokens, config)[-1]
    assert len(azure.to("POST", CHAT)) == 1


def test_a_call_that_nobody_was_to_decide_on_is_no_failure(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """Enforcement is switched off in an emergency, or not yet on for the tenant: the deployment must get through."""
    azure.on("POST", CHAT, Reply({"choices": []}))
    last = found(arm, outputs, tokens, config, Chosen(enforcement="off"))[-1]
    assert last.startswith("warn")
    tenant = config.tenants[config.teams["search"].tenant]
    observed = {**config.tenants, tenant.id: msgspec.structs.replace(tenant, enforcement="observe")}
    watched = msgspec.structs.replace(config, tenants=observed)
    assert found(arm, outputs, tokens, watched)[-1].startswith("warn")


def test_a_gateway_that_cannot_have_its_role_yet_is_not_called(
    azure: AzureStub, arm: Arm, tokens: Tokens, outputs: dict[str, Any], config: Config
) -> None:
    """After a first deployment the call would fail, whatever the deployment is worth; the line says what is left."""
    lines = found(arm, outputs, tokens, config, Chosen(unfinished="run make entra ENV=dev"))
    assert [line[:4] for line in lines] == ["ok  ", "ok  ", "ok  ", "ok  ", "warn"]
    assert lines[-1].endswith("run make entra ENV=dev")
    assert azure.to("POST", CHAT) == []


@pytest.mark.parametrize(
    ("builtin", "key", "says"),
    [
        (True, "key-of-search", "ok    a call of gpt-4o-mini by SMOKE_KEY passed, budget active"),
        (True, "", "warn  no call through the built-in gateway: SMOKE_KEY is not set"),
        (False, "key-of-search", "warn  no gateway is deployed here"),
    ],
)
def test_without_api_management_the_built_in_gateway_is_called(
    azure: AzureStub,
    arm: Arm,
    tokens: Tokens,
    outputs: dict[str, Any],
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    builtin: bool,
    key: str,
    says: str,
) -> None:
    """By a key that its owner hands over, because no other place has it; nothing is asked of an API Management."""
    monkeypatch.setenv("SMOKE_KEY", key)
    azure.on("GET", "/health", Reply({"status": "ok"}))
    azure.on("GET", "/v1/models", Reply({}, 401))
    azure.on("POST", "/v1/chat/completions", Reply({}, 401))
    azure.on("POST", CHAT, Reply({"choices": []}, headers={"x-budget-state": "active"}))
    outputs |= {"GATEWAY_URL": "", "GATEWAY_ID": "", "BUILTIN_GATEWAY_URL": azure.url if builtin else ""}
    lines = found(arm, outputs, tokens, config, Chosen(unfinished="run make entra ENV=dev"))
    assert [line for line in lines[:-1] if not line.startswith("ok")] == []
    assert lines[-1].startswith(says)
    assert [call.headers["api-key"] for call in azure.to("POST", CHAT)] == ([key] if builtin and key else [])
    assert azure.to("POST", SECRETS) == []


def test_health_is_left_out_where_it_is_public_by_choice() -> None:
    """As infra/terraform's public_health says."""
    assert "/health" in Chosen(public_health=True).public
    assert "/health" not in Chosen().public


def test_a_model_is_served_by_the_deployment_of_its_name(config: Config) -> None:
    """Where the configuration lists no other; embeddings cannot chat."""
    assert smoke_model(config, ["text-embedding-3-small-weu", "gpt-5.4-mini"]) == "gpt-5.4-mini"
    assert smoke_model(config, ["text-embedding-3-small-weu"]) is None


@pytest.mark.parametrize(
    ("health", "models", "says"),
    [
        (Reply({"status": "ok"}), 401, "ok    the built-in gateway serves, and answers 401"),
        (
            Reply({"status": "ok"}),
            200,
            "FAIL  the built-in gateway answers callers whom it does not know: /v1/models 200",
        ),
        (Reply({"status": "full"}), 401, "warn  the built-in gateway serves, and its events wait for the hub (full)"),
        (Reply("no revision", 404), 401, "FAIL  the built-in gateway answers 404 on /health"),
        (Reply("RBAC: access denied", 403), 401, "warn  the built-in gateway does not take this address"),
    ],
)
def test_the_built_in_gateway_is_asked_where_there_is_one(
    azure: AzureStub, health: Reply, models: int, says: str
) -> None:
    """Whether it serves, whether its events get through, and whom it lets in."""
    azure.on("GET", "/health", health)
    azure.on("GET", "/v1/models", Reply({}, models))
    azure.on("POST", "/v1/chat/completions", Reply({}, 401))
    found = list(map(str, smoke_module.check_builtin(azure.url, sleep=Sleeps(), patience_seconds=0)))
    assert any(line.startswith(says) for line in found), found
