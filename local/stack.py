"""The processes of the laptop: started in order, watched, stopped in the reverse order."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from local.azurite import Azurite, start_azurite
from local.options import APIM, PROJECT, Options, gateway_keys, subscription_of, team_keys
from local.process import Process, ProcessFailedError, free_port, is_listening
from local.redis_server import RedisServer, start_redis
from shared.config.model import Config

if TYPE_CHECKING:
    from local.entra import Issuer

# Settings of some other deployment in the person's shell must not leak into the laptop's processes.
_FOREIGN_SETTINGS = (
    "CONFIG_URL",
    "REDIS_CLUSTER",
    "REDIS_ENTRA_ID",
    "EventHubs__fullyQualifiedNamespace",
    "LlmLogs__fullyQualifiedNamespace",
    "LEDGER_TABLES_ENDPOINT",
    "LEDGER_BLOBS_ENDPOINT",
    "WEBSITE_AUTH_ENABLED",
)
_FOR_COMMANDS = (
    "TOLLKEEPER_ENV",
    "CONFIG_DIR",
    "REDIS_URL",
    "EventHubs",
    "LlmLogs",
    "USAGE_HUB",
    "LLM_LOGS_HUB",
    "LEDGER_STORAGE",
)
_LOOPBACK_HOSTS = "127.0.0.1,localhost"
Report = Callable[[str], None]


def without_proxy(env: MutableMapping[str, str]) -> None:
    """Make an environment exempt loopback from any proxy: a proxy cannot reach this machine's 127.0.0.1."""
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, (env.get(name), _LOOPBACK_HOSTS)))


@dataclass
class Stack:
    """All parts of one running copy. `start` may raise; `stop` then still ends whatever was started."""

    options: Options
    config: Config
    report: Report
    processes: dict[str, Process] = field(default_factory=dict)
    model_url: str | None = None  # of the simulated model, when it runs
    entra_url: str | None = None  # of the simulated token issuer, when it runs
    settings: dict[str, str] = field(default_factory=dict)  # environment of the function app: where the parts are
    _azurite: Azurite | None = None
    _redis: RedisServer | None = None

    def start(self) -> None:
        """Start everything and wait until calls are answered. Raises PartMissingError or ProcessFailedError."""
        self._require_free_ports()
        if self.options.gateway == APIM:
            from local.apim.expressions import require_mono

            require_mono()  # before anything starts: whoever lacks it learns so at once
        self.options.logs.mkdir(parents=True, exist_ok=True)
        for log in self.options.logs.glob("*.log"):
            log.unlink()
        hub_port, model_port = free_port(), self.options.model_port or free_port()
        self._python("event hub", "local.eventhub", "--port", str(hub_port))
        if self.options.azure_endpoint is None:
            deployments = {name: model.id for model in self.config.models.values() for name in model.deployments}
            self._python("model", "local.model", "--port", str(model_port), "--deployments", json.dumps(deployments))
            self.model_url = f"http://127.0.0.1:{model_port}"
        issuer = self._start_issuer()  # early: the gateway reads its keys as soon as it starts
        self._azurite = start_azurite(log_path=self.options.logs / "azurite.log", report=self.report)
        self.processes["azurite"] = self._azurite.process
        self.report("storage        Azurite tables and blobs, in memory")
        self._redis = start_redis()
        self.processes["redis"] = self._redis.process
        self.report(f"counters       Valkey on {self._redis.url}")
        self._wait("event hub", lambda: is_listening(hub_port))
        self.report(f"event hub      AMQP on 127.0.0.1:{hub_port}")
        env = self.settings = self._environment(hub_port, issuer)
        self.start_functions()
        if self.options.gateway == APIM:
            self._start_policies(env, issuer)
        else:
            shutil.rmtree(env["SPOOL_DIR"], ignore_errors=True)  # of an earlier run, whose hub is gone
            self.start_gateway()
        if self.model_url is not None:
            self._wait("model", lambda: is_listening(model_port))
            self.report(f"model          simulated, on {self.model_url}")
        else:
            self.report(f"model          {self.options.azure_endpoint}")
        self._wait("entra", lambda: is_listening(urlsplit(issuer.url).port or 0))
        self.report(f"tokens         simulated Entra ID on {self.entra_url}")
        self._wait("functions", lambda: _answers(f"{self.options.functions_url}/health"), 60)
        self.report(f"function app   {self.options.functions_url}")
        self._wait("gateway", lambda: _answers(f"{self.options.gateway_url}/health"), 60)
        executed = "  (the policies of apim-policies/, executed)" if self.options.gateway == APIM else ""
        self.report(f"gateway        {self.options.openai_url}{executed}")
        self._wait_for_counters()
        self._write_env_file()

    def start_functions(self) -> None:
        """Start the function app; again, after it was stopped, as the same app: it knows the same keys and stores."""
        self._python("functions", "local.functions_host", env=self.settings)

    def start_gateway(self) -> None:
        """Start the built-in gateway; again, after it ended, on the same spool."""
        self._python("gateway", "gateway", env=self.settings)

    def _write_env_file(self) -> None:
        text = "".join(f"{name}={self.settings[name]}\n" for name in _FOR_COMMANDS)
        self.options.env_file.touch(mode=0o600)
        self.options.env_file.write_text(text)

    def dead(self) -> Process | None:
        """A process that ended although nobody asked it to."""
        return next((process for process in self.processes.values() if process.exit_code is not None), None)

    def stop(self) -> None:
        """End everything: doors first, so that the gateway's last events still reach the hub, stores last."""
        self.options.env_file.unlink(missing_ok=True)
        for name in ("gateway", "functions", "model", "entra", "event hub"):
            if name in self.processes:
                self.processes[name].stop(timeout_seconds=25)
        if self._redis is not None:
            self._redis.stop()
        if self._azurite is not None:
            self._azurite.stop()

    def _start_policies(self, env: dict[str, str], issuer: Issuer) -> None:
        """The policy runner."""
        from local.apim.laptop import laptop_environment

        model_url = self.model_url or self.options.azure_endpoint or ""
        settings = laptop_environment(self.config, self.options.functions_url, model_url, issuer)
        self._python("gateway", "local.apim", env=env | settings)

    def _start_issuer(self) -> Issuer:
        """The issuer of the tokens that either gateway takes beside subscription keys."""
        from local.entra import Issuer

        port = free_port()
        self._python("entra", "local.entra", "--port", str(port))
        self.entra_url = f"http://127.0.0.1:{port}"
        return Issuer(self.entra_url)

    def _require_free_ports(self) -> None:
        for name in ("functions_port", "gateway_port"):
            port = getattr(self.options, name)
            if is_listening(port):
                raise ProcessFailedError(
                    f"port {port} is in use: end what listens there, or choose another: {name.upper()}={port + 100}"
                )

    def _python(self, name: str, module: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        log_path = self.options.logs / f"{name.replace(' ', '-')}.log"
        command = [sys.executable, "-m", module, *arguments]
        self.processes[name] = Process(name, command, log_path=log_path, env=env, cwd=PROJECT)

    def _wait(self, name: str, ready: Callable[[], bool], timeout_seconds: float = 30) -> None:
        self.processes[name].wait_until(ready, timeout_seconds=timeout_seconds)

    def _environment(self, hub_port: int, issuer: Issuer) -> dict[str, str]:
        """The settings of the function app and the gateway, on top of the person's own environment."""
        from local.eventhub.embedded import connection_string

        assert self._azurite is not None
        assert self._redis is not None
        env = {name: value for name, value in os.environ.items() if name not in _FOREIGN_SETTINGS}
        env |= {
            "TOLLKEEPER_ENV": "development",
            "CONFIG_DIR": str(self.options.config_directory),
            "REDIS_URL": self._redis.url,
            "EventHubs": connection_string(hub_port),
            "LEDGER_STORAGE": self._azurite.connection_string,
            "AzureWebJobsStorage": self._azurite.connection_string,
            "USAGE_HUB": "usage",
            "USAGE_CONSUMER_GROUP": "$Default",
            "LlmLogs": connection_string(hub_port),
            "LLM_LOGS_HUB": "llm-logs",
            "LLM_LOGS_CONSUMER_GROUP": "$Default",
            "RESERVATION_KEYS": secrets.token_hex(32),
            "GATEWAY_KEYS": json.dumps(gateway_keys(self.config)),
            "ENTRA_ISSUER": issuer.issuer,
            "ENTRA_AUDIENCE": issuer.audience,
            "FUNCTIONS_PORT": str(self.options.functions_port),
            "GATEWAY_PORT": str(self.options.gateway_port),
            "SPOOL_DIR": str(self.options.logs / "spool"),
            "PYTHONUNBUFFERED": "1",
        }
        if self.model_url is not None:
            env["MODEL_URL"] = self.model_url
        without_proxy(env)
        return env

    def _wait_for_counters(self) -> None:
        """Wait until every calling tenant's counters are built from the ledger; until then checks answer 503."""
        by_tenant = {self.config.teams[team].tenant: team for team in team_keys(self.config)}
        started = time.monotonic()
        for team in by_tenant.values():
            self._wait("functions", lambda team=team: self._checks_answer(team), 60)  # type: ignore[misc]
        self.report(f"budgets        ready for {len(by_tenant)} tenant(s), {time.monotonic() - started:.1f} s")

    def _checks_answer(self, team: str) -> bool:
        model = next(iter(self.config.models), "gpt-4o")
        identity = {"subscription": subscription_of(self.config, team)}
        # Not as a first attempt: what is refused of those is shown as a call that was refused, and nobody made one.
        question = {"identity": identity, "model": model, "attempt": 2}
        answer = httpx.post(f"{self.options.functions_url}/budget/check", json=question, timeout=5)
        if answer.status_code == 503:
            return False
        if reservation := _json(answer).get("reservation"):
            # A question, not a call: what was held for it goes back at once.
            httpx.post(f"{self.options.functions_url}/budget/release", json={"reservation": reservation}, timeout=5)
        return True


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
