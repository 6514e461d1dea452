"""One call as the client asked for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gateway.media import input_tokens_with_media, may_hold_media
from gateway.tools import tools_in
from shared.errors import InvalidRequest
from shared.usage.estimate import estimate_input_tokens
from shared.usage.event_fields import MAX_LABEL_CHARS
from shared.usage.tokens import told_tier

Operation = Literal["chat", "responses", "embeddings"]

# What msgspec raises on hostile bytes: broken UTF-8 and deep nesting are no DecodeError.
UNREADABLE_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_CAPS = {"chat": ("max_completion_tokens", "max_tokens"), "responses": ("max_output_tokens",)}
_MOST_OUTPUT_TOKENS = 10**9
_MOST_CHOICES = 128


@dataclass(frozen=True)
class ModelCall:
    """What the client asked for."""

    operation: Operation
    body: dict[str, Any]
    input_tokens: int  # an estimate
    model: str  # as the path or the body named it: a model's id or a deployment
    streamed: bool
    wants_usage_chunk: bool
    wants_cost: bool  # `usage: {include: true}`, as OpenRouter takes it
    tools: tuple[str, ...]
    max_output_tokens: int | None  # of all choices together
    choices: int
    service_tier: str  # as asked for; empty: the standard one


def read_call(operation: Operation, raw: bytes, path_deployment: str | None) -> ModelCall:
    """Decode a request body. Raises InvalidRequest naming the field; nothing of the prompt is ever quoted."""
    return call_of(operation, read_object(raw), len(raw), path_deployment, has_media=may_hold_media(raw))


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that a request body is. Raises InvalidRequest for anything else."""
    try:
        body = msgspec.json.decode(raw)
    except UNREADABLE_JSON:
        raise InvalidRequest("the body is not valid JSON, or nested too deep") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


def call_of(
    operation: Operation,
    body: dict[str, Any],
    body_bytes: int,
    path_deployment: str | None = None,
    *,
    has_media: bool = False,
) -> ModelCall:
    """The call that a decoded body of so many bytes asks for. Raises InvalidRequest naming the field."""
    named = path_deployment or body.get("model")
    if not isinstance(named, str) or not 0 < len(named) <= 128:
        raise InvalidRequest("model: expected the name of a model", param="model")
    streamed = body.get("stream") or False
    if not isinstance(streamed, bool):
        raise InvalidRequest("stream: expected true or false", param="stream")
    if operation == "responses":
        _refuse_background(body)
    wants_cost = _wants_cost(body)
    if wants_cost:  # the gateway answers that itself; most providers would refuse the field
        body = {name: value for name, value in body.items() if name != "usage"}
    return ModelCall(
        operation=operation,
        body=body,
        input_tokens=input_tokens_with_media(body, body_bytes)
        if has_media
        else estimate_input_tokens(None, body_bytes),
        model=named,
        streamed=streamed,
        wants_usage_chunk=wants_cost or _stream_options(body).get("include_usage") is True,
        wants_cost=wants_cost,
        tools=tools_in(body),
        max_output_tokens=0 if operation == "embeddings" else _max_output_tokens(operation, body),
        choices=_choices(body) if operation == "chat" else 1,
        service_tier=_service_tier(body),
    )


def _stream_options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InvalidRequest("stream_options: expected an object", param="stream_options")
    return options


def _wants_cost(body: Mapping[str, Any]) -> bool:
    accounting = body.get("usage")
    return isinstance(accounting, dict) and accounting.get("include") is True


def _refuse_background(body: Mapping[str, Any]) -> None:
    """An answer made in the background is fetched later, on a path not served here: nobody would see its usage."""
    if body.get("background"):
        raise InvalidRequest("background: answers in the background are not served here", param="background")


def _service_tier(body: Mapping[str, Any]) -> str:
    """The tier that the price depends on. What cannot be one is none: providers refuse or ignore it."""
    tier = told_tier(body)
    return tier if isinstance(tier, str) and len(tier) <= MAX_LABEL_CHARS else ""


def _max_output_tokens(operation: Operation, body: Mapping[str, Any]) -> int | None:
    """What the answer can cost at most: the cap of one choice times the number of choices."""
    for name in _CAPS[operation]:
        cap = body.get(name)
        if cap is None:
            continue
        if not isinstance(cap, int) or isinstance(cap, bool) or not 0 < cap <= _MOST_OUTPUT_TOKENS:
            raise InvalidRequest(f"{name}: expected a positive whole number", param=name)
        return min(cap * (_choices(body) if operation == "chat" else 1), _MOST_OUTPUT_TOKENS)
    return None


def _choices(body: Mapping[str, Any]) -> int:
    """How many answers are asked for. Checked on every call: each of them is billed."""
    choices = body.get("n")
    if choices is None:
        return 1
    if not isinstance(choices, int) or isinstance(choices, bool) or not 0 < choices <= _MOST_CHOICES:
        raise InvalidRequest(f"n: expected a whole number from 1 to {_MOST_CHOICES}", param="n")
    return choices
