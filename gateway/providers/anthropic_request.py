"""A chat request as Anthropic's Messages API takes it. Pure.

Every field of OpenAI's chat API is translated, dropped because the answer is the same without it, or refused by name.
What is no field of OpenAI's passes as it is: `thinking`, `top_k`, `cache_control` and the rest of Anthropic's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from gateway.providers.anthropic_messages import calls_tools, translate_messages, unsupported
from gateway.providers.anthropic_tools import translate_choice, translate_tools
from shared.errors import InvalidRequest

Json = dict[str, Any]

# Anthropic requires a limit where OpenAI's models have one of their own; every model it still serves allows this one.
DEFAULT_MAX_TOKENS = 16_384
LEAST_ROOM_TO_ANSWER_TOKENS = 4_096  # beside a given budget for thinking, which counts towards the limit

TRANSLATED = {
    *("messages", "model", "max_completion_tokens", "max_tokens", "metadata", "n", "parallel_tool_calls"),
    *("reasoning_effort", "response_format", "safety_identifier", "service_tier", "stop", "stream", "stream_options"),
    *("temperature", "tool_choice", "tools", "top_p", "user"),
}
# Hints to OpenAI's own storage and caches: they change nothing in the answer.
DROPPED = {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "store"}
# Each with the value that asks for nothing, which SDKs and chat frontends like to send.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0,),
    "seed": (),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
_ADVICE = {
    "functions": "send tools instead",
    "function_call": "send tool_choice instead",
    "web_search_options": "send Anthropic's own web search among tools",
}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_SERVICE_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_OWN = TRANSLATED | DROPPED | REFUSED.keys()


def translate_request(
    body: Mapping[str, Any], model: str, disabled_tools: Collection[str], max_output_tokens: int | None = None
) -> Json:
    """The body of `POST /v1/messages`. `max_output_tokens` is the model's own limit where config knows it.

    Raises InvalidRequest: `unsupported_parameter` for a field that cannot be served, `invalid_request` for one that
    no chat API could read.
    """
    _refuse_unsupported(body)
    system, turns = translate_messages(body.get("messages"))
    request: Json = {name: value for name, value in body.items() if name not in _OWN}
    request |= {"model": model, "messages": turns}
    if system:
        request["system"] = system
    if body.get("stream"):
        request["stream"] = True
    _add_thinking(request, body)
    request["max_tokens"] = _max_tokens(request, body, max_output_tokens)
    _add_sampling(request, body)
    _add_tools(request, body, disabled_tools)
    _add_format(request, body)
    if (user_id := _user_id(body)) is not None:
        request["metadata"] = {"user_id": user_id}
    if (tier := body.get("service_tier")) is not None:
        if not isinstance(tier, str) or tier not in _SERVICE_TIERS:
            raise unsupported("service_tier", "expected auto or default")
        request["service_tier"] = _SERVICE_TIERS[tier]
    return request


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, harmless in REFUSED.items():
        value = body.get(name)
        if value is not None and value not in harmless:
            raise unsupported(name, _ADVICE.get(name, "leave it out, or name another model"))
    if (body.get("n") or 1) != 1:
        raise unsupported("n", "Claude gives one answer per call")


def _add_thinking(request: Json, body: Mapping[str, Any]) -> None:
    """`reasoning_effort` as Anthropic's effort, with as much thinking as the model then sees fit."""
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    if effort == "none":
        request.setdefault("thinking", {"type": "disabled"})
        return
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise InvalidRequest(f"reasoning_effort: expected none, {', '.join(_EFFORTS)}", param="reasoning_effort")
    request["output_config"] = {"effort": _EFFORTS[effort], **_object(request.get("output_config"))}
    if not _forces_a_tool(body):  # with which Claude does not think first
        request.setdefault("thinking", {"type": "adaptive"})


def _forces_a_tool(body: Mapping[str, Any]) -> bool:
    choice = body.get("tool_choice")
    return choice == "required" or (isinstance(choice, dict) and choice.get("type") in ("function", "any", "tool"))


def _max_tokens(request: Mapping[str, Any], body: Mapping[str, Any], model_limit: int | None) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if body.get(name) is not None:
            return int(body[name])  # that it is a positive whole number was checked when the call was read
    default = min(DEFAULT_MAX_TOKENS, model_limit or DEFAULT_MAX_TOKENS)
    budget = _object(request.get("thinking")).get("budget_tokens")
    if isinstance(budget, int) and budget + LEAST_ROOM_TO_ANSWER_TOKENS > default:
        return budget + LEAST_ROOM_TO_ANSWER_TOKENS
    return default


def _add_sampling(request: Json, body: Mapping[str, Any]) -> None:
    """1 is the default of both sides, and newer models of Anthropic refuse any other: it is never sent."""
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"{name}: expected a number", param=name)
        if not 0 <= value <= 1:
            raise unsupported(name, "expected 0 to 1")
        if value != 1:
            request[name] = value
    stop = body.get("stop")
    if stop is not None:
        request["stop_sequences"] = [stop] if isinstance(stop, str) else stop


def _add_tools(request: Json, body: Mapping[str, Any], disabled: Collection[str]) -> None:
    """The tools that are left, and which may be called.

    A conversation that already called tools needs their definitions. So when the budget disabled all of them they stay
    defined, but may not be called.
    """
    all_tools = translate_tools(body.get("tools"), ())
    if not all_tools:
        return
    kept = translate_tools(body.get("tools"), disabled)
    if not kept:
        if calls_tools(request["messages"]):
            request |= {"tools": all_tools, "tool_choice": {"type": "none"}}
        return
    request["tools"], choice = translate_choice(body.get("tool_choice"), body.get("parallel_tool_calls"), kept)
    if choice is not None:
        request["tool_choice"] = choice


def _add_format(request: Json, body: Mapping[str, Any]) -> None:
    given = body.get("response_format")
    kind = _object(given).get("type")
    if given is None or kind == "text":
        return
    schema = _object(_object(given).get("json_schema")).get("schema")
    if kind != "json_schema" or not isinstance(schema, dict):
        raise unsupported("response_format", "expected type text, or json_schema with a schema")
    wanted = {"type": "json_schema", "schema": schema}
    request["output_config"] = {**_object(request.get("output_config")), "format": wanted}


def _user_id(body: Mapping[str, Any]) -> str | None:
    """Who the client says its user is, as an opaque value: Anthropic wants no names or addresses, which clients send.

    Only `metadata.user_id`, a field of Anthropic's own, passes as it is. Scopes of the budget never go upstream.
    """
    own = _object(body.get("metadata")).get("user_id")
    if isinstance(own, str) and own:
        return own
    said = body.get("safety_identifier") or body.get("user")
    return hashlib.sha256(said.encode()).hexdigest() if isinstance(said, str) and said else None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
