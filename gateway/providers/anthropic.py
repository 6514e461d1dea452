"""Anthropic's Messages API behind OpenAI's chat API: requests, answers and streams translated both ways."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.call import UNREADABLE_JSON
from gateway.providers.anthropic_answer import answer_failed, completion, error_body, read_message
from gateway.providers.anthropic_request import translate_request
from gateway.providers.anthropic_stream import AnthropicStream
from gateway.providers.anthropic_usage import processing_tier
from gateway.providers.base import AnswerFailed, AnswerStream, ProviderRequest, Target, WholeAnswer
from gateway.stream import generated_bytes, tells_tokens
from shared.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.call import ModelCall

PATH = "/v1/messages"
VERSION = "2023-06-01"


class AnthropicApi:
    """Anthropic, and whoever else serves its Messages API."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The chat as a message to be created.

        Raises InvalidRequest `unsupported_parameter` naming a field without a counterpart, `unsupported_operation` for
        anything but chat.
        """
        if call.operation != "chat":
            raise InvalidRequest(
                f"model: {target.model!r} is served by Anthropic, which has chat completions only",
                code="unsupported_operation",
                param="model",
            )
        body = translate_request(call.body, target.deployment, disabled_tools, target.max_output_tokens)
        try:
            encoded = msgspec.json.encode(body)
        except RecursionError:  # arguments of a tool stand deeper in a turn than in their string
            raise InvalidRequest("messages: nested too deep", param="messages") from None
        return ProviderRequest(PATH, encoded, headers={"anthropic-version": VERSION})

    def whole(self, call: ModelCall, content: bytes) -> WholeAnswer:
        """A chat completion. Raises AnswerFailed, or AnswerUnreadable, when the content is no message."""
        message = read_message(content)
        answer, usage = completion(message), message.get("usage")
        encoded = msgspec.json.encode(answer)
        if not isinstance(usage, dict) or not tells_tokens(usage):
            said = answer["choices"][0]["message"]
            return WholeAnswer(encoded, None, "", generated_bytes(said))
        return WholeAnswer(encoded, usage, processing_tier(usage))

    def failure(self, call: ModelCall, status: int, content: bytes) -> bytes:
        """Anthropic's error in OpenAI's shape."""
        try:
            answer = msgspec.json.decode(content)
        except UNREADABLE_JSON:
            answer = None  # a proxy's page of HTML, or nothing
        return msgspec.json.encode(error_body(answer, status))

    def stream(self, call: ModelCall) -> AnswerStream:
        """Chunks of a chat completion."""
        return AnthropicStream(include_usage=call.wants_usage_chunk)

    def stream_failure(self, error: Any) -> AnswerFailed:
        """As an error in the place of a message."""
        return answer_failed(error)
