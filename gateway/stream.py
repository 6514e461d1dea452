"""Server-sent events on their way through: passed on as they come, watched for the usage chunk."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON

# A blank line ends an event; the standard allows three line endings and some backends mix them.
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_MOST_HELD_BYTES = 1024 * 1024


class UsageWatch:
    """Feeds on a streamed body and gives back what the client may see, event by event and unchanged.

    `usage` is the provider's own usage object once it went by. With `hide_usage_chunk` the chunk that exists only
    because the gateway asked for it (no choices, usage) is held back; an Azure prompt-filter chunk (no choices, no
    usage) is not.
    """

    def __init__(self, *, hide_usage_chunk: bool) -> None:
        self.usage: dict[str, Any] | None = None
        self.tier = ""
        self.finished = False  # True after `data: [DONE]`
        self.failed = False
        self.output_bytes = 0
        self._hide_usage_chunk = hide_usage_chunk
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The events completed by this piece, to be sent on at once; an incomplete one waits for its end."""
        self._held += piece
        out: list[bytes] = []
        while (end := _EVENT_END.search(self._held)) is not None:
            event, self._held = self._held[: end.end()], self._held[end.end() :]
            if not self._is_hidden(event):
                out.append(event)
        if len(self._held) > _MOST_HELD_BYTES:
            # No model sends such an event; whatever it is, holding it forever would cost memory and help nobody.
            out.append(self.rest())
        return b"".join(out)

    def rest(self) -> bytes:
        """What a stream that ended without a blank line left behind."""
        rest, self._held = self._held, b""
        return b"" if rest and self._is_hidden(rest) else rest

    def _is_hidden(self, event: bytes) -> bool:
        """Note what the event says about usage; True when the client did not ask for it."""
        if b"[DONE]" in event and event.strip() == b"data: [DONE]":
            self.finished = True
            return False
        if b'"usage"' not in event:
            return False
        chunk = _data(event)
        usage = chunk.get("usage") if chunk else None
        if chunk is None or not isinstance(usage, dict):
            return False
        self.usage = usage
        return self._hide_usage_chunk and chunk.get("choices") == []


def stream_error(code: str, message: str, request_id: str) -> bytes:
    """An error as an event of a stream that already began: OpenAI SDKs raise APIError on it."""
    error = {"code": code, "message": message, "type": "server_error", "param": None}
    return b"data: " + msgspec.json.encode({"error": error, "request_id": request_id}) + b"\n\n"


def _data(event: bytes) -> dict[str, Any] | None:
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        chunk = msgspec.json.decode(b"\n".join(lines))
    except UNREADABLE_JSON:
        return None  # not ours to judge: it is passed on as it came
    return chunk if isinstance(chunk, dict) else None
