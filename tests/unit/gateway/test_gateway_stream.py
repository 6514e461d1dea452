"""Streams on their way through the gateway."""

import json
from types import SimpleNamespace

import pytest

from gateway.generated import generated_tokens
from gateway.stream import UsageWatch, stream_error

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}\n\n'
FILTER = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
LAST = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
DONE = b"data: [DONE]\n\n"
STREAM = FILTER + WORD + WORD + LAST + DONE


def relay(watch: UsageWatch, stream: bytes, size: int) -> bytes:
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    return b"".join(watch.feed(piece) for piece in pieces) + watch.rest()


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_the_usage_chunk_is_read_and_hidden_however_the_stream_is_cut(size):
    """The client sees exactly what it would have seen without the gateway's own request for usage."""
    watch = UsageWatch(hide_usage_chunk=True)
    assert relay(watch, STREAM, size) == FILTER + WORD + WORD + DONE
    assert watch.usage == USAGE
    assert watch.finished


@pytest.mark.parametrize("spoiled", [b'"\xff"', b"[" * 5000 + b"]" * 5000, b'{"choices": [{"delta": {"con'])
def test_a_chunk_that_cannot_be_read_becomes_an_error_and_the_end(spoiled):
    """Passed on it would be a crash somewhere in the client's JSON parser; as an error event its SDK raises it."""
    watch = UsageWatch(hide_usage_chunk=True)
    sent = relay(watch, WORD + b'data: {"usage": ' + spoiled + b"}\n\n" + LAST + DONE, 4096)
    assert sent.startswith(WORD)
    assert json.loads(sent.removeprefix(WORD + b"data: "))["error"]["code"] == "upstream_failed"
    assert (watch.failed, watch.finished, watch.usage) == (True, False, None)


def test_an_error_of_the_provider_is_passed_on_and_ends_the_stream():
    """OpenAI's way to fail after the first byte: the client gets it as it came."""
    error = b'data: {"error":{"message":"overloaded","code":"server_error"}}\n\n'
    watch = UsageWatch(hide_usage_chunk=True)
    assert watch.feed(WORD + error + WORD) == WORD + error
    assert watch.failed


def test_comments_and_unknown_events_pass():
    """OpenRouter sends comments to keep connections open."""
    watch = UsageWatch(hide_usage_chunk=True)
    stream = b": OPENROUTER PROCESSING\n\n" + b"data: 7\n\n" + WORD + DONE
    assert relay(watch, stream, 9) == stream
    assert not watch.failed


def test_what_was_generated_is_counted():
    """Text, refusals, reasoning and calls of tools, in bytes of UTF-8 and in pieces; a role is none."""
    deltas = [
        {"role": "assistant", "content": ""},
        {"content": "h\u00e9"},  # 3 bytes
        {"reasoning_content": "so"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "c-1", "function": {"name": "find", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"q":1}'}}]},
        {"content": [{"type": "text", "text": "abc"}]},
        {},
    ]
    watch = UsageWatch(hide_usage_chunk=True)
    for delta in deltas:
        watch.feed(b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n")
    assert (watch.output_bytes, watch.output_deltas) == (3 + 2 + 2 + 4 + 7 + 3, 6)
    assert generated_tokens(watch) == 6


@pytest.mark.parametrize(
    ("output_bytes", "output_deltas", "tokens"),
    [(0, 0, 0), (1, 1, 1), (12, 2, 2), (13, 2, 4), (4000, 3, 1000), (9, 5, 5)],
)
def test_tokens_of_a_broken_stream(output_bytes, output_deltas, tokens):
    """One for every piece while pieces are as small as tokens; else one for every four bytes begun."""
    assert generated_tokens(SimpleNamespace(output_bytes=output_bytes, output_deltas=output_deltas)) == tokens


def test_a_client_that_asked_for_usage_gets_every_byte():
    """With include_usage in the request the stream passes unchanged."""
    watch = UsageWatch(hide_usage_chunk=False)
    assert relay(watch, STREAM, 10) == STREAM
    assert watch.usage == USAGE


def test_events_leave_as_soon_as_they_are_complete():
    """Nothing is held back but an event's unfinished end: a stream stays a stream."""
    watch = UsageWatch(hide_usage_chunk=True)
    assert watch.feed(WORD[:-1]) == b""
    assert watch.feed(WORD[-1:] + WORD[:5]) == WORD
    assert watch.feed(WORD[5:]) == WORD


def test_windows_line_endings_are_understood():
    """Some backends end lines with CR LF."""
    watch = UsageWatch(hide_usage_chunk=True)
    stream = STREAM.replace(b"\n", b"\r\n")
    assert relay(watch, stream, 5) == (FILTER + WORD + WORD + DONE).replace(b"\n", b"\r\n")
    assert watch.usage == USAGE


def test_a_cut_stream_has_no_usage():
    """Usage comes last; a stream that ends before it is billed by what went by. Half an event is an error, not text."""
    watch = UsageWatch(hide_usage_chunk=True)
    sent = relay(watch, WORD + b"data: {bro", 4096)
    assert json.loads(sent.removeprefix(WORD + b"data: "))["error"]["code"] == "upstream_failed"
    assert watch.usage is None
    assert not watch.finished
    assert (watch.output_bytes, watch.output_deltas) == (2, 1)


def test_text_that_looks_like_usage_is_not():
    """A model that writes the word usage does not hide its own chunk."""
    word = b'data: {"choices":[{"delta":{"content":"\\"usage\\": {}"}}]}\n\n'
    watch = UsageWatch(hide_usage_chunk=True)
    assert relay(watch, word, 4096) == word
    assert watch.usage is None


def test_an_answer_is_whole_once_every_choice_has_ended():
    """A backend that hangs up behind its last word instead of saying [DONE] has still said everything."""

    def chunk(index, reason):
        choice = {"index": index, "delta": {}, "finish_reason": reason}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    watch = UsageWatch(hide_usage_chunk=True)
    seen = []
    for index, reason in ((0, None), (1, None), (0, "stop"), (1, "length")):
        watch.feed(chunk(index, reason))
        seen.append(watch.finished)
    assert seen == [False, False, False, True]


def test_an_endless_event_is_not_collected():
    """A megabyte without an event's end is an error: memory stays bounded."""
    watch = UsageWatch(hide_usage_chunk=True)
    assert watch.feed(b"x" * (1024 * 1024)) == b""
    assert b"upstream_failed" in watch.feed(b"y")
    assert watch.failed
    assert watch.feed(b"z" * 1024) == b""


@pytest.mark.parametrize("depth", [400, 600, 900, 980, 5_000])
def test_an_event_nested_however_deep_ends_the_stream_or_passes(depth):
    """A defect amid a stream would cut the client off without a word."""
    watch = UsageWatch(hide_usage_chunk=True)
    event = b'data: {"choices":[{"delta":{"content":' + b"[" * depth + b"]" * depth + b"}}]}\n\n"
    said = watch.feed(event)
    assert said == event or (watch.failed and b"upstream_failed" in said)


def test_a_stream_error_is_an_openai_error_event():
    """The SDK raises on an event with `error`, so a broken stream is never taken for a whole one."""
    event = json.loads(stream_error("upstream_failed", "cut", "r-1").removeprefix(b"data: "))
    assert event["error"]["code"] == "upstream_failed"


def test_a_last_event_without_its_blank_line_gets_one():
    """What the gateway says of the end that is missing would else be taken for more of the same event."""
    watch = UsageWatch(hide_usage_chunk=False)
    assert watch.feed(WORD.rstrip()) + watch.rest() == WORD
    assert watch.output_deltas == 1
