"""Ask a deployed system what would cost most to have wrong: who gets in, is it healthy, does a call go through.

make smoke ENV=dev

SMOKE_MODEL=m   the model to call, instead of the first that is deployed
SMOKE_KEY=k     a team's key for the built-in gateway, to call it where there is no API Management
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from azure.core.credentials import TokenCredential

from scripts.azure.arm import Arm, ArmError, Bearer
from scripts.azure.credential import open_credential
from scripts.azure.finding import Finding, report
from scripts.azure.gateway import subscription_key
from scripts.azure.terraform import ROOT, Terraform, TerraformError
from shared.config.loader import load_config
from shared.config.model import Config
from shared.config.source import DirectorySource

CHAT = "/openai/v1/chat/completions"
DASHBOARD = "/dashboard"
_OF_THE_HOST = (("GET", "/"), ("GET", "/admin/host/status"), ("GET", "/runtime/webhooks/none"))
_START_SECONDS = 300  # a fresh app loads its package and its configuration first
_POLL_SECONDS = 5.0
_CALL_TRIES = 7  # a gateway may go by the enforcement of the deployment for a minute, and its first check meet a start
_CALL_SECONDS = 10.0


class Chosen(msgspec.Struct, frozen=True):
    """What an environment's values say that decides which answer is right."""

    public_health: bool = False
    enforcement: str = "on"
    unfinished: str | None = None  # what is to be done before a call can be decided

    @property
    def public(self) -> tuple[str, ...]:
        """Routes that need no token: the dashboard's page, which holds no data, and by choice /health."""
        return (DASHBOARD, "/health") if self.public_health else (DASHBOARD,)


CHOSEN = {
    "public_health": "var.public_health",
    "enforcement": 'lookup(var.named_values, "tk-enforcement", var.generated_named_values["tk-enforcement"])',
}


def read_chosen(terraform: Terraform) -> Chosen:
    """The environment's. After a first deployment no gateway has Budget.Check yet, because its identity is as new."""
    registrations = terraform.registrations
    is_first = registrations is not None and not registrations.gateways
    unfinished = f"run make entra ENV={terraform.environment}, then make smoke ENV={terraform.environment}"
    values = terraform.evaluate(CHOSEN)
    return msgspec.convert(values | {"unfinished": unfinished if is_first else None}, Chosen)


_LIST_ROUTES = """
import json, function_app
functions = [function.get_dict_repr() for function in function_app.app.get_functions()]
bindings = [binding for function in functions for binding in function["bindings"]]
routes = [(binding["route"], binding["methods"]) for binding in bindings if binding["type"] == "httpTrigger"]
print(json.dumps([(getattr(method, "value", method), route) for route, methods in routes for method in methods]))
"""


@cache
def routes() -> list[tuple[str, str]]:
    """Method and path below the prefix of every route of this checkout, from the app itself.

    It is loaded in a process of its own, as for development, because it reads the environment when it is imported.
    """
    done = subprocess.run(  # noqa: S603 - no shell, our own words
        [sys.executable, "-c", _LIST_ROUTES],
        cwd=ROOT,
        env={**os.environ, "TOLLKEEPER_ENV": "development"},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted((method, _address(route)) for method, route in json.loads(done.stdout))


def _address(route: str) -> str:
    return "/" + "/".join("none" if part.startswith("{") else part for part in route.split("/"))


def check_anonymous(functions_url: str, public: Collection[str]) -> Iterator[Finding]:
    """Nobody without a token gets past the platform, whatever the app itself would say, but to the `public` routes."""
    host = "{0.scheme}://{0.netloc}".format(urlsplit(functions_url))
    asked = [(method, f"{functions_url}{path}") for method, path in routes() if path not in public]
    asked += [(method, f"{host}{path}") for method, path in _OF_THE_HOST]
    let_in, closed = [], 0
    with httpx.Client(timeout=60) as client:
        for method, url in asked:
            answer = client.request(method, url)
            if answer.status_code == HTTPStatus.FORBIDDEN:
                closed += 1
            elif answer.status_code != HTTPStatus.UNAUTHORIZED:
                let_in.append(f"{method} {urlsplit(url).path} answers {answer.status_code}")
    if let_in:
        yield Finding("FAIL", f"anonymous callers get in, switch the platform's authentication on: {'; '.join(let_in)}")
    elif closed == len(asked):
        yield Finding("warn", "the app is closed to this address, so its authentication is not tested: run this inside")
    elif closed:
        yield Finding("FAIL", f"{closed} of {len(asked)} routes answer 403 to anonymous callers instead of 401")
    else:
        yield Finding("ok", f"anonymous callers get 401 on all {len(asked)} routes")


def check_dashboard(functions_url: str) -> Iterator[Finding]:
    """People who are not signed in yet get the page, from which they sign in, and it keeps to its own content."""
    answer = httpx.get(f"{functions_url}{DASHBOARD}", timeout=60)
    kind, policy = answer.headers.get("content-type", ""), answer.headers.get("content-security-policy", "")
    if answer.status_code == HTTPStatus.FORBIDDEN:
        yield Finding("warn", f"{DASHBOARD} is not reachable from this address, so it is not tested: run this inside")
    elif answer.status_code == HTTPStatus.UNAUTHORIZED:
        yield Finding("FAIL", f"{DASHBOARD} asks for a token, so nobody can sign in from it: see excludedPaths")
    elif not (answer.status_code == HTTPStatus.OK and kind.startswith("text/html")):
        yield Finding("FAIL", f"{DASHBOARD} answers {answer.status_code} {kind} instead of its page")
    elif "default-src 'none'" not in policy:
        yield Finding("FAIL", f"{DASHBOARD} comes without its Content-Security-Policy: {policy or 'there is none'}")
    else:
        yield Finding("ok", f"{DASHBOARD} is there for people to sign in")


def check_health(
    functions_url: str,
    audience: str,
    credential: TokenCredential,
    *,
    sleep: Callable[[float], None] = time.sleep,
    patience_seconds: float = _START_SECONDS,
) -> Iterator[Finding]:
    """With a token, /health is 200 within the time that a start takes."""
    deadline = time.monotonic() + patience_seconds
    with httpx.Client(timeout=60, auth=Bearer(credential, f"{audience}/.default")) as client:
        while True:
            try:
                answer = client.get(f"{functions_url}/health")
            except ArmError as error:
                yield Finding("FAIL", f"no token for {audience} (make entra gives app roles): {error}")
                return
            if answer.is_success:
                yield Finding(
                    "ok", f"/health: configuration {str(answer.json().get('config_version'))[:12]} is in force"
                )
                return
            if answer.status_code == HTTPStatus.UNAUTHORIZED:
                yield Finding("FAIL", f"/health refuses this caller's token for {audience}: {answer.text[:200]}")
                return
            if answer.status_code == HTTPStatus.FORBIDDEN:
                yield Finding(
                    "warn", "/health is not reachable from this address, so it is not tested: run this inside"
                )
                return
            if time.monotonic() >= deadline:
                yield Finding("FAIL", f"/health answers {answer.status_code}: {answer.text[:500]}")
                return
            sleep(_POLL_SECONDS)


def check_builtin(
    url: str, *, sleep: Callable[[float], None] = time.sleep, patience_seconds: float = _START_SECONDS
) -> Iterator[Finding]:
    """The built-in gateway serves within the time that a start takes, and knows nobody without a key or a token."""
    deadline = time.monotonic() + patience_seconds
    with httpx.Client(base_url=url, timeout=60) as client:
        answered = (HTTPStatus.OK, HTTPStatus.FORBIDDEN)
        try:
            while (health := client.get("/health")).status_code not in answered and time.monotonic() < deadline:
                sleep(_POLL_SECONDS)
        except httpx.ConnectError:
            yield Finding("warn", f"{url} is not found from here, so it is not tested: run this inside the network")
            return
        if health.status_code == HTTPStatus.FORBIDDEN:
            yield Finding("warn", "the built-in gateway does not take this address, so it is not tested")
            return
        if not health.is_success:
            yield Finding("FAIL", f"the built-in gateway answers {health.status_code} on /health: look at its log")
            return
        if (status := health.json().get("status")) != "ok":
            yield Finding("warn", f"the built-in gateway serves, and its events wait for the hub ({status})")
        asked = [client.get("/v1/models"), client.post("/v1/chat/completions", json={}, headers={"api-key": "none"})]
    let_in = [answer for answer in asked if answer.status_code != HTTPStatus.UNAUTHORIZED]
    if let_in:
        told = ", ".join(f"{answer.request.url.path} {answer.status_code}" for answer in let_in)
        yield Finding("FAIL", f"the built-in gateway answers callers whom it does not know: {told}")
    else:
        yield Finding("ok", "the built-in gateway serves, and answers 401 to callers whom it does not know")


def check_secrets(arm: Arm, outputs: Mapping[str, Any]) -> Iterator[Finding]:
    """What the app reads from Key Vault it could read. A refusal at its first start stays until it looks again."""
    site = site_id(outputs)
    path = f"{site}/config/configreferences/appsettings"
    away = {
        reference["id"].rsplit("/", 1)[1]: reference["properties"].get("status")
        for reference in arm.get_all(path, "2024-11-01")
        if reference["properties"].get("status") != "Resolved"
    }
    if away:
        told = ", ".join(f"{name} ({status})" for name, status in away.items())
        command = f"az rest --method post --url 'https://management.azure.com{path}/refresh?api-version=2024-11-01'"
        yield Finding("FAIL", f"not read from Key Vault: {told}; once the role has arrived: {command}")
    else:
        yield Finding("ok", "the app reads its secrets from Key Vault")


def site_id(outputs: Mapping[str, Any]) -> str:
    """The function app, for ARM."""
    group = f"/subscriptions/{outputs['AZURE_SUBSCRIPTION_ID']}/resourceGroups/{outputs['AZURE_RESOURCE_GROUP']}"
    return f"{group}/providers/Microsoft.Web/sites/{outputs['FUNCTIONS_NAME']}"


def check_call(
    arm: Arm,
    outputs: Mapping[str, Any],
    config: Config,
    enforcement: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Finding]:
    """One call of a few tokens, as a team's client makes it, is decided, served and labelled."""
    team, subscription = next(((team, ids[0]) for team, ids in outputs["SUBSCRIPTIONS"].items() if ids), ("", ""))
    model = smoke_model(config, outputs["MODEL_DEPLOYMENTS"])
    if not subscription or model is None:
        yield Finding("warn", "no call through the gateway: the configuration has no subscription or no chat model")
        return
    key = subscription_key(arm, outputs["GATEWAY_ID"], subscription)
    is_enforced = {enforcement, config.tenants[config.teams[team].tenant].enforcement} == {"on"}
    asked = f"a call of {model} by subscription {subscription}"
    why = "is the app reachable for API Management, and has its identity Budget.Check (make entra)?"
    yield from _judge_call(outputs["GATEWAY_URL"], model, key, asked, why, is_enforced=is_enforced, sleep=sleep)


def check_builtin_call(
    url: str, config: Config, deployments: list[str], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Finding]:
    """The same through the built-in gateway, where callers have no other. Its keys are known to their owners alone."""
    key, model = os.environ.get("SMOKE_KEY", ""), smoke_model(config, deployments)
    if not key or model is None:
        yield Finding("warn", "no call through the built-in gateway: SMOKE_KEY is not set, or there is no chat model")
        return
    is_enforced = {tenant.enforcement for tenant in config.tenants.values()} == {"on"}  # the key's own is not known
    asked, why = f"a call of {model} by SMOKE_KEY", "is Redis reachable for the built-in gateway? Look at its log"
    yield from _judge_call(url, model, key, asked, why, is_enforced=is_enforced, sleep=sleep)


def _judge_call(
    url: str, model: str, key: str, asked: str, why: str, *, is_enforced: bool, sleep: Callable[[float], None]
) -> Iterator[Finding]:
    """`asked` names the call, `why` what to look at where nobody decided on it."""
    for attempt in range(_CALL_TRIES):
        answer = _call(url, model, key)
        if not is_enforced or "x-budget-state" in answer.headers or answer.is_client_error:
            break
        if attempt < _CALL_TRIES - 1:
            sleep(_CALL_SECONDS)
    if not answer.is_success:
        yield Finding("FAIL", f"{asked} answers {answer.status_code}: {answer.text[:500]}")
    elif "x-budget-state" in answer.headers:
        yield Finding("ok", f"{asked} passed, budget {answer.headers['x-budget-state']}")
    elif not is_enforced:
        yield Finding("warn", f"{asked} passed undecided, because enforcement is not on for it")
    else:
        yield Finding("FAIL", f"{asked} passed undecided: {why}")


def _call(gateway: str, model: str, key: str) -> httpx.Response:
    # A model that thinks first may answer 400 where it cannot finish.
    body = {"model": model, "messages": [{"role": "user", "content": "Say yes."}], "max_completion_tokens": 500}
    return httpx.post(f"{gateway}{CHAT}", json=body, headers={"api-key": key}, timeout=120)


def smoke_model(config: Config, deployments: list[str]) -> str | None:
    """SMOKE_MODEL, else the first chat model of the configuration that one of the deployments serves."""
    if chosen := os.environ.get("SMOKE_MODEL"):
        return chosen
    chat = [model for model in config.models.values() if "chat" in model.capabilities]
    here = [model for model in chat if not deployments or set(deployments) & set(model.served_by)]
    return here[0].id if here else None


def smoke(
    arm: Arm,
    outputs: Mapping[str, Any],
    credential: TokenCredential,
    config: Config,
    chosen: Chosen,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Finding]:
    """Every question, in the order in which a wrong answer explains the next one."""
    app, audience = outputs["FUNCTIONS_URL"], outputs["FUNCTIONS_AUDIENCE"]
    yield from _reached(lambda: check_secrets(arm, outputs), "what the app reads from Key Vault")
    yield from _reached(lambda: check_health(app, audience, credential, sleep=sleep), "the function app")
    yield from _reached(lambda: check_anonymous(app, chosen.public), "the function app")
    yield from _reached(lambda: check_dashboard(app), "the function app")
    if builtin := outputs.get("BUILTIN_GATEWAY_URL"):
        yield from _reached(lambda: check_builtin(builtin, sleep=sleep), "the built-in gateway")
    if not outputs.get("GATEWAY_ID"):
        yield from _call_without_api_management(builtin, config, outputs["MODEL_DEPLOYMENTS"], sleep)
        return
    if chosen.unfinished:
        yield Finding("warn", f"roles: the gateway has no Budget.Check, so no call is tested: {chosen.unfinished}")
        return
    yield from _reached(lambda: check_call(arm, outputs, config, chosen.enforcement, sleep=sleep), "the gateway")


def _call_without_api_management(
    builtin: str | None, config: Config, deployments: list[str], sleep: Callable[[float], None]
) -> Iterator[Finding]:
    if not builtin:
        yield Finding("warn", "no gateway is deployed here, so no call is tested")
        return
    yield from _reached(lambda: check_builtin_call(builtin, config, deployments, sleep=sleep), "the built-in gateway")


def read_config() -> Config:
    """The configuration of this checkout, or of CONFIG_DIR. Raises ConfigInvalid."""
    directory = os.environ.get("CONFIG_DIR", str(ROOT / "config"))
    return load_config(DirectorySource(directory).read(), directory)


def _reached(check: Callable[[], Iterator[Finding]], what: str) -> Iterator[Finding]:
    try:
        yield from check()
    except httpx.TransportError as error:
        yield Finding("FAIL", f"{what} cannot be reached from here: {error}")
    except ArmError as error:
        yield Finding("FAIL", f"{what} is not tested: {error}")


def main(arguments: list[str]) -> int:
    """Print what was found; 0 when nothing failed."""
    if len(arguments) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        with Terraform(arguments[0]) as terraform:
            outputs = terraform.outputs()
            chosen = read_chosen(terraform)
    except TerraformError as error:
        sys.stderr.write(f"smoke: {error}\n")
        return 1
    if not outputs:
        sys.stderr.write(f"smoke: nothing is deployed: run make deploy ENV={arguments[0]} first\n")
        return 1
    credential = open_credential()
    with Arm(credential) as arm:
        return 0 if report(smoke(arm, outputs, credential, read_config(), chosen)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
