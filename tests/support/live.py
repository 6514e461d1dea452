"""A running copy on this machine that `make verify` takes for a live system.

    with start_gateway(laptop, LlmLog(messages=True)) as gateway, arm_stub(gateway) as arm:
        results = measured(live_system(laptop, gateway.url, arm), "f")

The gateway is the policy runner, on a thread, so that a test can have several and each differ in one way; everything
behind it is the laptop's. Of Azure Resource Manager there are the few resources that verify reads and changes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from azure.data.tables import TableClient
from azure.eventhub import EventHubConsumerClient

from local.apim.expressions import ExpressionHost
from local.apim.laptop import laptop_environment
from local.apim.loading import load_policy
from local.apim.runner import Runner
from local.apim.settings import POLICIES, LlmLog, RunnerOptions
from local.entra import Issuer
from local.options import gateway_keys, subscription_of
from scripts.azure.arm import Arm
from scripts.azure.verify.calls import Caller, planned_calls
from scripts.azure.verify.hubs import LLM_LOGS, USAGE, EventHubs
from scripts.azure.verify.ledger import TABLE, rows_from
from scripts.azure.verify.observe import Patience, System
from scripts.azure.verify.probe import Result
from scripts.azure.verify.run import verify, wanted_points
from tests.support.azure_stub import Sleeps, Tokens
from tests.support.http_server import Reply, Request, serving
from tests.support.laptop import Laptop

GROUP = "/subscriptions/0/resourceGroups/rg/providers"
GATEWAY_ID = f"{GROUP}/Microsoft.ApiManagement/service/apim"
NAMESPACE_ID = f"{GROUP}/Microsoft.EventHub/namespaces/logs"
TEAM, APP = "rich", "11111111-0000-4000-8000-000000000001"
DEPLOYMENT = "gpt-4o-mini-weu"
SCOPE_TYPE = "session"
WORD = "tk-verify-canary"
PATIENCE = Patience(
    events=30, log=30, late_records=0.5, ledger=30, poll=0.1, progress=5, change=15, change_poll=0.1, keyless=0.5
)
# What makes the simulated model behave as a real one: it takes its time between chunks, and repeats when asked to.
AS_A_MODEL = {"x-sim-chunk-ms": "30", "x-sim-echo": "1", "x-sim-output-tokens": "160"}

Alter = Callable[[dict[str, Any]], dict[str, Any] | None]


class LocalGateway:
    """The policy runner on a thread of its own, which can be given other named values while it runs."""

    def __init__(self, options: RunnerOptions, alter: Alter | None) -> None:
        self.named_values = dict(options.named_values)
        self.backends: dict[str, Any] = dict(options.backends)
        self._policies = options.policies
        self._runner = Runner(RunnerOptions(**{**vars(options), "backends": self.backends}))
        self._alter = alter
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30), "the policy runner did not start"

    @property
    def url(self) -> str:
        """Base URL."""
        return self._runner.url

    def change(self, name: str, value: str) -> None:
        """Another value of a named value; rate counters go on. Raises PolicyError, as a save would be refused."""
        policy = load_policy(self._policies, {**self.named_values, name: value})
        self.named_values[name] = value

        async def load() -> None:
            gateway = self._runner.gateway
            old, before = gateway.host, gateway.policy.compiled
            assert policy.compiled is not None
            assert before is not None
            assert old is not None
            if policy.compiled.assembly_path == before.assembly_path:  # it stands in no expression
                gateway.policy = policy
                return
            host = ExpressionHost(policy.compiled)
            await host.start()
            gateway.policy, gateway.host = policy, host
            await old.close()

        asyncio.run_coroutine_threadsafe(load(), self._loop).result(30)

    def stop(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> None:
        async with self._runner.serve():
            log = self._runner.gateway.llm_log
            if log is not None and self._alter is not None:
                publish, alter = log._publish, self._alter

                async def publish_altered(message: bytes) -> None:
                    records = [alter(record) for record in json.loads(message)["records"]]
                    await publish(json.dumps({"records": [record for record in records if record]}).encode())

                log._publish = publish_altered
            self._ready.set()
            await self._stop.wait()


@contextmanager
def start_gateway(
    laptop: Laptop,
    llm_log: LlmLog | None = None,
    *,
    policies: Path = POLICIES,
    alter: Alter | None = None,
    **named_values: str,
) -> Iterator[LocalGateway]:
    """A gateway before the laptop's parts. `alter` rewrites records of the LLM log; None leaves one out."""
    settings = laptop_environment(
        laptop.stack.config, laptop.functions_url, laptop.model_url, Issuer(laptop.stack.entra_url or "")
    )
    given = {name.replace("_", "-"): value for name, value in named_values.items()}
    options = RunnerOptions(
        service_url=f"{laptop.model_url}/openai",
        policies=policies,
        named_values=json.loads(settings["APIM_NAMED_VALUES"]) | given,
        backends=json.loads(settings["APIM_BACKENDS"]),
        hub_connection=laptop.hub_connection,
        subscriptions=gateway_keys(laptop.stack.config),
        llm_log=llm_log or LlmLog(delay_seconds=0.2),
    )
    gateway = LocalGateway(options, alter)
    try:
        yield gateway
    finally:
        gateway.stop()


def edited_policies(directory: Path, edits: Mapping[str, tuple[str, str]]) -> Path:
    """A copy of the project's policies in which a text of each named file is another."""
    copy = Path(shutil.copytree(POLICIES, directory / "policies"))
    for file, (old, new) in edits.items():
        text = (copy / file).read_text()
        assert old in text, f"{file} has no {old!r} any more"
        (copy / file).write_text(text.replace(old, new))
    return copy


@dataclass
class Resources:
    """What Azure Resource Manager would hold. A test changes it, verify too."""

    key: str
    gateway: LocalGateway | None = None  # None: nothing can be changed
    named_values: dict[str, str] = field(default_factory=dict)
    diagnostic_settings: list[dict[str, Any]] = field(default_factory=lambda: [_diagnostic_setting()])
    api_diagnostic: dict[str, Any] = field(
        default_factory=lambda: {"properties": {"largeLanguageModel": {"logs": "enabled"}}}
    )
    local_auth_disabled: bool = False
    saves: int = 0
    changes: list[tuple[str, str]] = field(default_factory=list)  # what was set to what, in that order
    policies: Path = POLICIES

    def get(self, path: str) -> Any:
        """The answer to a GET; KeyError when there is no such resource."""
        if path == NAMESPACE_ID:
            return {"properties": {"disableLocalAuth": self.local_auth_disabled}}
        area, _, name = path.removeprefix(f"{GATEWAY_ID}/").partition("/")
        if area == "providers":
            return {"value": self.diagnostic_settings}
        if area == "namedValues":
            listed = {each: _named_value(each, value) for each, value in self.named_values.items()}
            return listed[name] if name else {"value": list(listed.values())}
        if area == "policyFragments":
            if not name:
                return {"value": [{"name": each.stem} for each in (self.policies / "fragments").glob("*.xml")]}
            return {"properties": {"value": (self.policies / "fragments" / f"{name}.xml").read_text()}}
        if path.endswith("/apis/openai/policies/policy"):
            sections = ("inbound", "backend", "outbound", "on-error")
            return {"properties": {"value": "".join((self.policies / f"{s}-policy.xml").read_text() for s in sections)}}
        if path.endswith("/diagnostics/azuremonitor"):
            return self.api_diagnostic
        raise KeyError(path)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """What a PUT does."""
        assert self.gateway is not None, "this run was to change nothing"
        area, _, name = path.removeprefix(f"{GATEWAY_ID}/").partition("/")
        if area == "backends":
            self.gateway.backends[name] = body["properties"]["url"].replace("https://", "http://")
        elif path.endswith("/policies/policy"):
            self.saves += 1
            self.gateway.change("tk-rate-calls", self.named_values["tk-rate-calls"])
        else:
            raise KeyError(path)
        return body

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """What a PATCH does: of a named value, and of the namespace of the LLM log."""
        assert self.gateway is not None, "this run was to change nothing"
        if path == NAMESPACE_ID:
            self.local_auth_disabled = body["properties"]["disableLocalAuth"]
            self.changes.append(("disableLocalAuth", str(self.local_auth_disabled)))
            return body
        name, value = path.removeprefix(f"{GATEWAY_ID}/namedValues/"), body["properties"]["value"]
        self.gateway.change(name, value)
        self.named_values[name] = value
        self.changes.append((name, value))
        return body

    def delete(self, path: str) -> None:
        """What a DELETE does."""
        assert self.gateway is not None
        del self.gateway.backends[path.rpartition("/")[2]]


def resources_of(laptop: Laptop, gateway: LocalGateway | None = None, **changed: Any) -> Resources:
    """The resources of a gateway, in front of the laptop's parts."""
    defaults = {
        each["name"]: str(each["default"]) for each in yaml.safe_load((POLICIES / "named-values.yaml").read_text())
    }
    values = defaults | (gateway.named_values if gateway else {})
    return Resources(key=f"local-{TEAM}", gateway=gateway, named_values=values, **changed)


@contextmanager
def serve_arm(resources: Resources) -> Iterator[Arm]:
    """The project's own client, before a server that holds these resources."""

    def answer(request: Request) -> Reply:
        try:
            return Reply(_done(resources, request) or {})
        except (KeyError, FileNotFoundError) as error:
            return Reply({"error": {"code": "ResourceNotFound", "message": str(error)}}, 404)

    with serving(answer) as port, Arm(Tokens(), f"http://127.0.0.1:{port}", sleep=Sleeps()) as arm:
        yield arm


def _done(resources: Resources, request: Request) -> Any:
    match request.method:
        case "GET":
            return resources.get(request.path)
        case "PUT":
            return resources.put(request.path, request.json())
        case "PATCH":
            return resources.patch(request.path, request.json())
        case "POST":
            return {"primaryKey": resources.key} if request.path.endswith("/listSecrets") else {}
        case "DELETE":
            # API Management deletes nothing without a word on which version is meant.
            assert request.headers.get("if-match"), request.path
            return resources.delete(request.path)


def live_system(laptop: Laptop, url: str, arm: Arm, say: Callable[[str], None] = print, **headers: str) -> System:
    """The system as verify sees it; further headers for the simulated model by keyword."""
    given = AS_A_MODEL | {name.replace("_", "-"): value for name, value in headers.items()}
    table = TableClient.from_connection_string(laptop.storage_connection, TABLE)
    return System(
        caller=Caller(url, f"local-{TEAM}", headers=given),
        calls=planned_calls(DEPLOYMENT, WORD, SCOPE_TYPE, 2_097_152),
        hubs=EventHubs(
            {
                hub: EventHubConsumerClient.from_connection_string(laptop.hub_connection, "verify", eventhub_name=name)
                for hub, name in ((USAGE, "usage"), (LLM_LOGS, "llm-logs"))
            }
        ),
        arm=arm,
        read_rows=rows_from(table),
        gateway_id=GATEWAY_ID,
        namespace_id=NAMESPACE_ID,
        subscription=subscription_of(laptop.stack.config, TEAM) or "",
        word=WORD,
        scope_type=SCOPE_TYPE,
        token=lambda audience: laptop.token(azp=APP, aud=audience),
        patience=PATIENCE,
        say=say,
    )


def measured(system: System, points: str = "", *, disturb: bool = False) -> Mapping[str, Result]:
    """The results by point."""
    results, _ = verify(system, wanted_points([each for each in points.split(",") if each]), disturb=disturb)
    return {result.point.id: result for result in results}


def _named_value(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "properties": {"displayName": name, "value": value, "secret": False}}


def _diagnostic_setting() -> dict[str, Any]:
    logs = [{"category": category, "enabled": True} for category in ("GatewayLlmLogs", "GatewayLogs")]
    rule = f"{NAMESPACE_ID}/authorizationRules/azure-monitor"
    return {"name": "llm-logs", "properties": {"eventHubAuthorizationRuleId": rule, "logs": logs}}
