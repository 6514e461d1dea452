"""Whatever JSON a provider sends, in whatever pieces: its code reads it or says that it cannot, and does no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import call_of
from gateway.providers import api_of
from gateway.providers.base import AnswerFailed, AnswerUnreadable, Api, WholeAnswer
from shared.config.model import APIS

NAMES = (
    *("choices", "delta", "message", "content", "tool_calls", "function", "arguments", "name", "index", "error"),
    *("usage", "prompt_tokens", "input_tokens", "output", "output_tokens", "status", "service_tier", "type", "text"),
    *("response", "summary", "finish_reason", "error_code", "stop_reason", "data", "content_block", "id", "code"),
)
WORDS = (
    *("", "text", "tool_use", "failed", "response.completed", "response.failed", "error", "message_start", "é"),
    *("message_delta", "content_block_start", "content_block_delta", "text_delta", "input_json_delta", "thinking"),
)
SCALARS = st.none() | st.booleans() | st.integers(-1, 600) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
SPOKEN = [("chat", api) for api in APIS] + [("responses", api) for api in APIS if api != "anthropic"]


def call(operation: Any, *, streamed: bool = False) -> Any:
    asked = {"input": "hi"} if operation == "responses" else {"messages": [{"role": "user", "content": "hi"}]}
    return call_of(operation, {"model": "m", "stream": streamed, **asked}, 40)


def read(api: Api, operation: Any, content: bytes) -> WholeAnswer | AnswerFailed | None:
    """None: it says that nobody can read it."""
    try:
        return api.whole(call(operation), content)
    except AnswerFailed as failed:
        return failed
    except AnswerUnreadable:
        return None


@pytest.mark.parametrize(("operation", "api"), SPOKEN)
@settings(max_examples=20, deadline=None)
@given(body=BODIES)
def test_any_whole_answer_is_read_or_said_to_be_none(operation: str, api: str, body: dict[str, Any]) -> None:
    """Never a crash, which a client would see as a defect of the gateway and nobody would bill."""
    content = json.dumps(body).encode()
    outcome = read(api_of(api), operation, content)
    if isinstance(outcome, AnswerFailed):
        assert 400 <= outcome.status <= 599
        assert isinstance(json.loads(outcome.content)["error"]["message"], str)
    elif outcome is not None:
        assert isinstance(json.loads(outcome.content), dict)
        assert outcome.usage is None or isinstance(outcome.usage, dict)
        assert outcome.output_bytes >= 0


@pytest.mark.parametrize(("operation", "api"), SPOKEN)
@settings(max_examples=15, deadline=None)
@given(body=VALUES, status=st.sampled_from([400, 404, 429, 500, 529]))
def test_any_error_has_openais_shape(operation: str, api: str, body: Any, status: int) -> None:
    """All four fields with their types, whatever came."""
    error = json.loads(api_of(api).failure(call(operation), status, json.dumps(body).encode()))["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str | None)
    assert isinstance(error["param"], str | None)


@pytest.mark.parametrize(("operation", "api"), SPOKEN)
@settings(max_examples=20, deadline=None)
@given(chunks=st.lists(BODIES, max_size=4), cut=st.integers(1, 50))
def test_any_stream_is_read(operation: str, api: str, chunks: list[dict[str, Any]], cut: int) -> None:
    """What the client sees of it are events that are JSON, or the end."""
    sent = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    stream = api_of(api).stream(call(operation, streamed=True))
    seen = b"".join(stream.feed(sent[start : start + cut]) for start in range(0, len(sent), cut)) + stream.rest()
    for line in seen.splitlines():
        data = line.removeprefix(b"data: ")
        assert not line.startswith(b"data:") or data == b"[DONE]" or json.loads(data) is not None
    assert stream.output_bytes >= 0
    assert stream.usage is None or isinstance(stream.usage, dict)
