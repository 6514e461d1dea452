"""One call as the client asked for it, and the body as it goes upstream after the budget had its say. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from shared.errors import InvalidRequest

Operation = Literal["chat", "embeddings"]

# What msgspec raises on hostile bytes: broken UTF-8 and deep nesting are no DecodeError.
UNREADABLE_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
_FUNCTION_FIELDS = ("functions", "function_call")
_WEB_SEARCH = "web_search"
_NAMED_TOOLS = ("", "function", "custom")  # the older `functions` have no type
_MOST_OUTPUT_TOKENS = 10**9
_MOST_CHOICES = 128


@dataclass(frozen=True)
class ModelCall:
    """What the client asked for."""

    operation: Operation
    body: dict[str, Any]
    body_bytes: int
    model: str  # as the path or the body named it: a model's id or a deployment
    streamed: bool
    wants_usage_chunk: bool
    tools: tuple[str, ...]
    max_output_tokens: int | None  # of all choices together
    choices: int


def read_call(operation: Operation, raw: bytes, path_deployment: str | None) -> ModelCall:
    """Decode a request body. Raises InvalidRequest naming the field; nothing of the prompt is ever quoted."""
    try:
        body = msgspec.json.decode(raw)
    except UNREADABLE_JSON:
        raise InvalidRequest("the body is not valid JSON, or nested too deep") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    named = path_deployment or body.get("model")
    if not isinstance(named, str) or not 0 < len(named) <= 128:
        raise InvalidRequest("model: expected the name of a model", param="model")
    streamed = body.get("stream") or False
    if not isinstance(streamed, bool):
        raise InvalidRequest("stream: expected true or false", param="stream")
    return ModelCall(
        operation=operation,
        body=body,
        body_bytes=len(raw),
        model=named,
        streamed=streamed,
        wants_usage_chunk=_stream_options(body).get("include_usage") is True,
        tools=_tools_in(body),
        max_output_tokens=0 if operation == "embeddings" else _max_output_tokens(body),
        choices=1 if operation == "embeddings" else _choices(body),
    )


def upstream_body(call: ModelCall, model_name: str, disabled_tools: Collection[str]) -> bytes:
    """The body to forward: the served model's name, disabled tools left out, usage asked for on every stream.

    Without usage on a stream nobody could bill it exactly; the extra chunk is taken out again on the way back.
    """
    body = {**call.body, "model": model_name}
    if disabled_tools:
        _drop_tools(body, frozenset(disabled_tools))
    if call.streamed and call.operation == "chat":
        body["stream_options"] = {**_stream_options(body), "include_usage": True}
    return msgspec.json.encode(body)


def dropped_tools(call: ModelCall, disabled_tools: Collection[str]) -> list[str]:
    """Which of the call's own tools the budget disabled, in the call's order."""
    return [tool for tool in call.tools if tool in disabled_tools]


def _stream_options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InvalidRequest("stream_options: expected an object", param="stream_options")
    return options


def _max_output_tokens(body: Mapping[str, Any]) -> int | None:
    """What the answer can cost at most: the cap of one choice times the number of choices."""
    for name in ("max_completion_tokens", "max_tokens"):
        cap = body.get(name)
        if cap is None:
            continue
        if not isinstance(cap, int) or isinstance(cap, bool) or not 0 < cap <= _MOST_OUTPUT_TOKENS:
            raise InvalidRequest(f"{name}: expected a positive whole number", param=name)
        return min(cap * _choices(body), _MOST_OUTPUT_TOKENS)
    return None


def _choices(body: Mapping[str, Any]) -> int:
    """How many answers are asked for. Checked on every call: each of them is billed."""
    choices = body.get("n")
    if choices is None:
        return 1
    if not isinstance(choices, int) or isinstance(choices, bool) or not 0 < choices <= _MOST_CHOICES:
        raise InvalidRequest(f"n: expected a whole number from 1 to {_MOST_CHOICES}", param="n")
    return choices


def _tool_name(tool: Any) -> str:
    """The function's own name for a function; the type for a built-in tool, whatever name a caller writes beside it."""
    if not isinstance(tool, dict):
        raise InvalidRequest("tools: expected a list of objects", param="tools")
    kind = str(tool.get("type") or "")
    if kind not in _NAMED_TOOLS:
        return _WEB_SEARCH if kind.startswith(_WEB_SEARCH) else kind  # `web_search_preview` is one too
    own = next((tool[name] for name in ("function", "custom") if isinstance(tool.get(name), dict)), tool)
    return str(own.get("name") or kind)


def _tools_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    tools = body.get("tools") or []
    functions = body.get("functions") or []
    if not isinstance(tools, list) or not isinstance(functions, list):
        raise InvalidRequest("tools: expected a list of objects", param="tools")
    names = [_tool_name(tool) for tool in tools] + [_tool_name(function) for function in functions]
    if body.get("web_search_options") is not None:
        names.append(_WEB_SEARCH)
    return tuple(dict.fromkeys(name for name in names if name))


def _drop_tools(body: dict[str, Any], disabled: frozenset[str]) -> None:
    """Take disabled tools out, with the fields that would be invalid or point at nothing without them."""
    if _WEB_SEARCH in disabled:
        body.pop("web_search_options", None)
    for list_field, others in (("tools", _TOOL_FIELDS), ("functions", _FUNCTION_FIELDS)):
        if not body.get(list_field):
            continue
        kept = [tool for tool in body[list_field] if _tool_name(tool) not in disabled]
        if len(kept) == len(body[list_field]):
            continue
        body[list_field] = kept
        choice_field = others[1]
        choice = body.get(choice_field)
        if isinstance(choice, dict) and _tool_name(choice) in disabled:
            del body[choice_field]
        if not kept:
            for name in others:
                body.pop(name, None)
