"""Databricks serving endpoints: OpenAI's chat and embeddings under paths of their own, and strict about fields. Pure.

What a serving endpoint does not know it refuses by name (`json: unknown field`). Hints that change nothing in the
answer are therefore left out; every other field passes, and its refusal reaches the client in OpenAI's shape.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON, ModelCall
from gateway.providers.base import AnswerStream, ProviderRequest, Target, WholeAnswer
from gateway.providers.openai import OpenAiApi, list_of, path_segment, read_whole, request_body
from gateway.providers.openai_errors import error_body, shaped_error
from gateway.providers.openai_responses import ResponsesWatch
from gateway.stream import UsageWatch, event_bytes

# Hints to OpenAI's own storage, caches and abuse detection, and usage of streams, which is told unasked.
_LEFT_OUT = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "stream_options",
    "user",
)
_UNKNOWN_FIELD = re.compile(
    r"unknown field \"([^\"]{1,100})\"|^([\w.\[\]]{1,100}): Extra inputs are not permitted", re.MULTILINE
)
_CONTENT_IN_PARTS = re.compile(rb'"content"\s*:\s*\[')


class DatabricksApi(OpenAiApi):
    """A workspace: its address, without a path."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The invocation of the serving endpoint that the deployment names; Responses have a path for all endpoints."""
        body = request_body(call, target.deployment, disabled_tools)
        if call.operation == "responses":
            return ProviderRequest("/serving-endpoints/responses", msgspec.json.encode(body))
        del body["model"]  # the path says it
        for name in _LEFT_OUT:
            body.pop(name, None)
        if body.get("parallel_tool_calls") is True:
            del body["parallel_tool_calls"]  # what every model does unasked
        if body.get("service_tier") in ("auto", "default"):
            del body["service_tier"]
        if (cap := body.pop("max_completion_tokens", None)) is not None:
            body["max_tokens"] = cap
        path = f"/serving-endpoints/{path_segment(target.deployment)}/invocations"
        return ProviderRequest(path, msgspec.json.encode(body))

    def whole(self, call: ModelCall, content: bytes) -> WholeAnswer:
        """The answer, with content that came in parts as one text."""
        answer = read_whole(content)
        if call.operation != "chat" or _CONTENT_IN_PARTS.search(content) is None:
            return answer
        body = msgspec.json.decode(content)
        for choice in list_of(body.get("choices")):
            if isinstance(choice, dict) and isinstance(choice.get("message"), dict):
                _flatten(choice["message"])
        return answer._replace(content=msgspec.json.encode(body))

    def failure(self, call: ModelCall, status: int, content: bytes) -> bytes:
        """The error in OpenAI's shape; for a field that the serving endpoint does not know, with its name."""
        try:
            body = msgspec.json.decode(content)
        except UNREADABLE_JSON:
            return error_body(status, content)
        error = shaped_error(status, body)
        if status == 400 and (unknown := _UNKNOWN_FIELD.search(error["message"])) is not None:
            error |= {"code": "unsupported_parameter", "param": unknown[1] or unknown[2]}
        return msgspec.json.encode({"error": error})

    def stream(self, call: ModelCall) -> AnswerStream:
        """Chunks whose content came in parts carry one text, and usage comes where OpenAI's comes."""
        if call.operation == "responses":
            return ResponsesWatch()
        return _ChunkWatch(shows_usage=call.wants_usage_chunk)


class _ChunkWatch(UsageWatch):
    """Every chunk tells the usage so far. Clients that add up what chunks tell would count it many times over, so it is
    told once, in a chunk of its own at the end, and only to those who asked.
    """

    def __init__(self, *, shows_usage: bool) -> None:
        super().__init__(hide_usage_chunk=True)
        self._shows_usage = shows_usage
        self._last: dict[str, Any] = {}

    def _seen(self, event: bytes) -> bytes:
        visible = super()._seen(event)
        if event.strip() != b"data: [DONE]" or not self._shows_usage or self.usage is None:
            return visible
        head: dict[str, Any] = {
            name: self._last[name] for name in ("id", "object", "created", "model") if name in self._last
        }
        return event_bytes({**head, "choices": [], "usage": self.usage}) + visible

    def _noted(self, chunk: dict[str, Any], event: bytes) -> bytes:
        visible = super()._noted(chunk, event)
        if not visible or self.failed:
            return visible
        self._last = chunk
        deltas = [choice.get("delta") for choice in list_of(chunk.get("choices")) if isinstance(choice, dict)]
        changed = [_flatten(delta) for delta in deltas if isinstance(delta, dict)]
        told = chunk.pop("usage", None)
        return event_bytes(chunk) if told is not None or any(changed) else visible


def _flatten(message: dict[str, Any]) -> bool:
    """Make content that came in parts, as Anthropic's models answer there, one text with the thoughts beside it.

    True when it came so.
    """
    parts = message.get("content")
    if not isinstance(parts, list):
        return False
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    thoughts = [
        thought["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("summary"), list)
        for thought in part["summary"]
        if isinstance(thought, dict) and isinstance(thought.get("text"), str)
    ]
    message["content"] = "".join(texts)
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    return True
