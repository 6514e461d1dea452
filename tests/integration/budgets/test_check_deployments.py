"""A check takes the name that the caller used, decides on the model behind it, and says where to send the call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from shared.config.model import DowngradeRule, Endpoint, PriceOverride
from shared.errors import Forbidden
from shared.ledger.row import Position
from shared.ledger.settlement import Entry, TenantSettler
from tests.support.engine import LONG_AGO, Engine, budget, config, flushed, row, usd

DEGRADES = budget("team:search", usd(10), downgrade=(DowngradeRule(("big",), "small"),))
DEPLOYMENTS = {"big": ("big-weu", "big-swc"), "small": ("small-weu",)}


def deployed(**tenant: Any) -> Any:
    """The usual configuration, its models deployed in Azure under other names."""
    known = config(DEGRADES, budget("model:big", usd(50)), **tenant)
    models = {name: replace(known.models[name], deployments=DEPLOYMENTS[name]) for name in known.models}
    return replace(known, models=models)


@pytest.fixture
async def engine(redis_server) -> AsyncIterator[Engine]:
    """A ready tenant on an empty server."""
    client = await flushed(redis_server.url)
    engine = Engine(client, deployed())
    await engine.open()
    yield engine
    await client.aclose()


def place(answer: Any) -> tuple[str, str, str, str]:
    """What the answer says of models, as the body shows it."""
    body = answer.body
    return body["requested_model"], body["model"], body["provider"], body["deployment"]


@pytest.mark.parametrize(
    ("named", "deployment"),
    [("big", "big-weu"), ("big-weu", "big-weu"), ("big-swc", "big-swc"), ("BIG-SWC", "big-swc")],
)
async def test_the_named_deployment_serves_an_unchanged_model(engine, named, deployment):
    """Whatever the name, the model is held at its price and its own budget; the caller's deployment gets the call."""
    answer = await engine.check(named)
    assert place(answer) == ("big", "big", "azure-openai", deployment)
    assert await engine.spent_and_held("model:big") == (0, 100 * 1_000 + 100 * 2_000)


async def spend(engine: Engine, amount: float) -> None:
    """Charge team search as ingest would."""
    charged = row(usd(amount), Position("ns/usage/0", 1_790_000_000_000, 1))
    await TenantSettler(engine.store).settle(
        engine.snapshot.index, "acme", [Entry(charged.position, charged, True, True, None)]
    )


async def test_a_downgrade_goes_to_the_cheaper_models_own_deployment(engine):
    """A rule `from: big` holds for calls that name a deployment of big: another name is no way around it."""
    await spend(engine, 9.5)
    answer = await engine.check("big-swc")
    assert answer.decision == "downgrade"
    assert place(answer) == ("big", "small", "azure-openai", "small-weu")


async def test_a_refusal_names_the_place_of_what_was_asked(engine):
    """Nothing is served; the members are there all the same."""
    await spend(engine, 20)
    answer = await engine.check("big-swc")
    assert answer.decision == "refuse"
    assert place(answer) == ("big", "big", "azure-openai", "big-swc")


async def test_observed_downgrades_keep_the_callers_deployment(engine):
    """In observe mode the call goes where it would have gone."""
    engine.configure(deployed(enforcement="observe"))
    await spend(engine, 9.5)
    answer = await engine.check("big-swc")
    assert answer.observed == {"decision": "downgrade", "model": "small"}
    assert place(answer) == ("big", "big", "azure-openai", "big-swc")


async def test_an_answer_without_counters_names_the_place_too(engine):
    """Enforcement off and a fail mode need the deployment as much: the call is made."""
    engine.configure(deployed(enforcement="off"))
    assert place(await engine.check("big-swc")) == ("big", "big", "azure-openai", "big-swc")
    engine.configure(deployed(fail_mode="open"))
    await engine.client.flushall()
    answer = await engine.check("big-weu")
    assert answer.reason == "state_unavailable_open"
    assert place(answer) == ("big", "big", "azure-openai", "big-weu")


async def test_allowed_models_see_the_model(engine):
    """A list of models neither needs to repeat deployments nor can be passed by with one."""
    engine.configure(deployed(allowed_models=("small",)))
    assert (await engine.check("small-weu")).model == "small"
    for name in ("big", "big-weu", "Big-Weu"):
        with pytest.raises(Forbidden) as raised:
            await engine.check(name)
        assert raised.value.code == "model_not_allowed"


async def test_an_unknown_name_is_held_at_the_guard_price(engine):
    """It stays as it is, and its budget is charged for it, never free."""
    answer = await engine.check("mystery")
    assert place(answer) == ("mystery", "mystery", "azure-openai", "mystery")
    assert (await engine.spent_and_held())[1] > 0


async def test_a_price_of_one_deployment_holds_for_calls_to_it(engine):
    """An override of big-swc is what a call through that name is held at, and one through the other is not."""
    known = deployed()
    dear = PriceOverride("big", LONG_AGO, {"input": 9_000_000, "output": 9_000_000}, deployment="big-swc")
    engine.configure(replace(known, prices=(*known.prices, dear)))
    await engine.check("big-weu")
    assert (await engine.spent_and_held())[1] == 300_000
    await engine.check("big-swc")
    assert (await engine.spent_and_held())[1] == 300_000 + 200 * 9_000


async def test_a_call_is_held_at_the_price_of_where_it_runs(engine):
    """The endpoint says where: its event will, so what is held must be what is then billed."""
    known = deployed()
    there = Endpoint(id="weu", provider="azure-openai", api="azure-openai", url="https://x.test", region="westeurope")
    dear = PriceOverride("big", LONG_AGO, {"input": 9_000_000, "output": 9_000_000}, region="westeurope")
    engine.configure(replace(known, endpoints={"weu": there}, prices=(*known.prices, dear)))
    await engine.check("big-weu")
    assert (await engine.spent_and_held())[1] == 200 * 9_000
