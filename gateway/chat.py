"""`POST /chat`: a prompt in, a reply and what it cost out, for scripts that want no SDK.

A call like any other: it becomes a chat completion and goes through the same check, attempts and events.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.datastructures import Headers

from gateway.auth import SCOPE_HEADER_PREFIX
from gateway.call import UNREADABLE_JSON, ModelCall, call_of, read_object
from gateway.cost import cost_usd
from gateway.upstream import UpstreamBroken
from shared.budgets.routed import AUTO
from shared.errors import InvalidRequest
from shared.scopes import SCOPE_TYPE

if TYPE_CHECKING:
    from gateway.answers import Whole
    from shared.pricing.pricer import Pricer

TYPE_HEADER, KEY_HEADER = SCOPE_HEADER_PREFIX + "type", SCOPE_HEADER_PREFIX + "key"
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what OpenAI takes as the name of a function
_ANY_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": True}


def chat_call(raw: bytes) -> ModelCall:
    """The chat completion that the body of a `POST /chat` asks for.

    `prompt` is its one message, `tools` may be names, and without `model` it is `auto`; every other field is one of
    chat completions' own. Raises InvalidRequest naming the field.
    """
    body = read_object(raw)
    prompt = body.pop("prompt", None)
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest("prompt: expected text", param="prompt")
    if "messages" in body:
        raise InvalidRequest("messages: this route takes one prompt; use /v1/chat/completions", param="messages")
    if body.get("stream"):
        raise InvalidRequest("stream: this route answers at once; POST /v1/chat/completions streams", param="stream")
    if body.get("n") not in (None, 1):
        raise InvalidRequest("n: this route has one reply; POST /v1/chat/completions has more", param="n")
    body["messages"] = [{"role": "user", "content": prompt}]
    if body.get("model") is None:
        body["model"] = AUTO
    if body.get("tools"):
        body["tools"] = _tools(body["tools"])
    else:
        body.pop("tools", None)  # OpenAI takes no empty list
    return call_of("chat", body, len(raw))


def with_scope_header(headers: Headers) -> Headers:
    """The headers with `x-budget-scope-type` and `-key` in the one form that every route reads, x-budget-scope-<type>.

    So the same rules decide who may name which scope. Raises InvalidRequest when one lacks the other, or both forms
    came.
    """
    kinds, keys = headers.getlist(TYPE_HEADER), headers.getlist(KEY_HEADER)
    if not kinds and not keys:
        return headers
    for name, found in ((TYPE_HEADER, kinds), (KEY_HEADER, keys)):
        if len(found) != 1 or not found[0].strip():
            raise InvalidRequest(
                f"{name}: send {TYPE_HEADER} and {KEY_HEADER} together, each once and not empty", param=name
            )
    kind = kinds[0].strip().lower()
    if not SCOPE_TYPE.fullmatch(kind):
        raise InvalidRequest(f"{TYPE_HEADER}: expected a type of scope, such as session", param=TYPE_HEADER)
    own = {TYPE_HEADER.encode(), KEY_HEADER.encode()}
    others = [(name, value) for name, value in headers.raw if name.lower() not in own]
    if any(name.lower().startswith(SCOPE_HEADER_PREFIX.encode()) for name, _ in others):
        message = f"{TYPE_HEADER}: send it with {KEY_HEADER}, or {SCOPE_HEADER_PREFIX}<type> headers, not both forms"
        raise InvalidRequest(message, param=TYPE_HEADER)
    scope = (f"{SCOPE_HEADER_PREFIX}{kind}".encode("latin-1"), keys[0].encode("latin-1"))
    return Headers(raw=[*others, scope])


def chat_body(answer: Whole, pricer: Pricer) -> dict[str, Any]:
    """What the route says of a whole answer: the reply with its cost, or the error it came to.

    A refusal has `remaining` beside the budget that it names. Raises UpstreamBroken for an answer without a choice.
    """
    try:
        body = msgspec.json.decode(answer.content)
    except UNREADABLE_JSON:
        raise UpstreamBroken("the model backend's answer cannot be read") from None
    if answer.status >= 400:
        budget = body.get("budget") if answer.exchange is None else None  # else a backend wrote it
        return {**body, "remaining": budget["remaining"]} if budget else body
    try:
        message = body["choices"][0]["message"]
    except (KeyError, IndexError, TypeError):
        message = None
    if not isinstance(message, dict):
        raise UpstreamBroken("the model backend's answer has no choice")
    said = {
        "reply": message.get("content"),
        "cost": _cost(answer, pricer),
        "model": answer.exchange.answer.model if answer.exchange else body.get("model"),
        "usage": body.get("usage"),
    }
    for name in ("tool_calls", "refusal"):  # why there is no reply
        if message.get(name):
            said[name] = message[name]
    return said


def _cost(answer: Whole, pricer: Pricer) -> str | None:
    """In USD; None where nobody knows it yet: the model told no usage, or its price is in no book."""
    if answer.exchange is None or answer.usage is None:
        return None
    return cost_usd(answer.exchange, answer.usage, answer.tier, pricer)


def _tools(given: Any) -> list[Any]:
    """OpenAI's tools, from tools or names: a name alone is a function of whatever arguments the model finds."""
    if not isinstance(given, list):
        raise InvalidRequest("tools: expected a list of names or of OpenAI's tools", param="tools")
    return [_function(tool) if isinstance(tool, str) else tool for tool in given]


def _function(name: str) -> dict[str, Any]:
    if not _TOOL_NAME.fullmatch(name):
        raise InvalidRequest("tools: a name has 1 to 64 letters, digits, '_' or '-'", param="tools")
    return {"type": "function", "function": {"name": name, "parameters": _ANY_ARGUMENTS}}
