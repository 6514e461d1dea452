"""Gateways of their own beside a running copy, behind proxies to hub and Redis that a test may take away.

with open_rig(tmp_path) as rig:
    gateway = rig.start_gateway()
    rig.hub.set("refusing")
    gateway.post("c-1", stream=True, x_sim_fault="half")
    rig.bill("c-1")      what the ledger has of the call, beside what the model itself counted
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from local.eventhub.embedded import connection_string
from local.options import BUILT_IN, PROJECT
from local.process import Process, free_port
from shared.ledger.row import LedgerRow
from tests.support.laptop import MODEL, Laptop, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import team_file
from tests.support.tcp_proxy import TcpProxy

TEAM = "search"
FIRST_BYTE_SECONDS, STALL_SECONDS = 4, 2
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "How much of the budget is left for this month, and who spent it?"}]
# One model for each kind of trouble, or for each call in it: a breaker that one opens is no other's business.
APART = {kind: [f"{kind}-{number}" for number in range(9)] for kind in ("middle", "early", "whole", "mixed")}
MODELS = ("calm", "storm", "hub", "redis", "crowd", *(name for names in APART.values() for name in names))
CAN = "capabilities: [chat, tools]"
FALLBACK = dict.fromkeys(APART["mixed"], ", fallbacks: [calm]")
BODY = {"model": "calm", "messages": MESSAGES, "max_tokens": 400}
FLOOD = "http://flooding-model"  # stands for the address of a backend that a test brings itself
PRICE = "effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}"
FILES = {
    "tenants.yaml": "tenants: [{id: default, client_asserted_scopes: [session]}]",
    "models.yaml": f"""
endpoints:
  - {{id: sim, provider: sim, api: openai, url: {MODEL}/v1, timeout_seconds: {FIRST_BYTE_SECONDS},
     stall_seconds: {STALL_SECONDS}}}
  - {{id: flood, provider: flood, api: openai, url: {FLOOD}/v1}}
models: [{", ".join(f"{{id: {model}, provider: sim, {CAN}{FALLBACK.get(model, '')}}}" for model in MODELS)},
  {{id: flood, provider: flood, capabilities: [chat]}}]
""",
    "prices.yaml": f"prices: [{', '.join(f'{{model: {model}, {PRICE}}}' for model in (*MODELS, 'flood'))}]",
    f"teams/{TEAM}.yaml": team_file(TEAM, "1000.00"),
}


@dataclass
class Bill:
    """One call as the ledger has it, and as the model counted it."""

    rows: list[LedgerRow]
    truth: dict[str, Any]

    @property
    def billed(self) -> tuple[int, int]:
        """Prompt and output tokens of all rows."""
        sums = [prompt_and_output(row) for row in self.rows]
        return sum(prompt for prompt, _ in sums), sum(output for _, output in sums)

    @property
    def served(self) -> tuple[int, int]:
        """Prompt and output tokens that the model counted for answers it gave to their end."""
        return self.truth["prompt_tokens"], self.truth["completion_tokens"]

    @property
    def broken(self) -> tuple[int, int]:
        """Prompt and output tokens that the model counted for streams that ended early."""
        return self.truth["aborted_prompt_tokens"], self.truth["aborted_completion_tokens"]


class Gateway:
    """One `python -m gateway`."""

    def __init__(self, process: Process, url: str) -> None:
        self.process, self.url = process, url

    def headers(self, call: str, **knobs: Any) -> dict[str, str]:
        """The team's key, and the call's name for the model and for the ledger."""
        named = {"api-key": f"local-{TEAM}", "x-sim-call-id": call, "x-budget-scope-session": call}
        return named | {name.replace("_", "-"): str(value) for name, value in knobs.items()}

    def post(
        self, call: str, model: str = "calm", *, stream: bool = False, timeout: float = 60, **knobs: Any
    ) -> httpx.Response:
        """One chat completion; knobs by keyword, `x_sim_fault="half"` say."""
        body = {**BODY, "model": model, "stream": stream}
        return httpx.post(f"{self.url}{CHAT}", json=body, headers=self.headers(call, **knobs), timeout=timeout)

    def health(self) -> dict[str, Any]:
        """GET /health."""
        found: dict[str, Any] = httpx.get(f"{self.url}/health", timeout=20).raise_for_status().json()
        return found

    def resident_bytes(self) -> int:
        """Memory of the process now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


@dataclass
class Rig:
    """A running copy, proxies to its hub and its Redis, and gateways that know only the proxies."""

    laptop: Laptop
    hub: TcpProxy
    redis: TcpProxy
    directory: Path
    _gateways: list[Gateway] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def spool(self) -> Path:
        """The spool that all gateways share."""
        return self.directory / "spool"

    def start_gateway(self, **environment: str) -> Gateway:
        """One more gateway; `environment` beside the copy's settings."""
        port = free_port()
        name = f"rig-{next(self._numbers)}"
        settings = {
            **self.laptop.stack.settings,
            "GATEWAY_PORT": str(port),
            "GATEWAY_NAME": name,
            "EventHubs": connection_string(self.hub.port),
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}",
            "SPOOL_DIR": str(self.spool),
            **environment,
        }
        command = [sys.executable, "-m", "gateway"]
        process = Process(name, command, env=settings, cwd=PROJECT, log_path=self.directory / f"{name}.log")
        gateway = Gateway(process, f"http://127.0.0.1:{port}")
        self._gateways.append(gateway)
        process.wait_until(lambda: _answers(gateway))
        return gateway

    def stop_gateways(self) -> None:
        """End them all."""
        for gateway in self._gateways:
            gateway.process.stop(timeout_seconds=40)

    def bill(self, call: str) -> Bill:
        """What is known of a call now."""
        return self.bills([call])[call]

    def bills(self, calls: list[str]) -> dict[str, Bill]:
        """What is known of these calls now."""
        served = self.laptop.served_by_call()
        bills = {call: Bill([], {"prompt_tokens": 0, "completion_tokens": 0, **served.get(call, {})}) for call in calls}
        for row in self.laptop.all_rows():
            if (bill := bills.get(row.scopes.get("session", ""))) is not None:
                bill.rows.append(row)
        return bills

    def billed(self, calls: list[str], seconds: float = 30) -> dict[str, Bill]:
        """The same once the ledger has heard of each of them."""
        return eventually(lambda: found if all((found := self.bills(calls))[c].rows for c in calls) else None, seconds)

    def assert_nothing_held(self, seconds: float = 30) -> None:
        """Every hold was settled, given back, or has ended; what has ended is found by a check."""

        def held() -> float:
            question = {"identity": {"subscription": f"{TEAM}-prod"}, "model": "calm", "max_output_tokens": 1}
            url = self.laptop.functions_url
            asked = httpx.post(f"{url}/budget/check", json=question, timeout=20).raise_for_status().json()
            httpx.post(f"{url}/budget/release", json={"reservation": asked["reservation"]}, timeout=20)
            return float(self.laptop.spend(TEAM)["reserved"])

        eventually(lambda: held() == 0, seconds)

    def assert_counters_are_the_ledger(self) -> None:
        """The budget's counter is the sum of the ledger's rows, so nothing was counted twice or never."""
        rows = self.laptop.all_rows()
        spent = eventually(lambda: self.laptop.spend(TEAM)["spent"])
        total = sum(row.charge_nano_usd for row in rows if row.scopes.get("team") == TEAM)
        assert round(float(spent) * 10**9) == total


@contextmanager
def open_rig(directory: Path, flood_port: int = 9, **environment: str) -> Iterator[Rig]:
    """A running copy and the proxies; its gateways end with it. On `flood_port` a test may serve the model `flood`."""
    files = {name: text.replace(FLOOD, f"http://127.0.0.1:{flood_port}") for name, text in FILES.items()}
    with start_laptop(directory, files, gateway=BUILT_IN, **environment) as laptop:
        hub = urlsplit(laptop.hub_connection.partition(";")[0].partition("=")[2])
        redis = urlsplit(laptop.redis_url)
        assert hub.port is not None
        assert redis.port is not None
        with TcpProxy(hub.port) as hub_proxy, TcpProxy(redis.port) as redis_proxy:
            rig = Rig(laptop, hub_proxy, redis_proxy, directory)
            try:
                yield rig
            finally:
                hub_proxy.set("up")
                redis_proxy.set("up")
                rig.stop_gateways()


def _answers(gateway: Gateway) -> bool:
    try:
        return gateway.health()["status"] == "ok"
    except (httpx.HTTPError, KeyError):
        return False
