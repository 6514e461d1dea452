"""Whatever a client or a provider sends, the translation for Anthropic answers or refuses; nothing else is raised."""

import contextlib
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import read_call
from gateway.providers.anthropic import AnthropicApi
from gateway.providers.base import AnswerFailed, AnswerUnreadable, Target
from shared.config.model import Endpoint
from shared.errors import InvalidRequest

ENDPOINT = Endpoint(id="claude", provider="anthropic", api="anthropic", url="https://api.anthropic.com")
TARGET = Target("claude", "anthropic", "claude", ENDPOINT, None)
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
BODY = {
    "model": "claude",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "file", "file": {"filename": "a", "file_data": "data:text/plain;base64,AAAA"}},
            ],
        },
        {"role": "assistant", "content": "x", "tool_calls": [CALL], "thinking_blocks": [{"type": "thinking"}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}]},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CALL]}},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    "reasoning_effort": "low",
    "output_config": {"effort": "low"},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "metadata": {"user_id": "u"},
    "user": "u",
    "stop": ["a"],
    "service_tier": "auto",
    "temperature": 0.5,
    "parallel_tool_calls": False,
    "logit_bias": {},
    "modalities": ["text"],
}
CITATION = {"type": "web_search_result_location", "url": "https://example.com", "title": "t"}
USAGE = {
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_read_input_tokens": 3,
    "cache_creation": {"ephemeral_1h_input_tokens": 1},
    "output_tokens_details": {"thinking_tokens": 1},
    "service_tier": "standard",
}
BLOCKS = [
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "text", "text": "x", "citations": [CITATION]},
    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
]
DELTAS = [
    {"type": "thinking_delta", "thinking": "t"},
    {"type": "citations_delta", "citation": CITATION},
    {"type": "input_json_delta", "partial_json": "{}"},
]
MESSAGE = {
    "id": "m",
    "type": "message",
    "model": "claude",
    "content": BLOCKS,
    "stop_reason": "refusal",
    "stop_details": {"type": "refusal", "explanation": "no"},
    "usage": USAGE,
}
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": []}},
    *({"type": "content_block_start", "index": i, "content_block": block} for i, block in enumerate(BLOCKS)),
    *({"type": "content_block_delta", "index": i, "delta": delta} for i, delta in enumerate(DELTAS)),
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "y"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
    *({"type": "content_block_stop", "index": i} for i in range(3)),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "refusal", "stop_details": {"explanation": "n"}},
        "usage": USAGE,
    },
    {"type": "message_stop"},
]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just([7, None, "x", [], {}]),
    st.just({"type": {}, "text": 7, "name": [], "x": None}),
)


@st.composite
def spoiled(draw, whole):
    """A copy in which some part, however deep, is something else or gone."""
    changed = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        part = changed
        while True:
            places = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(part[place], dict | list) and draw(st.booleans()):
                part = part[place]
                continue
            if isinstance(part, dict) and draw(st.booleans()):
                del part[place]
            else:
                part[place] = copy.deepcopy(draw(JUNK))
            break
    return changed


@given(spoiled(BODY), st.sampled_from([(), ("f",), ("f", "web_search")]))
def test_every_request_is_translated_or_refused(body, disabled_tools):
    """A request that stumbles would be a 500, and the client could not know what to change."""
    try:
        call = read_call("chat", json.dumps(body).encode(), None)
        sent = json.loads(AnthropicApi().request(call, TARGET, disabled_tools).body)
    except InvalidRequest:
        return
    assert sent["messages"]
    assert sent["max_tokens"] > 0


@given(spoiled(MESSAGE))
def test_every_answer_is_read_or_known_to_be_lost(message):
    """An answer that stumbles would be a call that nobody bills."""
    try:
        whole = AnthropicApi().whole(read_call("chat", json.dumps(BODY).encode(), None), json.dumps(message).encode())
    except (AnswerFailed, AnswerUnreadable):
        return
    assert json.loads(whole.content)["choices"]
    assert whole.usage is None or whole.usage == message["usage"]


@given(spoiled(EVENTS), st.sampled_from([50, 400, 10_000]))
def test_every_stream_is_read_to_its_end(events, size):
    """Whatever stands in an event, what the client gets is events of JSON, and the stream knows whether it ended."""
    stream = AnthropicApi().stream(read_call("chat", json.dumps({**BODY, "stream": True}).encode(), None))
    raw = "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    out = b"".join(stream.feed(raw[i : i + size]) for i in range(0, len(raw), size)) + stream.rest()
    for event in out.decode().split("\n\n")[:-1]:
        data = event.removeprefix("data: ")
        assert data == "[DONE]" or isinstance(json.loads(data), dict)
    assert stream.finished == (b"[DONE]" in out)


@pytest.mark.parametrize("depth", [900, 990, 1_000, 5_000])
def test_arguments_nested_deep_are_sent_or_refused(depth):
    """What can just be read is nested deeper once it stands inside the conversation."""
    deep = {**CALL, "function": {"name": "f", "arguments": '{"a":' + "[" * depth + "]" * depth + "}"}}
    body = {**BODY, "messages": [{"role": "assistant", "tool_calls": [deep]}]}
    with contextlib.suppress(InvalidRequest):
        assert AnthropicApi().request(read_call("chat", json.dumps(body).encode(), None), TARGET, ()).body
