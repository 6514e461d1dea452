"""The Responses API's stream: every event passes unchanged, and its last one says what was used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.providers.openai_responses import ResponsesWatch

USAGE = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3}


def event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def end(kind: str = "response.completed", **response: Any) -> bytes:
    return event(kind, response={"service_tier": "priority", "usage": USAGE, **response})


def test_events_pass_byte_for_byte_and_the_last_one_is_read() -> None:
    """Cut anywhere on the way: usage, tier and end are found, and nothing is added or lost."""
    sent = event("response.created", response={"usage": None}) + event("response.output_text.delta", delta="é!") + end()
    for cut in range(1, len(sent), 7):
        watch = ResponsesWatch()
        assert watch.feed(sent[:cut]) + watch.feed(sent[cut:]) + watch.rest() == sent
        assert (watch.usage, watch.tier, watch.finished, watch.failed) == (USAGE, "priority", True, False)
        assert (watch.output_bytes, watch.output_deltas) == (3, 1)


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_every_end_tells_its_usage(kind: str) -> None:
    """A cap that cut the answer, or an error after some of it: what was used is billed all the same."""
    watch = ResponsesWatch()
    watch.feed(end(kind))
    assert (watch.usage, watch.finished, watch.failed) == (USAGE, True, kind == "response.failed")


def test_an_error_event_fails_the_stream() -> None:
    """It has no response object; what went by before it stays counted."""
    watch = ResponsesWatch()
    sent = event("response.function_call_arguments.delta", delta='{"a"') + event(
        "error", code="server_error", message=""
    )
    assert watch.feed(sent) == sent
    assert (watch.failed, watch.finished, watch.usage, watch.output_bytes) == (True, False, None, 4)


def test_everything_generated_is_counted_until_the_end_comes() -> None:
    """Text, arguments, reasoning and code: 2 + 3 + 4 + 5 bytes in four pieces, for a stream that breaks off."""
    watch = ResponsesWatch()
    for kind, delta in (
        ("response.output_text.delta", "ab"),
        ("response.function_call_arguments.delta", "abc"),
        ("response.reasoning_summary_text.delta", "abcd"),
        ("response.code_interpreter_call_code.delta", "abcde"),
        ("response.shell_call_output_content.delta", {"stdout": "of the tool, not of the model"}),
    ):
        watch.feed(event(kind, delta=delta))
    assert (watch.output_bytes, watch.output_deltas, watch.usage, watch.finished) == (14, 4, None, False)


def test_an_end_without_usage_or_response_leaves_it_unknown() -> None:
    """Then what went by is billed, as of a stream that broke."""
    watch = ResponsesWatch()
    watch.feed(end(usage=None) + event("response.completed"))
    assert (watch.usage, watch.finished) == (None, True)


def test_the_last_event_may_hold_an_image() -> None:
    """It repeats the whole answer; two megabytes of base64 are one event."""
    watch = ResponsesWatch()
    sent = end(output=[{"type": "image_generation_call", "result": "A" * 2_000_000}])
    pieces = [sent[start : start + 65_536] for start in range(0, len(sent), 65_536)]
    assert b"".join(watch.feed(piece) for piece in pieces) == sent
    assert watch.usage == USAGE
