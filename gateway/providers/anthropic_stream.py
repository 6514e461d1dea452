"""Anthropic's stream of events as the chunks of a chat completion, event by event. Pure but for the time of day."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.providers.anthropic_answer import citation, error_body, error_status, finish_reason, refusal_text
from gateway.providers.anthropic_usage import client_tier, client_usage, merged_usage, processing_tier
from gateway.stream import EventWatch, event_bytes, text_bytes

Json = dict[str, Any]

_DONE = b"data: [DONE]\n\n"


class AnthropicStream(EventWatch):
    """Feeds on the events of one message and gives back chunks.

    `usage` is Anthropic's own object once its last count came: what a stream that was cut off had counted at its start
    is in `input_usage`, because its output is only known to whoever counts the bytes. What an event type, a block or a
    delta means that is not known here is left out, as Anthropic asks of its clients.
    """

    def __init__(self, *, include_usage: bool) -> None:
        super().__init__()
        self._include_usage = include_usage
        self._head: Json = {"id": "", "object": "chat.completion.chunk", "created": int(time.time()), "model": ""}
        self._blocks: dict[int, _Block] = {}
        self._tool_calls = 0
        self._text_chars = 0
        self._list_lengths: dict[str, int] = {}
        self._has_finish_reason = False

    def _seen(self, event: bytes) -> bytes:
        """The chunks of one event; nothing of an event that holds none, or follows the end."""
        if self.finished:
            return b""
        visible = super()._seen(event)
        return b"" if visible is event else visible

    def _noted(self, chunk: Json, event: bytes) -> bytes:
        return self._event(chunk)

    def _event(self, event: Mapping[str, Any]) -> bytes:
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event)
        if kind == "content_block_start":
            return self._block_start(event)
        if kind == "content_block_stop":
            return self._block_stop(event)
        if kind == "message_start":
            return self._start(_object(event.get("message")))
        if kind == "message_delta":
            return self._message_delta(event)
        if kind == "message_stop":
            return self._stop()
        if kind == "error" or event.get("error"):
            self.failed, self.error = True, event.get("error")
            return event_bytes(error_body(event, error_status(event)))
        return b""  # ping, or an event of a later version

    def _start(self, message: Mapping[str, Any]) -> bytes:
        self._head |= {"id": str(message.get("id") or ""), "model": str(message.get("model") or "")}
        usage = message.get("usage")
        if isinstance(usage, dict):
            self.input_usage = usage
            self.tier = processing_tier(usage)
            if (tier := client_tier(usage)) is not None:
                self._head["service_tier"] = tier
        return self._chunk({"role": "assistant", "content": ""})

    def _block_start(self, event: Mapping[str, Any]) -> bytes:
        found = _object(event.get("content_block"))
        block = _Block(str(found.get("type") or ""), found)
        self._blocks[_index(event)] = block
        if block.kind == "tool_use":
            block.position = self._tool_calls
            self._tool_calls += 1
            function = {"name": str(found.get("name") or ""), "arguments": ""}
            self._count(text_bytes(function["name"]))
            call = {"index": block.position, "id": str(found.get("id") or ""), "type": "function", "function": function}
            return self._chunk({"tool_calls": [call]})
        if block.kind == "text":
            block.starts_at = self._text_chars
            return self._text(found.get("text"))
        if block.kind == "thinking":
            return self._thought(block, found.get("thinking"))
        return b""

    def _delta(self, event: Mapping[str, Any]) -> bytes:
        block, delta = self._blocks.get(_index(event)), _object(event.get("delta"))
        kind = delta.get("type")
        if kind == "text_delta":
            return self._text(delta.get("text"))
        if block is None:
            return b""
        if kind == "input_json_delta":
            return self._arguments(block, delta.get("partial_json"))
        if kind == "thinking_delta":
            return self._thought(block, delta.get("thinking"))
        if kind == "signature_delta":
            block.signature = str(delta.get("signature") or "")
        elif kind == "citations_delta":
            block.citations.append(delta.get("citation"))
        return b""

    def _block_stop(self, event: Mapping[str, Any]) -> bytes:
        """What is only known at a block's end: arguments that were never streamed, signed thoughts, citations."""
        block = self._blocks.pop(_index(event), None)
        if block is None:
            return b""
        if block.kind == "tool_use" and not block.has_arguments:
            given = msgspec.json.encode(block.begun.get("input") or {}).decode()
            return self._chunk({"tool_calls": [{"index": block.position, "function": {"arguments": given}}]})
        if block.kind == "thinking":
            begun = {**block.begun, "thinking": "".join(block.thoughts)}
            signed = {**begun, "signature": block.signature or str(block.begun.get("signature") or "")}
            return self._listed("thinking_blocks", [signed])
        if block.kind == "redacted_thinking":
            return self._listed("thinking_blocks", [dict(block.begun)])
        found = [citation(each, block.starts_at, self._text_chars) for each in block.citations]
        return self._listed("annotations", [each for each in found if each is not None])

    def _message_delta(self, event: Mapping[str, Any]) -> bytes:
        usage = event.get("usage")
        if isinstance(usage, dict):
            merged = merged_usage(self.usage or self.input_usage or {}, usage)
            self._tell(merged)
            self.tier = processing_tier(merged)
        delta = _object(event.get("delta"))
        reason = delta.get("stop_reason")
        if reason is None or self._has_finish_reason:
            return b""
        self._has_finish_reason = True
        refused = refusal_text(delta.get("stop_details")) if reason == "refusal" else None
        return self._chunk({"refusal": refused} if refused else {}, finish_reason(reason), reason)

    def _stop(self) -> bytes:
        self.finished = True
        if not self._include_usage or self.usage is None:
            return _DONE
        return event_bytes({**self._head, "choices": [], "usage": client_usage(self.usage)}) + _DONE

    def _text(self, text: Any) -> bytes:
        if not isinstance(text, str) or not text:
            return b""
        self._text_chars += len(text)
        self._count(text_bytes(text))
        return self._chunk({"content": text})

    def _thought(self, block: _Block, thought: Any) -> bytes:
        if not isinstance(thought, str) or not thought:
            return b""
        block.thoughts.append(thought)
        self._count(text_bytes(thought))
        return self._chunk({"reasoning_content": thought})

    def _arguments(self, block: _Block, partial: Any) -> bytes:
        """Of a tool that the client runs; what a tool of Anthropic's own is called with is only counted."""
        if not isinstance(partial, str) or not partial:
            return b""
        self._count(text_bytes(partial))
        if block.kind != "tool_use":
            return b""
        block.has_arguments = True
        return self._chunk({"tool_calls": [{"index": block.position, "function": {"arguments": partial}}]})

    def _listed(self, name: str, entries: list[Json]) -> bytes:
        """Entries of a list that grows over the stream, numbered: by that OpenAI's SDK puts them together."""
        if not entries:
            return b""
        first = self._list_lengths.get(name, 0)
        self._list_lengths[name] = first + len(entries)
        return self._chunk({name: [{"index": first + i, **entry} for i, entry in enumerate(entries)]})

    def _chunk(self, delta: Json, finish: str | None = None, native: Any = None) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        if finish is not None:
            choice["native_finish_reason"] = native
        chunk: Json = {**self._head, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None  # as OpenAI does: every chunk but the last carries a null
        return event_bytes(chunk)


class _Block:
    """A block of the answer that has begun and not ended."""

    __slots__ = ("begun", "citations", "has_arguments", "kind", "position", "signature", "starts_at", "thoughts")

    def __init__(self, kind: str, begun: Mapping[str, Any]) -> None:
        self.kind = kind
        self.begun = begun
        self.position = 0  # among the calls of tools
        self.has_arguments = False
        self.starts_at = 0  # the character of the text
        self.thoughts: list[str] = []
        self.signature = ""
        self.citations: list[Any] = []


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else -1


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
