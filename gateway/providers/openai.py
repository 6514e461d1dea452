"""OpenAI's own API, which many others speak: the client's body passes as it came, but for what the budget changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON, ModelCall
from gateway.providers.base import AnswerStream, ProviderRequest, Target, WholeAnswer
from gateway.stream import UsageWatch
from gateway.tools import drop_tools

PATHS = {"chat": "/chat/completions", "responses": "/responses", "embeddings": "/embeddings"}


class OpenAiApi:
    """Any OpenAI-compatible URL."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The body with the deployment's name, disabled tools left out, and usage asked for on every stream."""
        return ProviderRequest(PATHS[call.operation], request_body(call, target.deployment, disabled_tools))

    def whole(self, call: ModelCall, content: bytes) -> WholeAnswer:
        """The answer as it came."""
        return WholeAnswer(content, usage_in(content))

    def failure(self, call: ModelCall, status: int, content: bytes) -> bytes:
        """The provider's own error: it has the right shape already."""
        return content

    def stream(self, call: ModelCall) -> AnswerStream:
        """Chunks pass unchanged; the usage chunk only when the client asked for it."""
        return UsageWatch(hide_usage_chunk=not call.wants_usage_chunk)


def request_body(call: ModelCall, model_name: str, disabled_tools: Collection[str]) -> bytes:
    """The body to forward. Without usage on a stream nobody could bill it exactly, so it is always asked for; the extra
    chunk is taken out again on the way back.
    """
    body = {**call.body, "model": model_name}
    if disabled_tools:
        drop_tools(body, frozenset(disabled_tools))
    if call.streamed and call.operation == "chat":
        body["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
    return msgspec.json.encode(body)


def usage_in(content: bytes) -> dict[str, Any] | None:
    """The usage object of a whole answer; None when there is none or it is no JSON."""
    try:
        answer = msgspec.json.decode(content)
    except UNREADABLE_JSON:
        return None
    usage = answer.get("usage") if isinstance(answer, dict) else None
    return usage if isinstance(usage, dict) else None
