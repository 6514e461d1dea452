"""A whole running copy whose gateway executes the policies, and what end-to-end tests ask of it.

with start_laptop(tmp_path, FILES) as laptop:
    answer = laptop.post("rich", "/openai/v1/chat/completions", {...}, call="c-1")
    laptop.served("c-1")                    what the model itself counted for this call
    laptop.rows(answer)                     the ledger's rows of this call, read from its table
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import httpx
import openai

from local.options import APIM, Options, read_config
from local.process import free_port
from local.stack import Stack
from shared.ledger.row import LedgerRow
from shared.ledger.store import LedgerStore
from shared.ledger.tables import connect_tables
from shared.settings import Settings

T = TypeVar("T")
CHAT, RESPONSES, EMBEDDINGS = "/openai/v1/chat/completions", "/openai/v1/responses", "/openai/v1/embeddings"
API_VERSION = "2024-10-21"
TENANT = "default"
MODEL = "http://simulated-model"  # in a configuration file: the base address of the copy's own simulated model
WAIT_SECONDS = 30
_ATTEMPT = re.compile(r"/\d+$")


@dataclass
class Laptop:
    """One running copy."""

    stack: Stack

    @property
    def url(self) -> str:
        """Base URL of the gateway."""
        return self.stack.options.gateway_url

    @property
    def functions_url(self) -> str:
        """Base URL of the function app's routes."""
        return self.stack.options.functions_url

    @property
    def model_url(self) -> str:
        """Base URL of the simulated model itself, past the gateway."""
        assert self.stack.model_url is not None
        return self.stack.model_url

    def post(
        self, team: str, path: str, body: Mapping[str, Any], *, call: str | None = None, **headers: str
    ) -> httpx.Response:
        """One call as `team`; further headers by keyword, `x_sim_status="500"` say."""
        return httpx.post(f"{self.url}{path}", json=body, headers=self.headers(team, call, **headers), timeout=40)

    def headers(self, team: str | None, call: str | None = None, **headers: str) -> dict[str, str]:
        """The team's key, the name under which the model counts the call, and others."""
        known = {"api-key": f"local-{team}" if team else None, "x-sim-call-id": call}
        return {name: value for name, value in known.items() if value} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }

    def client(self, team: str, **options: Any) -> openai.OpenAI:
        """The SDK's plain client on v1 paths; API Management takes no key as a Bearer token, hence the header."""
        return openai.OpenAI(**self._options(team, options))

    def async_client(self, team: str, **options: Any) -> openai.AsyncOpenAI:
        """The same, asynchronous."""
        return openai.AsyncOpenAI(**self._options(team, options))

    def azure_client(self, team: str, **options: Any) -> openai.AzureOpenAI:
        """The SDK's Azure client, which names deployments in the path."""
        options = {"azure_endpoint": self.url, "api_version": API_VERSION, "api_key": f"local-{team}", **options}
        return openai.AzureOpenAI(**options)

    def _options(self, team: str, options: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"default_headers": {"api-key": f"local-{team}"}}
        return {"base_url": f"{self.url}/openai/v1", "api_key": "unused", **headers, **options}

    def token(self, **claims: Any) -> str:
        """A token of the laptop's own issuer, which its gateway trusts."""
        answer = httpx.post(f"{self.stack.entra_url}/sim/tokens", json=claims).raise_for_status()
        return str(answer.json()["access_token"])

    def served(self, call: str) -> dict[str, Any]:
        """What the model counted for a call; zeros when it never arrived there."""
        return defaultdict(int, self.served_by_call().get(call, {}))

    def served_by_call(self) -> dict[str, dict[str, Any]]:
        """What the model counted, by call."""
        found: dict[str, dict[str, Any]] = self._model("/sim/usage", by="call")
        return found

    def received(self, **query: str) -> list[dict[str, Any]]:
        """The requests as the model received them, of one `call` or `containing` a text."""
        found: list[dict[str, Any]] = self._model("/sim/requests", **query)
        return found

    def release(self, call: str) -> None:
        """Let a stream that the model holds go on."""
        httpx.post(f"{self.model_url}/sim/release/{call}").raise_for_status()

    def _model(self, path: str, **query: str) -> Any:
        return httpx.get(f"{self.model_url}{path}", params=query, timeout=20).raise_for_status().json()

    def all_rows(self) -> list[LedgerRow]:
        """Every row of the ledger, read from its table."""
        return asyncio.run(self._read_ledger())

    def rows(self, answer: httpx.Response | str) -> dict[str, LedgerRow]:
        """The rows of one call by kind, found by the request id its answer carries; no kind may come twice."""
        request_id = answer if isinstance(answer, str) else answer.headers["x-request-id"]
        rows = self.rows_by_request().get(request_id, [])
        by_kind = {row.kind: row for row in rows}
        assert len(by_kind) == len(rows), rows
        return by_kind

    def rows_by_request(self) -> dict[str, list[LedgerRow]]:
        """Every row by the id of its request."""
        found: dict[str, list[LedgerRow]] = defaultdict(list)
        for row in self.all_rows():
            found[request_of(row)].append(row)
        return found

    async def _read_ledger(self) -> list[LedgerRow]:
        tables = connect_tables(Settings(storage_connection=self.storage_connection))
        store = LedgerStore(tables)
        try:
            now = datetime.now(UTC)
            return [row async for row in store.rows(None, now - timedelta(days=2), now + timedelta(hours=2))]
        finally:
            await store.close()

    @property
    def storage_connection(self) -> str:
        """Connection string of the tables and blobs."""
        return self.stack.settings["LEDGER_STORAGE"]

    @property
    def hub_connection(self) -> str:
        """Connection string of the Event Hubs namespace."""
        return self.stack.settings["EventHubs"]

    @property
    def redis_url(self) -> str:
        """URL of the counters' Redis."""
        return self.stack.settings["REDIS_URL"]

    def budgets(self, tenant: str = TENANT) -> list[dict[str, Any]]:
        """The tenant's budgets as /spend shows them now."""
        found: list[dict[str, Any]] = self._functions("/spend", tenant=tenant)["budgets"]
        return found

    def spend(self, team: str) -> dict[str, Any]:
        """The team's budget as /spend shows it now."""
        return next(budget for budget in self.budgets() if budget["scope"] == f"team:{team}")

    def settled_spend(self, team: str) -> dict[str, Any]:
        """The team's budget once nothing is held any more."""
        return eventually(lambda: _if(self.spend(team), lambda budget: float(budget["reserved"]) == 0))

    def summary(self, **query: str) -> list[dict[str, Any]]:
        """Rows of /usage/summary."""
        rows: list[dict[str, Any]] = self._functions("/usage/summary", tenant=TENANT, **query)["rows"]
        return rows

    def _functions(self, path: str, **query: str) -> Any:
        return httpx.get(f"{self.functions_url}{path}", params=query, timeout=20).raise_for_status().json()


@contextmanager
def start_laptop(
    directory: Path, files: Mapping[str, str], *, gateway: str = APIM, **environment: str
) -> Iterator[Laptop]:
    """A running copy with this configuration, its parts told more by `environment`; stopped at the end."""
    model_port = free_port()
    for name, text in files.items():
        path = directory / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(MODEL, f"http://127.0.0.1:{model_port}"))
    options = Options(
        functions_port=free_port(),
        gateway_port=free_port(),
        config_directory=directory / "config",
        config_label="config",
        tour=False,
        once=False,
        azure_endpoint=None,
        logs=directory / "logs",
        gateway=gateway,
        model_port=model_port,
    )
    with patch.dict(os.environ, environment):
        stack = Stack(options, read_config(options), report=print)
        try:
            stack.start()
            yield Laptop(stack)
        finally:
            stack.stop()


def request_of(row: LedgerRow) -> str:
    """The id of the request that a row belongs to: without what tells a call's rows and attempts apart."""
    return _ATTEMPT.sub("", row.id.removesuffix("/true-up").removesuffix("/reversal"))


def eventually(ask: Callable[[], T | None], seconds: float = WAIT_SECONDS) -> T:
    """The first answer that is neither None nor empty. Raises AssertionError when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:g} s"
        time.sleep(0.1)
    return answer


def prompt_and_output(row: LedgerRow) -> tuple[int, int]:
    """The tokens a row bills, as providers count them: cached ones inside the prompt."""
    return row.tokens.get("input", 0) + row.tokens.get("cached_input", 0), row.tokens.get("output", 0)


def _if(value: T, holds: Callable[[T], bool]) -> T | None:
    return value if holds(value) else None
