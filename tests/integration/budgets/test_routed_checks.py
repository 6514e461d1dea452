"""Checks whose caller leaves the choice of the model, and checks of fallbacks, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from shared.config.model import DowngradeRule, Endpoint, Team
from shared.errors import Forbidden, InvalidRequest
from tests.support.engine import MICRO_USD, Engine, budget, config, flushed, usd

CALL = (100 * 1 + 100 * 2) * MICRO_USD  # of `big`: 100 tokens in at 1 micro-USD, 100 out at 2; `small` a tenth


class Denied:
    """A log that keeps which calls were turned away before any budget was asked."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def note_denied(self, tenant, scopes, model, code) -> None:
        self.models.append(model)


@pytest.fixture
async def client(redis_server) -> AsyncIterator:
    client = await flushed(redis_server.url)
    yield client
    await client.aclose()


async def open_engine(client, configuration, **options) -> Engine:
    engine = Engine(client, configuration, **options)
    await engine.open()
    return engine


async def test_auto_is_the_cheapest_and_is_held_as_that(client):
    """The client keeps its own word in the answer; what is held is what the chosen model would cost."""
    engine = await open_engine(client, config(budget("team:search", usd(1))))
    answer = await engine.check("auto")
    assert (answer.requested_model, answer.model, answer.decision) == ("auto", "small", "allow")
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("auto", "small")
    assert [choice["model"] for choice in answer.body["routing"]["alternatives"]] == ["big"]
    assert await engine.spent_and_held() == (0, CALL // 10)


async def test_auto_chooses_among_allowed_models(client):
    """A team that may use only the dear model gets that; one that may use none that can do it is told why."""
    team = Team("search", "acme", allowed_models=("big",))
    engine = await open_engine(client, replace(config(budget("team:search", usd(1))), teams={"search": team}))
    assert (await engine.check("auto")).model == "big"
    with pytest.raises(InvalidRequest) as raised:
        await engine.check("auto", capabilities=["vision"])
    assert (raised.value.code, raised.value.param) == ("no_capable_model", "model")
    assert raised.value.extra["rejected"] == {"big": "lacks vision", "small": "lacks vision"}


async def test_a_rule_downgrades_what_auto_chose(client):
    """Auto is resolved before the budget decides, so its rules hold for the chosen model as for a named one."""
    team = Team("search", "acme", allowed_models=("big",))  # the rule's target needs no permission
    narrow = budget("team:search", 11 * CALL // 10, downgrade=(DowngradeRule(("big",), "small"),))
    engine = await open_engine(client, replace(config(narrow), teams={"search": team}))
    first, second = await engine.check("auto"), await engine.check("auto")
    assert [(answer.decision, answer.model) for answer in (first, second)] == [("allow", "big"), ("downgrade", "small")]
    assert second.requested_model == "auto"


async def test_auto_is_no_embedding(client):
    """Vectors of one model mean nothing to another."""
    engine = await open_engine(client, config(budget("team:search", usd(1))))
    with pytest.raises(InvalidRequest, match="embedding"):
        await engine.check("auto", operation="embeddings")


async def test_a_fallback_must_be_allowed_too(client):
    """What the team may not use it may not use as a stand-in either; nobody asked for it, so nothing is noted."""
    log = Denied()
    team = Team("search", "acme", allowed_models=("big",))
    engine = await open_engine(
        client, replace(config(budget("team:search", usd(1))), teams={"search": team}), decisions=log
    )
    with pytest.raises(Forbidden):
        await engine.check("small", attempt=2)
    assert log.models == []


async def test_a_rule_leads_to_no_model_that_is_too_small_for_the_call(client):
    """The budget is past `degrade` for both calls; the longer one stays with the model that can hold it."""
    narrow = budget("team:search", usd(1), degrade_ppm=0, downgrade=(DowngradeRule(("big",), "small"),))
    known = config(narrow)
    models = {**known.models, "small": replace(known.models["small"], context_tokens=250)}
    engine = await open_engine(client, replace(known, models=models))
    short = await engine.check("big", input_tokens=150)
    long = await engine.check("big", input_tokens=151)
    assert [(answer.decision, answer.model) for answer in (short, long)] == [("downgrade", "small"), ("allow", "big")]


@pytest.mark.parametrize("call", [{"input_tokens": 1901}, {"required_region": "westeurope"}], ids=["size", "place"])
async def test_no_call_passes_the_stop_because_the_cheapest_model_is_not_for_it(client, call):
    """Else whoever asks for a long answer, or for a place, would have the dear model without any limit."""
    spent = budget("team:search", 0, on_stop="downgrade", downgrade=(DowngradeRule(("big",), "cheapest"),))
    known = config(spent)
    models = {
        "big": replace(known.models["big"], deployments=("big-weu",), places={"big-weu": "weu"}),
        "small": replace(known.models["small"], context_tokens=2000),
    }
    url = "https://x.test"
    endpoints = {
        name: Endpoint(id=name, provider="azure-openai", api="azure-openai", url=url, region=region)
        for name, region in (("eus", "eastus"), ("weu", "westeurope"))
    }
    engine = await open_engine(client, replace(known, models=models, endpoints=endpoints))
    assert (await engine.check("big", input_tokens=1900)).model == "small"
    assert (await engine.check("small", input_tokens=1901)).decision == "allow"  # nothing is cheaper
    refused = await engine.check("big", **call)
    assert (refused.decision, refused.reason) == ("refuse", "budget_exhausted")
