"""The policies with the real function app behind them: decisions applied, events billed, holds given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from local.redis_server import RedisServer
from shared.config.loader import load_config
from shared.config.named_values import generated_named_values
from tests.support.hosted_app import hosted_app
from tests.support.policy_bench import AZURE, CHAT, Bench, start_bench

ROOT = Path(__file__).parents[3]
CONFIG = {
    "tenants.yaml": """
tenants:
  - {id: default}
  - {id: contoso, client_asserted_scopes: [session]}
  - {id: watched, enforcement: observe}
  - {id: free, enforcement: "off"}
""",
    "budgets.yaml": """
budgets:
  - {id: rich, scope: "team:rich", period: total, limit: 100.00}
  - id: thrifty
    scope: "team:thrifty"
    period: total
    limit: 0.01
    downgrade: [{from: gpt-4o, to: gpt-4o-mini}]
    disable_tools: [web_search]
  - {id: poor, scope: "team:poor", period: month, limit: 0.001}
  - {id: watched, scope: "team:watched", period: total, limit: 0.000001}
  - {id: free, scope: "team:free", period: total, limit: 100.00}
""",
    "models.yaml": """
models:
  - {id: gpt-4o, deployments: [gpt-4o-weu], capabilities: [chat, tools]}
  - {id: gpt-4o-mini, deployments: [gpt-4o-mini-weu], capabilities: [chat, tools]}
  - {id: o4-mini, capabilities: [chat, vision]}
""",
    "prices.yaml": """
prices:
  - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}}
  - {model: gpt-4o-mini, effective_from: 2026-01-01, usd_per_million: {input: 0.15, cached_input: 0.08, output: 0.60}}
  - {model: o4-mini, effective_from: 2026-01-01, usd_per_million: {input: 1.10, cached_input: 0.28, output: 4.40}}
""",
    **{
        f"teams/{team}.yaml": f"{{team: {team}, tenant: {tenant}, identities: {{subscriptions: [{team}-sub]}}, {more}}}"
        for team, tenant, more in (
            ("rich", "contoso", ""),
            ("thrifty", "contoso", ""),
            ("poor", "contoso", ""),
            ("narrow", "contoso", "allowed_models: [gpt-4o-mini]"),
            ("watched", "watched", ""),
            ("free", "free", ""),
        )
    },
}


@dataclass
class Gate:
    """The gateway in front of the function app."""

    bench: Bench
    service: httpx.AsyncClient

    async def call(self, team: str, path: str = CHAT, tokens: int = 10, **fields: Any) -> httpx.Response:
        """A call that writes `tokens` tokens and says so before."""
        headers = {"x-sim-output-tokens": str(tokens), **fields.pop("headers", {})}
        key = self.bench.subscribe(f"{team}-sub")
        return await self.bench.post(key, path, max_tokens=tokens, headers=headers, **fields)

    async def budget(self, team: str, tenant: str) -> dict[str, Any]:
        """The team's budget as /spend shows it."""
        found = await self.service.get(f"spend/team/{team}", params={"tenant": tenant})
        return found.json()["budgets"][0] if found.status_code == 200 else {}

    async def settled(self, team: str, tenant: str, holds: Callable[[Decimal], bool]) -> Decimal:
        """What the team has spent, once nothing is reserved and the spend is as expected."""
        await self.bench.runner.settle()
        async with asyncio.timeout(15):
            while True:
                shown = await self.budget(team, tenant)
                if shown and Decimal(shown["reserved"]) == 0 and holds(Decimal(shown["spent"])):
                    return Decimal(shown["spent"])
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def hosted(
    mono: None,
    azurite: Azurite,
    redis_server: RedisServer,
    hub: EmbeddedHub,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, str]]:
    """(URL of the function app, name of its hub)."""
    directory = tmp_path_factory.mktemp("policies")
    with hosted_app(directory, CONFIG, azurite, f"{redis_server.url}/9", hub) as (app, host):
        tenants = ("contoso", "watched", "free")
        host.wait_until(lambda: all(map(app.answers_checks, tenants)), timeout_seconds=60)
        yield app.url, app.hub_name


@pytest.fixture(scope="module")
async def gate(hosted: tuple[str, str], hub: EmbeddedHub) -> AsyncIterator[Gate]:
    """The gateway with the named values that the configuration itself generates."""
    url, hub_name = hosted
    config = load_config({name: text.encode() for name, text in CONFIG.items()}, "config")
    values = {**generated_named_values(config), "tk-service-url": url, "tk-check-timeout-seconds": "5"}
    async with (
        start_bench(values, hub=hub, loggers={"usage-logger": hub_name}) as bench,
        httpx.AsyncClient(base_url=f"{url}/", timeout=15) as service,
    ):
        yield Gate(bench, service)


async def test_allowed_call_is_held_served_and_billed(gate: Gate) -> None:
    """To the nano-dollar, by the model's own counts; nothing stays reserved."""
    answer = await gate.call("rich", tokens=200, headers={"x-budget-scope-session": "s-1"})
    assert answer.status_code == 200
    assert (answer.headers["x-budget-state"], answer.headers["x-budget-scope"]) == ("active", "team:rich")
    usage = answer.json()["usage"]
    cost = Decimal(usage["prompt_tokens"]) * Decimal("0.0000025") + Decimal(200) * Decimal("0.00001")
    assert await gate.settled("rich", "contoso", lambda spent: spent > 0) == cost


async def test_degraded_budget_serves_the_cheaper_model_without_the_tool(gate: Gate) -> None:
    """On both path styles, with the headers that say so; the event is priced as the model that served."""
    await gate.call("thrifty", tokens=930)
    before = await gate.settled("thrifty", "contoso", lambda spent: spent > Decimal("0.009"))
    for path in (CHAT, AZURE.format("gpt-4o-weu")):
        answer = await gate.call("thrifty", path, tools=[{"type": "web_search"}])
        assert answer.status_code == 200
        assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("gpt-4o", "gpt-4o-mini")
        assert answer.headers["x-budget-disabled-tools"] == "web_search"
        assert answer.headers["x-budget-state"] == "degraded"
        assert answer.json()["model"].startswith("gpt-4o-mini")
        assert "tools" not in gate.bench.model.last[2]
    spent = await gate.settled("thrifty", "contoso", lambda spent: spent > before)
    assert spent - before < Decimal("0.0001")


async def test_auto_is_the_cheapest_model_that_can_do_the_call(gate: Gate) -> None:
    """A dearer one for an image; none at all where no endpoint is known to lie in the place that the call demands."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    for content, model in (("What is this?", "gpt-4o-mini"), ([image], "o4-mini")):
        answer = await gate.call("rich", model="auto", messages=[{"role": "user", "content": content}])
        assert (answer.status_code, answer.headers["x-requested-model"]) == (200, "auto")
        assert answer.headers["x-served-model"] == model
    for header in ("x-tollkeeper-region", "x-tollkeeper-data-zone"):
        refused = await gate.call("rich", model="auto", headers={header: "eu"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_capable_model")
        refused = await gate.call("rich", headers={header: "eu"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "place_not_served")


async def test_spent_budget_refuses_with_the_services_own_words(gate: Gate) -> None:
    """402, with what is left and when it resets, and the header that keeps SDKs from trying again."""
    assert (await gate.call("poor", tokens=80)).status_code == 200
    await gate.settled("poor", "contoso", lambda spent: spent > 0)
    answer = await gate.call("poor", tokens=100)
    assert answer.status_code == 402
    body = answer.json()
    assert (body["error"]["code"], body["error"]["type"], body["decision"]) == ("budget_exhausted", "budget", "refuse")
    assert body["budget"]["scope"] == "team:poor"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-budget-scope"] == "team:poor"


async def test_models_and_identities_that_config_does_not_know_are_refused(gate: Gate) -> None:
    """Under whatever name a model is called."""
    for path in (CHAT, AZURE.format("gpt-4o-weu")):
        answer = await gate.call("narrow", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    answer = await gate.call("stranger")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "identity_unknown")


async def test_observed_and_unenforced_tenants_pass_and_are_billed(gate: Gate) -> None:
    """Over any budget; the second is never asked about, and its team comes from the event's identity."""
    for team, tokens in (("watched", 50), ("free", 50)):
        for _ in range(2):
            answer = await gate.call(team, tokens=tokens)
            assert answer.status_code == 200
        prompt = answer.json()["usage"]["prompt_tokens"]
        once = Decimal(prompt) * Decimal("0.0000025") + Decimal(tokens) * Decimal("0.00001")
        assert await gate.settled(team, team, lambda spent, twice=2 * once: spent == twice) == 2 * once  # type: ignore[misc]


async def test_hold_of_a_call_that_never_left_is_free_at_once(gate: Gate, hosted: tuple[str, str]) -> None:
    """Without waiting for its time to live."""

    def mint(resource: str, client_id: str | None) -> str:
        if "cognitive" in resource:
            raise RuntimeError("the identity endpoint does not answer")
        return "token"

    before = await gate.settled("rich", "contoso", lambda spent: True)
    async with start_bench({"tk-service-url": hosted[0], "tk-check-timeout-seconds": "5"}, mint_token=mint) as broken:
        answer = await broken.post(broken.subscribe("rich-sub"), max_tokens=1000)
        assert answer.status_code == 500
    assert await gate.settled("rich", "contoso", lambda spent: True) == before


async def test_hold_of_a_failed_call_is_freed_by_its_event(gate: Gate) -> None:
    """The model was asked and failed: nothing is billed."""
    before = await gate.settled("rich", "contoso", lambda spent: True)
    answer = await gate.call("rich", headers={"x-sim-status": "400"})
    assert answer.status_code == 400
    assert await gate.settled("rich", "contoso", lambda spent: True) == before
