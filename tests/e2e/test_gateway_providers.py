"""Every provider behind the built-in gateway, played by the simulated model: OpenAI's own types parse every answer.

The types are held strictly here, more than the SDK does: a field of the wrong type, a missing one or an unknown word in
a closed list fails. What was served is billed, whatever the provider tells of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter

from local.options import BUILT_IN
from shared.ledger.row import LedgerRow
from tests.support.laptop import MODEL, Laptop, eventually, start_laptop

MESSAGES = [{"role": "user", "content": "Which models are served here?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
# The models by provider. Names that begin with o4 reason, as OpenAI's do.
CHAT_MODELS = ("azure-gpt", "openai-gpt", "or-gpt", "dbx-gpt", "ollama-llama", "plain-llama", "claude")
REASONING_MODELS = ("o4-azure", "o4-dbx")
RESPONSES_MODELS = ("azure-gpt", "openai-gpt", "or-gpt", "dbx-gpt", "o4-azure")
EMBEDDING_MODELS = ("azure-gpt", "openai-gpt", "or-gpt", "dbx-gpt", "ollama-llama", "plain-llama")
# 3.00 and 15.00 USD per million of input and output, 0.30 for cached input, for all of them.
# o4-mini costs what the price book says, by tier: nano-USD per token of input, cached input and output.
TIERS = {"flex": (550, 138, 2_200), "priority": (2_000, 500, 8_000), "default": (1_100, 275, 4_400)}
NANO_USD = {"input": 3_000, "cached_input": 300, "cache_write": 3_750, "output": 15_000}
FILES = {
    "tenants.yaml": "tenants: [{id: default}]",
    "models.yaml": f"""
endpoints:
  - {{id: azure, provider: azure-openai, url: "{MODEL}"}}
  - {{id: openai, provider: openai, url: "{MODEL}/at/openai/v1", key: OPENAI_API_KEY}}
  - {{id: openrouter, provider: openrouter, url: "{MODEL}/openrouter/api/v1", key: OPENROUTER_API_KEY}}
  - {{id: databricks, provider: databricks, url: "{MODEL}/databricks"}}
  - {{id: ollama, provider: ollama, url: "{MODEL}/at/ollama/v1"}}
  - {{id: plain, provider: plain, url: "{MODEL}/plain/v1", stream_options: false}}
  - {{id: claude, provider: anthropic, url: "{MODEL}/anthropic", key: ANTHROPIC_API_KEY}}
models:
  - {{id: azure-gpt, deployments: [gpt-weu]}}
  - {{id: o4-azure, deployments: [o4-weu]}}
  - {{id: openai-gpt, provider: openai}}
  - {{id: o4-mini, provider: openai}}
  - {{id: or-gpt, provider: openrouter, deployments: [openai/gpt]}}
  - {{id: dbx-gpt, provider: databricks, deployments: [gpt-endpoint]}}
  - {{id: o4-dbx, provider: databricks, deployments: [o4-endpoint]}}
  - {{id: ollama-llama, provider: ollama}}
  - {{id: plain-llama, provider: plain}}
  - {{id: claude, provider: anthropic, deployments: [claude-sonnet]}}
  - {{id: nowhere, provider: elsewhere}}
""",
    "prices.yaml": "prices:\n"
    + "".join(
        f"  - {{model: {model}, effective_from: 2026-01-01,"
        " usd_per_million: {input: 3.00, cached_input: 0.30, cache_write: 3.75, output: 15.00}}\n"
        for model in (*CHAT_MODELS, *REASONING_MODELS)
    ),
    "teams/rich.yaml": "team: rich\nidentities: {subscriptions: [rich-prod]}\nbudgets: [{period: month, limit: 1000}]",
}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with start_laptop(tmp_path_factory.mktemp("providers"), FILES, gateway=BUILT_IN) as running:
        yield running


def ask(laptop: Laptop, path: str, body: dict[str, Any], call: str | None = None, **knobs: str) -> httpx.Response:
    answer = laptop.post("rich", path, body, call=call, **knobs)
    assert answer.status_code == 200, answer.text
    return answer


def events(answer: httpx.Response) -> list[str]:
    """The data of a stream's events, without the end's mark."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [text for text in data if text != "[DONE]"]


class Bills:
    """Calls whose bill is compared at the end of the module, all in one reading of the ledger."""

    def __init__(self) -> None:
        self.calls: dict[str, str] = {}  # request id -> what the model knows the call by
        self.told_usd: dict[str, float] = {}  # request id -> the cost that the answer told

    def expect(self, answer: httpx.Response, call: str) -> None:
        """To the token, what the model says that it served."""
        self.calls[answer.headers["x-request-id"]] = call


@pytest.fixture(scope="module")
def bills() -> Bills:
    return Bills()


def truth_nano_usd(served: dict[str, Any]) -> int:
    """What the model itself says it served, at the prices above."""
    plain = served["prompt_tokens"] - served["cached_tokens"]
    return (
        plain * NANO_USD["input"]
        + served["cached_tokens"] * NANO_USD["cached_input"]
        + served["completion_tokens"] * NANO_USD["output"]
    )


@pytest.mark.parametrize("model", [*CHAT_MODELS, *REASONING_MODELS])
def test_whole_chat_completions_are_openais(laptop: Laptop, bills: Bills, model: str) -> None:
    """Strictly parsed, and billed to the token."""
    call = f"whole-{model}"
    answer = ask(laptop, CHAT, {"model": model, "messages": MESSAGES}, call)
    completion = ChatCompletion.model_validate_json(answer.content, strict=True)
    assert isinstance(completion.choices[0].message.content, str)
    if model == "plain-llama":
        return  # see below
    assert completion.usage is not None
    assert completion.usage.completion_tokens == laptop.served(call)["completion_tokens"]
    bills.expect(answer, call)


@pytest.mark.parametrize("model", [*CHAT_MODELS, *REASONING_MODELS])
def test_streamed_chunks_are_openais(laptop: Laptop, bills: Bills, model: str) -> None:
    """Strictly parsed one by one, the usage chunk only when it is asked for, and billed to the token either way."""
    for options in ({}, {"stream_options": {"include_usage": True}}):
        call = f"stream-{model}-{len(options)}"
        answer = ask(laptop, CHAT, {"model": model, "messages": MESSAGES, "stream": True, **options}, call)
        chunks = [ChatCompletionChunk.model_validate_json(data, strict=True) for data in events(answer)]
        assert answer.text.endswith("data: [DONE]\n\n")
        said = [choice.delta.content for chunk in chunks for choice in chunk.choices]
        assert "".join(text for text in said if text)
        if model == "plain-llama":
            continue
        assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == ([True] if options else [])
        bills.expect(answer, call)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_tool_calls_are_openais(laptop: Laptop, model: str) -> None:
    """Whole and streamed: one call of the function, its arguments in JSON."""
    body = {"model": model, "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required"}
    whole = ChatCompletion.model_validate_json(ask(laptop, CHAT, body).content, strict=True)
    (call,) = whole.choices[0].message.tool_calls or ()
    assert (call.type, whole.choices[0].finish_reason) == ("function", "tool_calls")
    assert (call.function.name, type(json.loads(call.function.arguments))) == ("look_up", dict)
    answer = ask(laptop, CHAT, {**body, "stream": True})
    chunks = [ChatCompletionChunk.model_validate_json(data, strict=True) for data in events(answer)]
    deltas = [delta for chunk in chunks for choice in chunk.choices for delta in choice.delta.tool_calls or ()]
    assert json.loads("".join(delta.function.arguments or "" for delta in deltas if delta.function))
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"


@pytest.mark.parametrize("model", RESPONSES_MODELS)
def test_responses_are_openais(laptop: Laptop, bills: Bills, model: str) -> None:
    """Strictly parsed, cached and reasoning tokens told apart, billed to the token."""
    call = f"response-{model}"
    answer = ask(laptop, RESPONSES, {"model": model, "input": "Which models are served here?"}, call)
    response = Response.model_validate_json(answer.content, strict=True)
    assert response.output_text
    assert response.usage is not None
    assert (response.usage.output_tokens_details.reasoning_tokens > 0) == model.startswith("o4")
    bills.expect(answer, call)


@pytest.mark.parametrize("model", RESPONSES_MODELS)
@pytest.mark.parametrize("cap", [None, 16])
def test_events_of_streamed_responses_are_openais(laptop: Laptop, bills: Bills, model: str, cap: int | None) -> None:
    """Strictly parsed one by one; the end, complete or cut by the cap, says what is billed."""
    call = f"response-stream-{model}-{cap}"
    body = {"model": model, "input": "Which models are served here?", "stream": True, "max_output_tokens": cap}
    answer = ask(laptop, RESPONSES, body, call, x_sim_output_tokens="40")
    parse = TypeAdapter(ResponseStreamEvent).validate_json
    seen = [parse(data, strict=True) for data in events(answer)]
    assert seen[-1].type == ("response.incomplete" if cap else "response.completed")
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    bills.expect(answer, call)


@pytest.mark.parametrize("model", EMBEDDING_MODELS)
def test_embeddings_are_openais(laptop: Laptop, bills: Bills, model: str) -> None:
    """Strictly parsed, and billed for their input alone."""
    call = f"embed-{model}"
    answer = ask(laptop, EMBEDDINGS, {"model": model, "input": ["one text", "another"]}, call)
    made = CreateEmbeddingResponse.model_validate_json(answer.content, strict=True)
    assert [vector.index for vector in made.data] == [0, 1]
    bills.expect(answer, call)


def test_the_list_of_models_is_openais(laptop: Laptop) -> None:
    """What config lists, as the SDK lists it."""
    listed = httpx.get(f"{laptop.url}/v1/models", headers=laptop.headers("rich")).json()
    assert listed["object"] == "list"
    found = [Model.model_validate(model, strict=True) for model in listed["data"]]
    assert {"azure-gpt", "claude"} <= {model.id for model in found}
    client = laptop.client("rich")
    assert {model.id for model in client.models.list()} == {model.id for model in found}
    assert client.models.retrieve("or-gpt").owned_by == "openrouter"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("unheard/of")
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize("model", CHAT_MODELS)
@pytest.mark.parametrize(("status", "raised"), [(400, openai.BadRequestError), (422, openai.UnprocessableEntityError)])
def test_errors_are_openais(laptop: Laptop, model: str, status: int, raised: type[openai.APIStatusError]) -> None:
    """Whatever shape the provider's own has: all four fields, strictly parsed, and the SDK's own exception."""
    client = laptop.client("rich", max_retries=0)
    headers = {"x-sim-status": str(status)}
    with pytest.raises(raised) as failed:
        client.chat.completions.create(model=model, messages=MESSAGES, extra_headers=headers)  # type: ignore[arg-type]
    error = ErrorObject.model_validate(failed.value.response.json()["error"], strict=True)
    assert (error.code, error.message) == (failed.value.code, failed.value.body["message"])  # type: ignore[index]
    assert error.code


@pytest.mark.parametrize("model", ["azure-gpt", "or-gpt", "dbx-gpt", "ollama-llama", "claude"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_cost_is_told_to_whoever_asks(laptop: Laptop, bills: Bills, model: str, streamed: bool) -> None:
    """As OpenRouter's clients ask, whatever the provider; the figure is the one that the ledger bills."""
    body = {"model": model, "messages": MESSAGES, "usage": {"include": True}, "stream": streamed}
    answer = ask(laptop, CHAT, body)
    told = [json.loads(data).get("usage") for data in events(answer)] if streamed else [answer.json()["usage"]]
    bills.told_usd[answer.headers["x-request-id"]] = [usage for usage in told if usage][-1]["cost"]


def test_a_streamed_response_that_breaks_off_is_billed_by_what_went_by(laptop: Laptop) -> None:
    """Cut after twelve events, of which the first four say nothing: SDKs raise, and eight words at the least are billed
    with the whole prompt.
    """
    body = {"model": "azure-gpt", "input": "Which models are served here?", "stream": True}
    knobs = {"x_sim_fault": "cut", "x_sim_fault_after": "12", "x_sim_output_tokens": "40"}
    answer = ask(laptop, RESPONSES, body, **knobs)
    assert json.loads(events(answer)[-1])["error"]["code"] == "upstream_failed"
    (row,) = eventually(lambda: laptop.rows(answer)).values()
    assert (row.kind, row.measured, row.operation) == ("usage", False, "responses")
    assert 8 <= row.tokens["output"] < 40
    assert row.tokens["input"] > 0


@pytest.mark.parametrize(("model", "field"), [("dbx-gpt", {"seed": 7}), ("or-gpt", {"models": ["dear/model"]})])
def test_a_parameter_that_a_provider_cannot_serve_is_refused_by_name(
    laptop: Laptop, model: str, field: dict[str, Any]
) -> None:
    """By the provider in its own words or by the gateway: one code, one field."""
    answer = laptop.post("rich", CHAT, {"model": model, "messages": MESSAGES, **field})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", *field)


def test_an_operation_that_a_provider_lacks_is_refused(laptop: Laptop) -> None:
    """Anthropic has no Responses API; nothing was asked, so nothing is billed."""
    answer = laptop.post("rich", RESPONSES, {"model": "claude", "input": "hi"}, call="lacking")
    error = ErrorObject.model_validate(answer.json()["error"], strict=True)
    assert (answer.status_code, error.code) == (400, "unsupported_operation")
    assert laptop.served("lacking")["attempts"] == 0


def test_a_model_without_an_endpoint_is_not_served(laptop: Laptop) -> None:
    """Its provider is listed nowhere: no other one gets the prompt instead."""
    answer = laptop.post("rich", CHAT, {"model": "nowhere", "messages": MESSAGES}, call="nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_served")
    assert laptop.served("nowhere")["attempts"] == 0


def test_azure_clients_reach_their_deployments(laptop: Laptop) -> None:
    """The SDK's Azure client names the deployment in the path; its api-version goes with the call."""
    client = laptop.azure_client("rich", default_headers={"x-sim-call-id": "azure-client"})
    completion = client.chat.completions.create(model="gpt-weu", messages=MESSAGES)  # type: ignore[arg-type]
    assert completion.model == "azure-gpt"
    (request,) = laptop.received(call="azure-client")
    assert (request["path"], request["query"]) == (
        "/openai/deployments/gpt-weu/chat/completions",
        "api-version=2024-10-21",
    )


def test_no_provider_sees_the_callers_key(laptop: Laptop) -> None:
    """Nor any other credential of the caller's, whatever the API."""
    for model in CHAT_MODELS:
        ask(laptop, CHAT, {"model": model, "messages": MESSAGES}, f"headers-{model}")
        (request,) = laptop.received(call=f"headers-{model}")
        assert not {"api-key", "x-api-key", "authorization"} & set(request["header_names"])


def test_every_call_is_billed_to_the_token(laptop: Laptop, bills: Bills) -> None:
    """All of the calls above, whole and streamed, in every API: what the model says it served is what the ledger says;
    and what an answer told of its cost is that too.
    """
    assert bills.calls
    assert bills.told_usd
    ids = {*bills.calls, *bills.told_usd}

    def found() -> dict[str, list[LedgerRow]] | None:
        rows = laptop.rows_by_request()
        return rows if ids <= rows.keys() else None

    rows = eventually(found)
    assert {len(rows[request_id]) for request_id in ids} == {1}
    served = laptop.served_by_call()
    expected = {call: truth_nano_usd(served[call]) for call in bills.calls.values()}
    billed = {call: rows[request_id][0] for request_id, call in bills.calls.items()}
    assert {call: row.cost_nano_usd for call, row in billed.items()} == expected
    assert all(row.measured and row.kind == "usage" for row in billed.values())
    told = {request_id: round(cost_usd * 1e9) for request_id, cost_usd in bills.told_usd.items()}
    assert {request_id: rows[request_id][0].cost_nano_usd for request_id in told} == told


def test_the_tier_that_served_a_call_decides_its_price(laptop: Laptop) -> None:
    """Chats and responses, whole and streamed, in each service tier: the row names the tier, cached and reasoning
    tokens, and costs what the price book says of that tier.
    """
    prompt = "word " * 2000
    asks = {CHAT: {"messages": [{"role": "user", "content": prompt}]}, RESPONSES: {"input": prompt}}
    calls: dict[str, tuple[str, str]] = {}
    for tier in TIERS:
        for path, asked in asks.items():
            for streamed in (False, True):
                call = f"tier-{tier}-{path}-{streamed}"
                body = {"model": "o4-mini", "service_tier": tier, "stream": streamed, **asked}
                calls[ask(laptop, path, body, call).headers["x-request-id"]] = (call, tier)

    def found() -> dict[str, list[LedgerRow]] | None:
        rows = laptop.rows_by_request()
        return rows if calls.keys() <= rows.keys() else None

    rows = eventually(found)
    served = laptop.served_by_call()
    cached = 0
    for request_id, (call, tier) in calls.items():
        (row,) = rows[request_id]
        truth = served[call]
        paid, paid_cached, paid_output = TIERS[tier]
        plain = truth["prompt_tokens"] - truth["cached_tokens"]
        nano_usd = plain * paid + truth["cached_tokens"] * paid_cached + truth["completion_tokens"] * paid_output
        assert (row.cost_nano_usd, row.processing_tier) == (nano_usd, "" if tier == "default" else tier), call
        assert row.tokens["reasoning"] > 0, call
        cached += row.tokens.get("cached_input", 0)
    assert cached > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_without_usage_is_billed_by_estimate_at_once(laptop: Laptop, streamed: bool) -> None:
    """Never free, and nothing waits for a count that never comes: 60 words of the model are at least 60 tokens by
    their bytes or their pieces, and the request's own size is its input.
    """
    body = {"model": "plain-llama", "messages": MESSAGES, "stream": streamed}
    answer = ask(laptop, CHAT, body, x_sim_output_tokens="60")
    (row,) = eventually(lambda: laptop.rows(answer)).values()
    assert (row.kind, row.measured) == ("usage", False)
    assert 60 <= row.tokens["output"] <= 120
    assert row.cost_nano_usd == row.tokens["input"] * NANO_USD["input"] + row.tokens["output"] * NANO_USD["output"]
