"""The function app in the laptop's function host, with a hub, tables and a configuration of its own."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from local.process import Process, free_port

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class HostedApp:
    """A running function app."""

    url: str  # of its routes, without a slash at the end
    hub_name: str  # of usage events
    logs_hub_name: str
    env: Mapping[str, str]  # what its process runs with

    def answers_checks(self, tenant: str) -> bool:
        """Whether a tenant's counters are ready."""
        ask = {"tenant": tenant, "scopes": {"team": "warm-up"}, "model": "gpt-4o"}
        return _is_ok("POST", f"{self.url}/budget/check", json=ask)

    def shows_spend(self, tenant: str) -> bool:
        """The same, without a check that the list of recent decisions would show."""
        return _is_ok("GET", f"{self.url}/spend", params={"tenant": tenant})


@contextmanager
def hosted_app(
    directory: Path, config: Mapping[str, str], azurite: Azurite, redis_url: str, hub: EmbeddedHub, port: int = 0
) -> Iterator[tuple[HostedApp, Process]]:
    """The app and its process, started and not yet waited for. `directory` takes its configuration and its log."""
    for name, text in config.items():
        path = directory / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    hub_name = f"app-{uuid.uuid4().hex[:8]}"
    hub.create_hub(hub_name, partition_count=2)
    hub.create_hub(f"{hub_name}-logs", partition_count=1)
    port = port or free_port()
    env = os.environ | {
        "TOLLKEEPER_ENV": "development",
        "CONFIG_DIR": str(directory / "config"),
        "REDIS_URL": redis_url,
        "EventHubs": hub.connection_string(),
        "USAGE_HUB": hub_name,
        "USAGE_CONSUMER_GROUP": "$Default",
        "LlmLogs": hub.connection_string(),
        "LLM_LOGS_HUB": f"{hub_name}-logs",
        "LLM_LOGS_CONSUMER_GROUP": "$Default",
        "LEDGER_STORAGE": azurite.connection_string,
        "LEDGER_TABLE_PREFIX": f"a{uuid.uuid4().hex[:8]}",
        "AzureWebJobsStorage": azurite.connection_string,
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "local.functions_host", "--port", str(port)]
    host = Process("functions", command, log_path=directory / "host.log", env=env, cwd=ROOT)
    try:
        yield HostedApp(f"http://127.0.0.1:{port}/api/v1", hub_name, f"{hub_name}-logs", env), host
    finally:
        host.stop()


def _is_ok(method: str, url: str, **how: object) -> bool:
    try:
        return httpx.request(method, url, timeout=10, **how).status_code == 200  # type: ignore[arg-type]
    except httpx.HTTPError:
        return False
