"""Streams on their way through the gateway."""

import json

import pytest

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


@pytest.mark.parametrize("usage", [b'"\xff"', b"[" * 5000 + b"]" * 5000])
def test_a_chunk_that_cannot_be_read_passes_as_it_came(usage):
    """Bytes of the backend that are no UTF-8, or nested too deep, must not end the stream or lose its usage."""
    odd = b'data: {"usage": ' + usage + b"}\n\n"
    watch = UsageWatch(hide_usage_chunk=True)
    assert relay(watch, odd + LAST + DONE, 4096) == odd + DONE
    assert watch.usage == USAGE


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
    """Usage comes last; a stream that ends before it is billed by its estimate instead."""
    watch = UsageWatch(hide_usage_chunk=True)
    assert relay(watch, WORD + b"data: {bro", 4096) == WORD + b"data: {bro"
    assert watch.usage is None
    assert not watch.finished


def test_text_that_looks_like_usage_is_not():
    """A model that writes the word usage does not hide its own chunk."""
    word = b'data: {"choices":[{"delta":{"content":"\\"usage\\": {}"}}]}\n\n'
    broken = b'data: {"usage": nonsense\n\n'
    watch = UsageWatch(hide_usage_chunk=True)
    assert relay(watch, word + broken, 4096) == word + broken
    assert watch.usage is None


def test_an_endless_event_is_not_collected():
    """A megabyte without an event's end is passed on: memory stays bounded."""
    watch = UsageWatch(hide_usage_chunk=True)
    sent = watch.feed(b"x" * (1024 * 1024)) + watch.feed(b"y")
    assert len(sent) == 1024 * 1024 + 1


def test_a_stream_error_is_an_openai_error_event():
    """The SDK raises on an event with `error`, so a broken stream is never taken for a whole one."""
    event = json.loads(stream_error("upstream_failed", "cut", "r-1").removeprefix(b"data: "))
    assert event["error"]["code"] == "upstream_failed"
