"""OpenAI's own API, which many others speak: the client's body passes as it came, but for what the budget changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON, ModelCall
from gateway.providers.base import AnswerFailed, AnswerStream, AnswerUnreadable, ProviderRequest, Target, WholeAnswer
from gateway.providers.openai_errors import answer_failed, error_body
from gateway.providers.openai_responses import ResponsesWatch, generated_in_output
from gateway.stream import UsageWatch, generated_bytes, tells_tokens
from gateway.tools import drop_tools
from shared.errors import InvalidRequest

_PATH_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # what Azure and Databricks allow in names
PATHS = {"chat": "/chat/completions", "responses": "/responses", "embeddings": "/embeddings"}


class OpenAiApi:
    """Any OpenAI-compatible URL."""

    def request(self, call: ModelCall, target: Target, disabled_tools: Collection[str]) -> ProviderRequest:
        """The body with the deployment's name, disabled tools left out, and usage asked for on every stream."""
        body = request_body(call, target.deployment, disabled_tools)
        if call.streamed and call.operation == "chat":
            ask_for_usage(body, target.endpoint.stream_options)
        return ProviderRequest(PATHS[call.operation], msgspec.json.encode(body))

    def whole(self, call: ModelCall, content: bytes) -> WholeAnswer:
        """The answer as it came."""
        return read_whole(content)

    def failure(self, call: ModelCall, status: int, content: bytes) -> bytes:
        """The provider's own error, in OpenAI's shape if it was not yet."""
        return error_body(status, content)

    def stream(self, call: ModelCall) -> AnswerStream:
        """Events pass unchanged; a chat's usage chunk only when the client asked for it."""
        if call.operation == "responses":
            return ResponsesWatch()
        return UsageWatch(hide_usage_chunk=not call.wants_usage_chunk)

    def stream_failure(self, error: Any) -> AnswerFailed:
        """As an error in the place of a whole answer."""
        return answer_failed(error, None)


_ABSENT = msgspec.Raw(b"")


class _Answer(msgspec.Struct):
    """What the gateway must know of an answer; the rest is skipped undecoded."""

    usage: Any = None
    service_tier: Any = None
    error: Any = None
    status: Any = None  # of a Responses answer
    choices: msgspec.Raw = _ABSENT
    output: msgspec.Raw = _ABSENT
    data: msgspec.Raw = _ABSENT

    @property
    def holds_an_answer(self) -> bool:
        """Whether there is a list of what some operation answers with."""
        return any(bytes(memoryview(found)[:1]) == b"[" for found in (self.choices, self.output, self.data))


_ANSWER = msgspec.json.Decoder(_Answer)


def request_body(call: ModelCall, model_name: str, disabled_tools: Collection[str]) -> dict[str, Any]:
    """The body to forward, under the name by which the provider knows the model."""
    body = {**call.body, "model": model_name}
    if disabled_tools:
        drop_tools(body, frozenset(disabled_tools))
    return body


def path_segment(name: str) -> str:
    """A deployment's name as it may stand in a path. Raises InvalidRequest for one that means another path to somebody
    on the way, such as `..`, or a slash however it is escaped: clients may name deployments that config does not list.
    """
    if not _PATH_SEGMENT.fullmatch(name):
        raise InvalidRequest("model: a deployment has letters, digits, '.', '_' and '-' in its name", param="model")
    return name


def ask_for_usage(body: dict[str, Any], takes_stream_options: bool) -> None:
    """Without usage on a stream nobody could bill it exactly, so it is always asked for; the extra chunk is taken out
    again on the way back. Some compatible servers refuse the field, and tell usage unasked or never.
    """
    if takes_stream_options:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    else:
        body.pop("stream_options", None)


def read_whole(content: bytes) -> WholeAnswer:
    """What a whole answer says of itself. Raises AnswerUnreadable, and AnswerFailed for an error of status 200."""
    try:
        content.decode()  # decoding skips what it does not want, and with it broken UTF-8 that would break the client
        answer = _ANSWER.decode(content)
    except UNREADABLE_JSON:
        raise AnswerUnreadable from None
    if answer.error and (answer.status == "failed" or not answer.holds_an_answer):
        raise answer_failed(answer.error, answer.usage if tells_tokens(answer.usage) else None)
    if not answer.holds_an_answer:
        raise AnswerUnreadable
    tier = answer.service_tier if isinstance(answer.service_tier, str) else ""
    if tells_tokens(answer.usage):
        return WholeAnswer(content, answer.usage, tier)
    return WholeAnswer(content, None, tier, _generated_bytes(msgspec.json.decode(content)))


def list_of(value: Any) -> list[Any]:
    """A list as it is; an empty one for anything else."""
    return value if isinstance(value, list) else []


def _generated_bytes(answer: Mapping[str, Any]) -> int:
    """What the model wrote in an answer that does not say how much it was."""
    choices, output = answer.get("choices"), answer.get("output")
    if isinstance(output, list):
        return generated_in_output(output)
    messages = [choice.get("message") for choice in list_of(choices) if isinstance(choice, dict)]
    return sum(generated_bytes(message) for message in messages if isinstance(message, dict))
