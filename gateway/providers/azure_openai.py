"""Azure OpenAI and Foundry: OpenAI's API, also on paths that name the deployment and take an api-version."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from gateway.call import ModelCall
from gateway.providers.base import AnswerStream, ProviderRequest, Target
from gateway.providers.openai import PATHS, OpenAiApi, ask_for_usage, list_of, path_segment, request_body
from gateway.stream import UsageWatch, event_bytes

_FIRST_WITH_STREAM_OPTIONS = "2024-09-01"  # earlier api-versions refuse the field


class AzureOpenAiApi(OpenAiApi):
    """A resource of Azure OpenAI or Foundry."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The v1 path, or the deployment's own when the client called that: old api-versions answer there only.

        Responses have no path per deployment.
        """
        version = None if call.operation == "responses" else target.api_version
        body = request_body(call, target.deployment, disabled_tools)
        if call.streamed and call.operation == "chat":
            ask_for_usage(body, target.endpoint.stream_options and _takes_stream_options(version))
        path, content = PATHS[call.operation], msgspec.json.encode(body)
        if version is None:
            return ProviderRequest(f"/openai/v1{path}", content)
        path = f"/openai/deployments/{path_segment(target.deployment)}{path}"
        return ProviderRequest(path, content, {"api-version": version})

    def stream(self, call: ModelCall) -> AnswerStream:
        """As OpenAI's, and its first chunk named as what it is."""
        return super().stream(call) if call.operation == "responses" else _ChunkWatch(call)


class _ChunkWatch(UsageWatch):
    """Chunks of Azure, some of which only tell what the content filter found: the first one, without a type, of the
    prompt; where the filter works behind the model, others of the answer, whose choices have no delta.
    """

    def __init__(self, call: ModelCall) -> None:
        super().__init__(hide_usage_chunk=not call.wants_usage_chunk)

    def _noted(self, chunk: dict[str, Any], event: bytes) -> bytes:
        visible = super()._noted(chunk, event)
        choices = list_of(chunk.get("choices"))
        bare = [choice for choice in choices if isinstance(choice, dict) and choice.get("delta") is None]
        if not visible or (chunk.get("object") != "" and not bare):
            return visible
        for choice in bare:
            choice["delta"] = {}
        return event_bytes({**chunk, "object": chunk.get("object") or "chat.completion.chunk"})


def _takes_stream_options(api_version: str | None) -> bool:
    """Versions are dates, `-preview` behind some of them; `preview` and `latest` of the v1 paths come later."""
    return api_version is None or api_version[:1].isalpha() or api_version >= _FIRST_WITH_STREAM_OPTIONS
