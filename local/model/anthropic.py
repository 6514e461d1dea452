"""An answer in the shape of Anthropic's Messages API, whole or as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from local.model.answers import Answer
from local.model.anthropic_prompt import Cached
from local.model.pieces import Piece, event

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Message:
    """One answer as Anthropic gives it."""

    message_id: str
    model: str
    answer: Answer
    cached: Cached
    signature: str = "c2ltdWxhdGVk"  # Claude signs what it thought, and wants it back unchanged

    @property
    def usage(self) -> dict[str, Any]:
        """What it counts: what was read from and written to the cache stands beside the input."""
        cached, answer = self.cached, self.answer
        return {
            "input_tokens": answer.prompt_tokens - cached.read_tokens - cached.written_tokens,
            "cache_creation_input_tokens": cached.written_tokens,
            "cache_read_input_tokens": cached.read_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": cached.written_tokens - cached.written_1h_tokens,
                "ephemeral_1h_input_tokens": cached.written_1h_tokens,
            },
            "output_tokens": answer.completion_tokens,
            "service_tier": "standard",
        }

    @property
    def stop_reason(self) -> str:
        """Why it ended."""
        if self.answer.tool_name:
            return "tool_use"
        return "max_tokens" if self.answer.cut_short else "end_turn"


def thinking(answer: Answer) -> Answer:
    """The answer with the first half of its words thought instead of said."""
    thought = len(answer.words) // 2
    return replace(answer, words=answer.words[thought:], reasoning_tokens=thought)


def message(said: Message, filler: str = "") -> dict[str, Any]:
    """A message object; `filler` is text beyond what is counted, for tests of large bodies."""
    usage = said.usage
    if said.answer.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": said.answer.reasoning_tokens}
    blocks = [_with_content(block, said, filler) for block in _blocks(said)]
    return {**_head(said), "content": blocks, "stop_reason": said.stop_reason, "stop_sequence": None, "usage": usage}


def events(said: Message, *, include_usage: bool = True) -> Iterator[Piece]:
    """The stream of a message. Without `include_usage` it ends as one that was cut before its last count."""
    answer = said.answer
    begun = {**_head(said), "content": [], "stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message={**begun, "usage": {**said.usage, "output_tokens": 1}})
    yield _event("ping")
    for index, block in enumerate(_blocks(said)):
        yield _event("content_block_start", index=index, content_block=block)
        for delta, tokens in _deltas(block, said):
            yield _event("content_block_delta", tokens, index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    if not include_usage:
        return
    counts: dict[str, Any] = {"output_tokens": answer.completion_tokens}
    if answer.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": answer.reasoning_tokens}
    yield _event("message_delta", delta={"stop_reason": said.stop_reason, "stop_sequence": None}, usage=counts)
    yield _event("message_stop")


def error(status: int, text: str) -> dict[str, Any]:
    """An error as Anthropic writes it."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_sim"}


def _head(said: Message) -> dict[str, Any]:
    return {"id": said.message_id, "type": "message", "role": "assistant", "model": said.model}


def _blocks(said: Message) -> list[dict[str, Any]]:
    """The blocks as they begin."""
    blocks: list[dict[str, Any]] = []
    if said.answer.reasoning_tokens:
        blocks.append({"type": "thinking", "thinking": "", "signature": ""})
    if said.answer.tool_name:
        call = {"type": "tool_use", "id": f"toolu_{said.message_id}", "name": said.answer.tool_name, "input": {}}
        return [*blocks, call]
    return [*blocks, {"type": "text", "text": ""}]


def _thought(said: Message) -> str:
    return " ".join(["hm"] * said.answer.reasoning_tokens)


def _with_content(block: dict[str, Any], said: Message, filler: str) -> dict[str, Any]:
    if block["type"] == "thinking":
        return {**block, "thinking": _thought(said), "signature": said.signature}
    if block["type"] == "tool_use":
        return {**block, "input": json.loads(said.answer.tool_arguments)}
    return {**block, "text": said.answer.text + filler}


def _deltas(block: dict[str, Any], said: Message) -> Iterator[tuple[dict[str, Any], int]]:
    """What is added to a block, with the tokens it carries."""
    answer = said.answer
    if block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": _thought(said)}, answer.reasoning_tokens
        yield {"type": "signature_delta", "signature": said.signature}, 0
    elif block["type"] == "tool_use":
        arguments = answer.tool_arguments
        half = len(arguments) // 2
        yield {"type": "input_json_delta", "partial_json": arguments[:half]}, len(answer.words)
        yield {"type": "input_json_delta", "partial_json": arguments[half:]}, 0
    else:
        for text, tokens in answer.pieces():
            yield {"type": "text_delta", "text": text}, tokens


def _event(kind: str, tokens: int = 0, **data: Any) -> Piece:
    return event({"type": kind, **data}, tokens, name=kind)


def is_thinking(body: Mapping[str, Any]) -> bool:
    """Whether the caller lets the model think."""
    asked = body.get("thinking")
    return isinstance(asked, dict) and asked.get("type") in ("enabled", "adaptive")
