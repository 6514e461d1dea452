"""Server-sent events on their way through: passed on as they come, watched for what was generated and for usage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON

# A blank line ends an event; the standard allows three line endings and some backends mix them.
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_END_BYTES = 4
_MOST_HELD_BYTES = 1024 * 1024
_TEXT_FIELDS = (
    "content",
    "refusal",
    "reasoning_content",
    "reasoning",
)  # of a delta


class UsageWatch:
    """Feeds on a streamed chat completion and gives back what the client may see, event by event and unchanged.

    `usage` is the provider's own usage object once it went by. With `hide_usage_chunk` the chunk that exists only
    because the gateway asked for it (no choices, usage) is held back; an Azure prompt-filter chunk (no choices, no
    usage) is not. An event that nobody can read becomes an error that SDKs raise; `failed` then says that the stream is
    over, as it does after an error of the provider's own.
    """

    def __init__(self, *, hide_usage_chunk: bool) -> None:
        self.usage: dict[str, Any] | None = None
        self.input_usage: dict[str, Any] | None = None  # nobody who speaks this API tells it before the end
        self.tier = ""
        self.finished = False  # `[DONE]` went by, or the reason why each choice ended
        self.failed = False
        self.output_bytes = 0  # generated: text, arguments of tools, visible reasoning
        self.output_deltas = 0  # pieces that carried some of it
        self._hide_usage_chunk = hide_usage_chunk
        self._held = b""
        self._unfinished: set[str] = set()  # choices, by their index
        self._ended: set[str] = set()

    def feed(self, piece: bytes) -> bytes:
        """The events completed by this piece, to be sent on at once; an incomplete one waits for its end."""
        searched = max(0, len(self._held) - _LONGEST_END_BYTES)  # an end may be cut in two
        self._held += piece
        out: list[bytes] = []
        start = 0
        while not self.failed and (end := _EVENT_END.search(self._held, max(start, searched))) is not None:
            out.append(self._seen(self._held[start : end.end()]))
            start = end.end()
        self._held = self._held[start:]
        if len(self._held) > _MOST_HELD_BYTES and not self.failed:
            # No model sends such an event; whatever it is, holding it forever would cost memory and help nobody.
            out.append(self._fail("the model backend sent an event without an end"))
        if self.failed:
            self._held = b""
        return b"".join(out)

    def rest(self) -> bytes:
        """What a stream that ended without a blank line left behind."""
        rest, self._held = self._held, b""
        return self._seen(rest) if rest.strip() else rest

    def _seen(self, event: bytes) -> bytes:
        """Note what the event says; what the client may see of it."""
        data = _data(event)
        if data is None:
            return event  # a comment, by which a backend keeps the connection open
        if data == b"[DONE]":
            self.finished = True
            return event
        try:
            chunk = msgspec.json.decode(data)
        except UNREADABLE_JSON:
            return self._fail("the model backend sent an event that cannot be read")
        if not isinstance(chunk, dict):
            return event
        if chunk.get("error"):
            self.failed = True
            return event
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._note(choice)
        if isinstance(tier := chunk.get("service_tier"), str):
            self.tier = tier
        if not isinstance(usage := chunk.get("usage"), dict):
            return event
        self.usage = usage
        return b"" if self._hide_usage_chunk and choices == [] else event

    def _note(self, choice: Mapping[str, Any]) -> None:
        delta, index = choice.get("delta"), str(choice.get("index"))
        if isinstance(delta, dict) and (size := generated_bytes(delta)):
            self.output_bytes += size
            self.output_deltas += 1
        if choice.get("finish_reason"):
            self._ended.add(index)
            self._unfinished.discard(index)
            self.finished = not self._unfinished
        elif index not in self._ended:
            self._unfinished.add(index)

    def _fail(self, message: str) -> bytes:
        self.failed = True
        return stream_error("upstream_failed", message)


def generated_bytes(delta: Mapping[str, Any]) -> int:
    """UTF-8 bytes of what the model generated in a delta: text, names and arguments of calls, visible reasoning."""
    size = sum(_size(delta.get(name)) for name in _TEXT_FIELDS)
    calls = delta.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for function in (*functions, delta.get("function_call")):
        if isinstance(function, dict):
            size += _size(function.get("name")) + _size(function.get("arguments"))
    return size


def stream_error(code: str, message: str, request_id: str | None = None) -> bytes:
    """An error as an event of a stream that already began: OpenAI SDKs raise APIError on it."""
    body: dict[str, Any] = {"error": {"code": code, "message": message, "type": "server_error", "param": None}}
    if request_id is not None:
        body["request_id"] = request_id
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _size(value: Any) -> int:
    """Bytes of a text. Some compatible providers send a list of typed parts instead: all texts in them."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, list):
        return sum(_size(part) for part in value)
    if isinstance(value, dict):
        return _size(value.get("text")) + _size(value.get("summary"))
    return 0


def _data(event: bytes) -> bytes | None:
    """The data of an event; None when it has none."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
