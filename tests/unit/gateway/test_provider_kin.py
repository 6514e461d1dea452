"""OpenRouter and Databricks: where they differ from OpenAI's API that they follow."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from gateway.call import call_of
from gateway.providers import api_of
from gateway.providers.base import AnswerFailed, Target
from shared.config.model import Endpoint
from shared.errors import InvalidRequest

OPENROUTER, DATABRICKS = api_of("openrouter"), api_of("databricks")
SAID = [{"role": "user", "content": "hi"}]


def call(**body: Any):
    return call_of("chat", {"model": "m", "messages": SAID, **body}, 40)


def body_for(provider: str, asked: Any, disabled: Collection[str] = ()) -> dict[str, Any]:
    endpoint = Endpoint(id="e", provider=provider, api=provider, url="https://x")
    deployment = "vendor/m" if provider == "openrouter" else "m"
    request = api_of(provider).request(asked, Target("m", provider, deployment, endpoint, None), disabled)
    return json.loads(request.body)


def event(chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def told(events: bytes) -> list[Any]:
    data = [line.removeprefix(b"data: ") for line in events.splitlines() if line]
    return [json.loads(text) for text in data if text != b"[DONE]"]


def test_azures_first_chunk_is_one_that_sdks_know() -> None:
    """It holds what the content filter found of the prompt, and nothing in the other fields, its type included."""
    found = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [{"x": 1}]}
    said = event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]})
    stream = api_of("azure-openai").stream(call(stream=True))
    (first,) = told(stream.feed(event(found)))
    assert first == {**found, "object": "chat.completion.chunk"}
    ChatCompletionChunk.model_validate(first, strict=True)
    assert stream.feed(said) == said


@pytest.mark.parametrize("named", [{"object": "", "model": ""}, {"object": "chat.completion.chunk", "model": "gpt"}])
def test_azures_late_findings_are_chunks_that_sdks_know(named: dict[str, str]) -> None:
    """A filter that works behind the model tells of text already sent, in choices without a delta: clients that read
    one would break off.
    """
    found = {"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {"end": 4}}
    late = {"id": "", "created": 0, **named, "choices": [found], "usage": None}
    (chunk,) = told(api_of("azure-openai").stream(call(stream=True)).feed(event(late)))
    assert chunk["choices"] == [{**found, "delta": {}}]
    ChatCompletionChunk.model_validate(chunk, strict=True)


@pytest.mark.parametrize("asked", [{}, {"usage": {"include": True}}, {"usage": {"include": False}}, {"stream": True}])
def test_openrouter_is_always_asked_for_its_accounting(asked: dict[str, Any]) -> None:
    """Whether or not the client asks; what the client sees of it is decided on the way back."""
    assert body_for("openrouter", call(**asked))["usage"] == {"include": True}


@pytest.mark.parametrize(
    "field",
    [
        {"models": ["dear/model"]},
        {"route": "fallback"},
        {"preset": "p"},
        {"plugins": [{"id": "fusion", "analysis_models": ["dear/model"]}]},
        {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "dear/model"}}]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_openrouter_chooses_no_model_that_no_budget_checked(field: dict[str, Any]) -> None:
    """A list of other models in the request would pass the tenant's allowed models and the check by."""
    with pytest.raises(InvalidRequest) as refused:
        body_for("openrouter", call(**field))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", *field)


def test_openrouters_other_parameters_pass() -> None:
    """Its own routing among hosts of the one model included."""
    asked = {"provider": {"order": ["a"], "allow_fallbacks": False}, "reasoning": {"effort": "low"}, "top_k": 3}
    asked |= {"plugins": [{"id": "file-parser"}], "tools": [{"type": "openrouter:web_search"}, {"type": "web_search"}]}
    assert body_for("openrouter", call(**asked)).items() >= asked.items()


def test_openrouters_search_is_the_search_that_a_budget_disables() -> None:
    """Whoever's tool it is."""
    asked = call(tools=[{"type": "openrouter:web_search"}])
    assert asked.tools == ("web_search",)
    assert "tools" not in body_for("openrouter", asked, disabled=["web_search"])


def test_openrouters_error_amid_a_stream_becomes_one_that_sdks_raise() -> None:
    """It comes as a chunk with a finish reason that no SDK knows; its comments keep the connection open and pass."""
    stream = OPENROUTER.stream(call(stream=True))
    comment, said = b": OPENROUTER PROCESSING\n\n", event({"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
    assert stream.feed(comment + said) == comment + said
    broken = {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "error": {"code": 502, "message": "provider disconnected", "metadata": {"provider_name": "x"}},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }
    told = json.loads(stream.feed(event(broken)).removeprefix(b"data: "))
    assert told == {
        "error": {
            "code": "upstream_failed",
            "message": "provider disconnected",
            "type": "server_error",
            "param": None,
            "metadata": {"provider_name": "x"},
        }
    }
    assert (stream.failed, stream.finished, stream.usage, stream.output_bytes) == (True, False, None, 3)


def test_a_choice_that_ended_in_an_error_makes_the_answer_one() -> None:
    """What the provider counted of it is billed all the same."""
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    error = {"code": 502, "message": "provider disconnected"}
    choice = {"index": 0, "message": {"content": "Hel"}, "finish_reason": "error", "error": error}
    with pytest.raises(AnswerFailed) as failed:
        OPENROUTER.whole(call(), json.dumps({"choices": [choice], "usage": usage}).encode())
    assert (failed.value.status, failed.value.usage) == (502, usage)
    assert json.loads(failed.value.content)["error"]["message"] == "provider disconnected"


def test_the_word_error_alone_fails_no_answer() -> None:
    """A model may well write it."""
    content = json.dumps({"choices": [{"message": {"content": '{"error": true}'}}], "usage": {"prompt_tokens": 1}})
    assert OPENROUTER.whole(call(), content.encode()).content == content.encode()


def test_databricks_gets_no_hints_that_it_would_refuse() -> None:
    """Fields that change nothing in the answer; the model stands in the path, the cap under the name it knows."""
    asked = call(
        stream=True,
        stream_options={"include_usage": True},
        store=True,
        user="ada",
        metadata={"a": "b"},
        parallel_tool_calls=True,
        service_tier="auto",
        max_completion_tokens=50,
        temperature=0.5,
    )
    assert body_for("databricks", asked) == {"messages": SAID, "stream": True, "max_tokens": 50, "temperature": 0.5}


def test_databricks_gets_what_would_change_the_answer() -> None:
    """One tool at a time is a wish it may refuse by name, not one to forget in silence; so is any other field."""
    asked = {"parallel_tool_calls": False, "seed": 7, "service_tier": "priority"}
    assert body_for("databricks", call(**asked)).items() >= asked.items()


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ('Bad request: json: unknown field "seed"\n', "seed"),
        ("parallel_tool_calls: Extra inputs are not permitted", "parallel_tool_calls"),
    ],
)
def test_a_field_that_databricks_refuses_is_named(message: str, param: str) -> None:
    """The same code and field as where this gateway refuses one itself."""
    content = json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()
    error = json.loads(DATABRICKS.failure(call(), 400, content))["error"]
    assert (error["code"], error["param"], error["message"]) == ("unsupported_parameter", param, message)


PARTS = [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "text", "text": "Hel"},
    {"type": "text", "text": "lo"},
]


def test_databricks_content_in_parts_becomes_text() -> None:
    """Models of Anthropic answer so there; OpenAI's clients take a text, and thoughts beside it."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    content = json.dumps({"choices": [{"message": {"role": "assistant", "content": PARTS}}], "usage": usage}).encode()
    answer = DATABRICKS.whole(call(), content)
    message = json.loads(answer.content)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    assert answer.usage == usage


@pytest.mark.parametrize("asked", [False, True])
def test_databricks_streams_tell_usage_on_every_chunk(asked: bool) -> None:
    """The last one counts, and is told once at the end; added up over the chunks it would be many times too much."""
    stream = DATABRICKS.stream(call(stream=True, stream_options={"include_usage": asked}))
    said = {"id": "c-1", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    assert told(stream.feed(event({**said, "usage": {"prompt_tokens": 9}}))) == [said]
    parts = {"id": "c-1", "choices": [{"index": 0, "delta": {"content": PARTS}}]}
    (chunk,) = told(stream.feed(event(parts)))
    assert chunk["choices"][0]["delta"] == {"content": "Hello", "reasoning_content": "hm"}
    last = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    stream.feed(event({"id": "c-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": last}))
    end = stream.feed(b"data: [DONE]\n\n")
    assert end.endswith(b"data: [DONE]\n\n")
    assert told(end) == ([{"id": "c-1", "choices": [], "usage": last}] if asked else [])
    assert (stream.usage, stream.finished) == (last, True)
