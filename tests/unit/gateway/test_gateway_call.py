"""The gateway's reading of a request and the body it sends on."""

import json

import pytest

from gateway.call import read_call
from gateway.providers.base import Target
from gateway.providers.openai import OpenAiApi
from gateway.tools import dropped_tools
from shared.config.model import Endpoint
from shared.errors import InvalidRequest

MESSAGES = [{"role": "user", "content": "hello"}]
ENDPOINT = Endpoint(id="openai", provider="openai", api="openai", url="https://api.openai.com/v1")
TARGET = Target("gpt-4o-mini", "openai", "gpt-4o-mini", ENDPOINT, None)


def chat(path_deployment: str | None = None, **fields: object):
    return read_call("chat", json.dumps({"messages": MESSAGES, **fields}).encode(), path_deployment)


def sent(call, disabled_tools=()) -> dict:
    return json.loads(OpenAiApi().request(call, TARGET, disabled_tools).body)


def test_a_deployment_in_the_path_names_the_model():
    """Azure clients repeat the model in the body or leave it out; the path decides, and the check reads it."""
    assert chat("gpt-4o-swc", model="gpt-4o-mini").model == "gpt-4o-swc"
    assert chat(model="gpt-4o-mini").model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 50, "max_tokens": 100}, 50),
        ({"max_tokens": 100, "n": 3}, 3 * 100),
    ],
)
def test_the_cap_on_output_counts_every_choice(fields, expected):
    """Three choices of at most 100 tokens may cost 300, so that much is held."""
    assert chat(model="gpt-4o", **fields).max_output_tokens == expected


@pytest.mark.parametrize(("fields", "choices"), [({}, 1), ({"n": None}, 1), ({"n": 128}, 128)])
def test_the_number_of_answers_is_told(fields, choices):
    """Without a cap only this says that a call costs 128 answers."""
    assert chat(model="gpt-4o", **fields).choices == choices


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({}, ""),
        ({"service_tier": None}, ""),
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "auto"}, "auto"),
        ({"speed": "fast", "service_tier": "default"}, "fast"),
        ({"inference_geo": "us", "service_tier": "auto"}, "inference-us"),
        ({"service_tier": ["priority"]}, ""),
        ({"service_tier": "p" * 129}, ""),
    ],
)
def test_the_tier_asked_for_is_told(fields, tier):
    """The hold is priced by it; the body passes on what the client sent, and its provider says what is wrong there."""
    call = chat(model="gpt-4o", **fields)
    assert call.service_tier == tier
    assert sent(call).get("service_tier") == fields.get("service_tier")


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model": 7}', "model"),
        (b'{"model": "m", "stream": "yes"}', "stream"),
        (b'{"model": "m", "max_tokens": -1}', "max_tokens"),
        (b'{"model": "m", "max_tokens": true}', "max_tokens"),
        (b'{"model": "m", "max_tokens": 5, "n": 0.5}', "n"),
        (b'{"model": "m", "n": -5}', "n"),
        (b'{"model": "m", "n": 500}', "n"),
        (b'{"model": "m", "messages": "\xff"}', None),
        (b'{"\xff": 1}', None),
        (b"[" * 100_000, None),
        (b'{"model": "m", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b'{"model": "m", "tools": "all"}', "tools"),
        (b'{"model": "m", "tools": [1]}', "tools"),
        (b'{"model": "m", "stream_options": 1}', "stream_options"),
    ],
)
def test_a_malformed_request_names_its_field(raw, param):
    """A wrong field is a 400 that names it, before any budget is held or a model called."""
    with pytest.raises(InvalidRequest) as raised:
        read_call("chat", raw, None)
    assert raised.value.param == param


def test_usage_is_asked_for_on_every_stream():
    """A stream without usage could not be billed exactly, so the gateway asks even when the client did not."""
    assert sent(chat(model="gpt-4o", stream=True))["stream_options"] == {"include_usage": True}
    kept = sent(chat(model="gpt-4o", stream=True, stream_options={"include_obfuscation": False}))
    assert kept["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in sent(chat(model="gpt-4o"))
    assert chat(model="gpt-4o", stream=True, stream_options={"include_usage": True}).wants_usage_chunk


def test_nothing_else_of_the_body_changes():
    """Whatever the gateway does not know reaches the model as it was sent."""
    body = sent(chat(model="gpt-4o", temperature=0.25, response_format={"type": "json_object"}, unknown=[1, None]))
    assert body == {
        "messages": MESSAGES,
        "model": "gpt-4o-mini",
        "temperature": 0.25,
        "response_format": {"type": "json_object"},
        "unknown": [1, None],
    }


def test_disabled_tools_are_left_out_and_named():
    """A disabled tool is dropped, the others stay."""
    search = {"type": "function", "function": {"name": "web_search"}}
    lookup = {"type": "function", "function": {"name": "look_up"}}
    call = chat(model="gpt-4o", tools=[search, lookup], tool_choice="auto")
    assert call.tools == ("web_search", "look_up")
    body = sent(call, ["web_search", "code_interpreter"])
    assert (body["tools"], body["tool_choice"]) == ([lookup], "auto")
    assert dropped_tools(call.tools, ["code_interpreter", "web_search"]) == ["web_search"]


def test_without_tools_left_nothing_points_at_them():
    """tool_choice without tools is an error at the backend, so it goes with the last tool."""
    search = {"type": "function", "function": {"name": "web_search"}}
    choice = {"type": "function", "function": {"name": "web_search"}}
    call = chat(model="gpt-4o", tools=[search], tool_choice=choice, parallel_tool_calls=False, web_search_options={})
    assert set(sent(call, ["web_search"])) == {"messages", "model"}


def test_a_search_asked_for_as_a_plugin_is_one():
    """OpenRouter's `web` plugin searches, and costs, as the tool does: it must not get around a budget."""
    web, parser = {"id": "web", "max_results": 5}, {"id": "file-parser"}
    call = chat(model="gpt-4o", plugins=[web, parser, "odd"])
    assert call.tools == ("web_search", "file-parser")
    assert sent(call, ["web_search"])["plugins"] == [parser, "odd"]
    assert sent(call)["plugins"] == [web, parser, "odd"]
    assert chat(model="gpt-4o", plugins="web").tools == ()


def test_a_choice_of_a_disabled_tool_goes_with_it():
    """Forcing a tool that was dropped would fail the call; the model chooses among the rest instead."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("web_search", "look_up")]
    choice = {"type": "function", "function": {"name": "web_search"}}
    body = sent(chat(model="gpt-4o", tools=tools, tool_choice=choice), ["web_search"])
    assert "tool_choice" not in body
    assert len(body["tools"]) == 1


def test_embeddings_hold_nothing_for_output():
    """An embeddings call has no output tokens to estimate."""
    call = read_call("embeddings", b'{"model": "text-embedding-3-small", "input": "x"}', None)
    assert call.max_output_tokens == 0


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ({"type": "web_search", "name": "harmless"}, "web_search"),
        ({"type": "web_search_preview"}, "web_search"),
        ({"type": "code_interpreter"}, "code_interpreter"),
        ({"type": "custom", "custom": {"name": "grep"}}, "grep"),
        ({"type": "function", "name": "look_up"}, "look_up"),
    ],
)
def test_a_tool_goes_by_the_name_that_budgets_disable(tool, name):
    """A name beside a built-in tool's type does not hide it from the budget, and previews count as the tool itself."""
    call = chat(model="gpt-4o", tools=[tool])
    assert call.tools == (name,)
    assert "tools" not in sent(call, [name])
