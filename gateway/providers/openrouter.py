"""OpenRouter: OpenAI's API with accounting of its own, and errors inside answers that began well. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from gateway.call import ModelCall
from gateway.providers.base import AnswerStream, ProviderRequest, Target, WholeAnswer
from gateway.providers.openai import PATHS, OpenAiApi, ask_for_usage, list_of, read_whole, request_body
from gateway.providers.openai_errors import answer_failed, shaped_error, status_of
from gateway.providers.openai_responses import ResponsesWatch
from gateway.stream import UsageWatch, event_bytes
from shared.errors import InvalidRequest

# By these a request names other models to be tried: each would pass the budget's check and the tenant's list by.
# A preset is kept at OpenRouter, and may name models too.
_CHOOSES_MODELS = ("models", "route", "preset")
# Its plugins and tools of its own that call no other model. Others do (fusion, advisor, subagent), or may tomorrow.
_PLUGINS = ("context-compression", "file-parser", "moderation", "response-healing", "web", "web-fetch")
_TOOLS = tuple(f"openrouter:{name}" for name in ("apply_patch", "bash", "datetime", "shell", "web_fetch", "web_search"))


class OpenRouterApi(OpenAiApi):
    """https://openrouter.ai/api/v1."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """As OpenAI's, and always with the usage accounting asked for. Raises InvalidRequest for what would have other
        models work than the one that was checked.
        """
        for name in _CHOOSES_MODELS:
            if call.body.get(name) is not None:
                raise _unsupported(name, "list fallbacks in models.yaml, where the budget checks each")
        for field, names, known in (("plugins", "id", _PLUGINS), ("tools", "type", _TOOLS)):
            for found in list_of(call.body.get(field)):
                named = found.get(names) if isinstance(found, dict) else None
                if named not in known and (field == "plugins" or str(named).startswith("openrouter:")):
                    raise _unsupported(field, f"{str(named)[:60]!r} may call models that no budget checked")
        body = request_body(call, target.deployment, disabled_tools)
        if call.operation == "chat":
            body["usage"] = {"include": True}
            if call.streamed:
                ask_for_usage(body, target.endpoint.stream_options)
        return ProviderRequest(PATHS[call.operation], msgspec.json.encode(body))

    def whole(self, call: ModelCall, content: bytes) -> WholeAnswer:
        """As OpenAI's; a choice that ended in an error makes the answer one."""
        answer = read_whole(content)
        if call.operation == "chat" and b'"error"' in content:
            for choice in list_of(msgspec.json.decode(content).get("choices")):
                if isinstance(choice, dict) and choice.get("error"):
                    raise answer_failed(choice["error"], answer.usage)
        return answer

    def stream(self, call: ModelCall) -> AnswerStream:
        """As OpenAI's; an error amid the chunks becomes one that SDKs raise."""
        if call.operation == "responses":
            return ResponsesWatch()
        return _ChunkWatch(hide_usage_chunk=not call.wants_usage_chunk)


def _unsupported(param: str, why: str) -> InvalidRequest:
    message = f"{param}: is not supported here: {why}"
    return InvalidRequest(message, code="unsupported_parameter", param=param)


class _ChunkWatch(UsageWatch):
    """Chunks of OpenRouter, which tells of an error in a chunk with choices whose finish reason is `error`."""

    def _noted(self, chunk: dict[str, Any], event: bytes) -> bytes:
        error = chunk.get("error")
        if not error:
            return super()._noted(chunk, event)
        super()._noted({**chunk, "choices": []}, event)
        self.failed = True
        return event_bytes({"error": shaped_error(status_of(error), chunk)})
