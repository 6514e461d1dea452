"""What the gateway reads from a request's body about the model it needs, and about its size."""

import json

import pytest

from gateway.call import read_call
from gateway.media import IMAGE_TOKENS
from gateway.needs import capabilities_needed
from gateway.providers.base import Target
from gateway.providers.openai import OpenAiApi
from shared.config.model import Endpoint

ENDPOINT = Endpoint(id="openai", provider="openai", api="openai", url="https://api.openai.com/v1")
TARGET = Target("m", "openai", "m", ENDPOINT, None)
PIXELS = "data:image/png;base64," + "A" * 400_000
SCREENSHOT = {"type": "computer_screenshot", "image_url": PIXELS}
OF_ANTHROPIC = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}


def call(operation="chat", **fields):
    return read_call(operation, json.dumps({"model": "m", **fields}).encode(), None)


def image(operation):
    part = {"type": "image_url", "image_url": {"url": PIXELS}}
    return part if operation == "chat" else {"type": "input_image", "image_url": PIXELS}


def saying(operation, *parts):
    message = {"role": "user", "content": [*parts]}
    return {"messages": [message]} if operation == "chat" else {"input": [message]}


@pytest.mark.parametrize(
    ("operation", "fields", "needs"),
    [
        ("chat", {"messages": [{"role": "user", "content": "hi"}]}, {"chat"}),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"chat", "tools"}),
        ("chat", {"response_format": {"type": "json_schema", "json_schema": {}}}, {"chat", "json"}),
        ("chat", {"response_format": {"type": "text"}}, {"chat"}),
        ("chat", saying("chat", image("chat")), {"chat", "vision"}),
        ("chat", saying("chat", {"type": "input_audio", "input_audio": {"data": "AA"}}), {"chat", "audio"}),
        ("responses", saying("responses", image("responses")), {"chat", "vision"}),
        (
            "responses",
            {"input": [{"type": "function_call_output", "output": [image("responses")]}]},
            {"chat", "vision"},
        ),
        ("responses", {"input": [{"type": "computer_call_output", "output": SCREENSHOT}]}, {"chat", "vision"}),
        ("responses", {"input": "hi", "text": {"format": {"type": "json_object"}}}, {"chat", "json"}),
        ("embeddings", {"input": "hi"}, {"embeddings"}),
    ],
)
def test_needs_are_read_from_the_request(operation, fields, needs):
    """A model without one of them could not serve the call, whatever it costs."""
    assert capabilities_needed(call(operation, **fields)) == needs


@pytest.mark.parametrize("operation", ["chat", "responses"])
def test_an_image_is_not_counted_as_text(operation):
    """400 kB of Base64 would be held as 100,000 tokens; it is one image, and the words around it are text."""
    words = {"type": "text" if operation == "chat" else "input_text", "text": "x" * 4000}
    tokens = call(operation, **saying(operation, words, image(operation))).input_tokens
    assert 4000 / 4 + IMAGE_TOKENS <= tokens <= 4000 / 4 + IMAGE_TOKENS + 100


@pytest.mark.parametrize(
    ("operation", "item"),
    [
        ("responses", {"type": "function_call_output", "call_id": "c", "output": [image("responses")]}),
        ("responses", {"type": "computer_call_output", "call_id": "c", "output": SCREENSHOT}),
        ("responses", {"type": "image_generation_call", "id": "i", "status": "completed", "result": "A" * 400_000}),
        ("chat", {"role": "tool", "tool_call_id": "c", "content": [image("chat")]}),
        ("chat", {"role": "user", "content": [OF_ANTHROPIC]}),
    ],
    ids=["function's output", "screenshot", "made image", "tool's result", "Anthropic's own"],
)
def test_an_image_is_not_text_wherever_it_stands(operation, item):
    """An agent's tools put out screenshots: counted as text, two of them would be more than any budget or model has."""
    tokens = call(operation, **{"messages" if operation == "chat" else "input": [item]}).input_tokens
    assert IMAGE_TOKENS < tokens <= IMAGE_TOKENS + 100


def test_sound_is_counted_by_its_length():
    """64 Base64 bytes a token: dearer than its text would be worth, far less than as text."""
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "wav"}}
    assert 1_000 <= call(**saying("chat", sound)).input_tokens <= 1_100


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({"type": "web_search_preview"}, None),
        ({"type": "function", "name": "look_up"}, {"type": "function", "name": "look_up"}),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "web_search"}, {"type": "function", "name": "look_up"}],
            },
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look_up"}]},
        ),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}, None),
        ("required", "required"),
    ],
)
def test_a_response_goes_without_its_disabled_tools(choice, left):
    """What the request says about choosing follows: nothing may point at a tool that is gone."""
    tools = [{"type": "web_search_preview"}, {"type": "function", "name": "look_up", "parameters": {}}]
    asked = call("responses", input="hi", tools=tools, tool_choice=choice)
    body = json.loads(OpenAiApi().request(asked, TARGET, ["web_search"]).body)
    assert body["tools"] == tools[1:]
    assert body.get("tool_choice") == left


def test_a_chats_allowed_tools_lose_the_disabled_one():
    """Chat completions nest the list one deeper."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("web_search", "look_up")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}}
    asked = call(messages=[], tools=tools, tool_choice=choice)
    body = json.loads(OpenAiApi().request(asked, TARGET, ["web_search"]).body)
    assert body["tool_choice"]["allowed_tools"] == {"mode": "auto", "tools": tools[1:]}


def test_tools_are_found_wherever_a_response_brings_them():
    """In a namespace, or later in the conversation: a disabled one would be a search that the budget switched off."""
    search, look_up = {"type": "web_search"}, {"type": "function", "name": "look_up", "parameters": {}}
    crm = {"type": "namespace", "name": "crm", "description": "", "tools": [look_up, {**look_up, "name": "charge"}]}
    said = {"role": "user", "content": "hi"}
    brought = {"type": "additional_tools", "role": "developer", "tools": [search]}
    found = {"type": "tool_search_output", "call_id": "c", "execution": "client", "tools": [search]}
    asked = call("responses", input=[said, brought, found], tools=[crm])
    assert set(asked.tools) == {"namespace", "look_up", "charge", "web_search"}
    body = json.loads(OpenAiApi().request(asked, TARGET, ["web_search", "charge"]).body)
    assert body["input"] == [said, {**found, "tools": []}]
    assert body["tools"] == [{**crm, "tools": [look_up]}]
    assert "tools" not in json.loads(OpenAiApi().request(asked, TARGET, ["look_up", "charge"]).body)
    assert asked.body["input"] == [said, brought, found]
    assert asked.body["tools"] == [crm]
