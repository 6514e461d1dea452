"""`usage: {include: true}` is answered with the ledger's own figure, whole and streamed, whatever the provider."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.answers import Streamed, Whole
from gateway.cost import with_cost
from gateway.providers.openai_responses import ResponsesWatch
from gateway.stream import UsageWatch
from shared.config.loader import load_config
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer

# 1,000 input and 500 output tokens at 2.00 and 8.00 USD per million: 0.002 + 0.004 USD.
PRICES = b"prices: [{model: m, effective_from: 2026-01-01, usd_per_million: {input: 2.00, output: 8.00}}]"
CONFIG = load_config({"tenants.yaml": b"tenants: [{id: default}]", "prices.yaml": PRICES})
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
COST = b'"cost":0.006'


@pytest.fixture(scope="module")
def pricer() -> Pricer:
    return Pricer(PriceBook([]), CONFIG)


def exchange(model: str = "m") -> Any:
    answer = SimpleNamespace(
        tenant="default",
        provider="x",
        model=model,
        deployment=model,
        admitted_at_utc=datetime(2026, 11, 21, tzinfo=UTC),
    )
    return SimpleNamespace(answer=answer, region="")


def streamed(stream: Any, first: bytes = b"") -> Streamed:
    upstream: Any = httpx.Response(200)
    pieces: Any = None
    return Streamed(upstream, SimpleNamespace(), stream, first, pieces, {}, exchange(), SimpleNamespace())


def event(chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_a_whole_answer_tells_its_cost_as_a_number(pricer: Pricer) -> None:
    """Beside the tokens, exactly: no float stands between the ledger and the text."""
    content = json.dumps({"choices": [], "usage": USAGE}).encode()
    answer = with_cost(Whole(200, content, {}, usage=USAGE, exchange=exchange()), pricer)
    assert COST in answer.content
    assert json.loads(answer.content) == {"choices": [], "usage": {**USAGE, "cost": 0.006}}


def test_a_providers_own_figure_gives_way(pricer: Pricer) -> None:
    """OpenRouter's credits are what the platform pays there, not what the team is billed."""
    content = json.dumps({"usage": {**USAGE, "cost": 0.95}}).encode()
    assert COST in with_cost(Whole(200, content, {}, usage=USAGE, exchange=exchange()), pricer).content


def test_a_model_without_a_price_costs_null_not_nothing(pricer: Pricer) -> None:
    """Unknown is not free."""
    content = json.dumps({"usage": USAGE}).encode()
    answer = with_cost(Whole(200, content, {}, usage=USAGE, exchange=exchange("unheard-of")), pricer)
    assert json.loads(answer.content)["usage"]["cost"] is None


@pytest.mark.parametrize("content", [b'{"error": {"message": "m"}}', b"no JSON"])
def test_what_holds_no_usage_passes_unchanged(content: bytes, pricer: Pricer) -> None:
    """Errors and refusals, the latter without an attempt."""
    assert with_cost(Whole(500, content, {}, exchange=exchange()), pricer).content is content
    assert with_cost(Whole(402, content, {}), pricer).content is content


def test_a_streams_usage_chunk_tells_its_cost(pricer: Pricer) -> None:
    """Other events, comments among them, pass byte for byte; what the gateway bills by is still the provider's own."""
    said = b": wait\n\n" + event({"choices": [{"index": 0, "delta": {"content": 'the "usage" of it'}}]})
    told = event({"choices": [], "usage": USAGE})
    answer = with_cost(streamed(UsageWatch(hide_usage_chunk=False)), pricer)
    assert isinstance(answer, Streamed)
    out = answer.stream.feed(said + told + b"data: [DONE]\n\n")
    assert out.startswith(said)
    assert out.endswith(b"}\n\ndata: [DONE]\n\n")
    assert COST in out
    assert (answer.stream.usage, answer.stream.finished) == (USAGE, True)


def test_a_stream_that_came_in_one_piece_tells_its_cost(pricer: Pricer) -> None:
    """Its end may be in what is sent first."""
    watch = UsageWatch(hide_usage_chunk=False)
    answer = with_cost(streamed(watch, watch.feed(event({"choices": [], "usage": USAGE}))), pricer)
    assert isinstance(answer, Streamed)
    assert COST in answer.first


def test_a_responses_stream_tells_its_cost_in_its_last_event(pricer: Pricer) -> None:
    """Its name stays in front of it."""
    usage = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}
    data = json.dumps({"type": "response.completed", "response": {"usage": usage}}).encode()
    answer = with_cost(streamed(ResponsesWatch()), pricer)
    assert isinstance(answer, Streamed)
    out = answer.stream.feed(b"event: response.completed\ndata: " + data + b"\n\n")
    assert out.startswith(b"event: response.completed\ndata: {")
    assert json.loads(out.split(b"data: ")[1])["response"]["usage"] == {**usage, "cost": 0.006}
