"""Anthropic's answers and errors as OpenAI's chat clients read them. Pure but for the time of day."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON
from gateway.providers.anthropic_usage import client_tier, client_usage
from gateway.providers.base import AnswerFailed, AnswerUnreadable

Json = dict[str, Any]

# A paused turn is one that the provider cut for its length: like one that met a limit, it can be asked to go on.
FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# By Anthropic's name for an error: OpenAI's type, and the status that goes with it.
_ERRORS: Mapping[str, tuple[str, int]] = {
    "invalid_request_error": ("invalid_request_error", 400),
    "authentication_error": ("authentication_error", 401),
    "billing_error": ("insufficient_quota", 402),
    "permission_error": ("permission_error", 403),
    "not_found_error": ("invalid_request_error", 404),
    "request_too_large": ("invalid_request_error", 413),
    "rate_limit_error": ("rate_limit_error", 429),
    "api_error": ("server_error", 500),
    "timeout_error": ("server_error", 504),
    "overloaded_error": ("server_error", 529),
}
_SERVER_FAULT = 500


def finish_reason(stop_reason: Any) -> str:
    """OpenAI's `finish_reason`; a reason that is not known yet ends an answer like any other."""
    return FINISH_REASONS.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def read_message(content: bytes) -> Json:
    """Anthropic's message object. Raises AnswerFailed for an error in its place, AnswerUnreadable for anything else."""
    try:
        message = msgspec.json.decode(content)
    except UNREADABLE_JSON:
        message = None
    if isinstance(message, dict) and isinstance(message.get("error"), dict):
        raise answer_failed(message["error"])
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise AnswerUnreadable
    return message


def answer_failed(error: Any) -> AnswerFailed:
    """The failure that an error inside an answer of status 200 stands for."""
    told = {"error": error}
    status = error_status(told)
    return AnswerFailed(status, msgspec.json.encode(error_body(told, status)))


def completion(message: Mapping[str, Any]) -> Json:
    """A chat completion of a message. Blocks that OpenAI's API has no place for, such as a web search's, are left out:
    what they lead to stands in the text.
    """
    blocks = [block for block in message["content"] if isinstance(block, dict)]
    usage = message.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    answer: Json = {
        "id": str(message.get("id") or ""),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": str(message.get("model") or ""),
        "choices": [
            {
                "index": 0,
                "message": _message(blocks, message),
                "finish_reason": finish_reason(message.get("stop_reason")),
                "logprobs": None,
                "native_finish_reason": message.get("stop_reason"),
            }
        ],
        "usage": client_usage(usage),
    }
    if (tier := client_tier(usage)) is not None:
        answer["service_tier"] = tier
    return answer


def refusal_text(stop_details: Any) -> str | None:
    """What Anthropic says about why it refused, where it does."""
    said = stop_details.get("explanation") if isinstance(stop_details, dict) else None
    return said if isinstance(said, str) else None


def citation(found: Any, start_index: int, end_index: int) -> Json | None:
    """An annotation of the text between two characters, for a citation of a page of the web."""
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        return None
    cited = {"url": found["url"], "title": str(found.get("title") or ""), "start_index": start_index}
    return {"type": "url_citation", "url_citation": {**cited, "end_index": end_index}}


def error_status(event: Mapping[str, Any]) -> int:
    """The status of an error that came without one."""
    error = event.get("error")
    name = error.get("type") if isinstance(error, dict) else None
    return _ERRORS.get(str(name), ("", _SERVER_FAULT))[1]


def error_body(answer: Any, status: int) -> Json:
    """A decoded answer's error in OpenAI's shape: the code is Anthropic's own name of it, `overloaded_error` say."""
    error = answer.get("error") if isinstance(answer, dict) else None
    error = error if isinstance(error, dict) else {}
    name = error.get("type")
    code = name if isinstance(name, str) and name else "upstream_failed"
    other = "server_error" if status >= _SERVER_FAULT else "invalid_request_error"
    kind = _ERRORS.get(code, (other, status))[0]
    message = error.get("message")
    said = message if isinstance(message, str) and message else f"the model backend answered with status {status}"
    return {"error": {"code": code, "message": said, "type": kind, "param": None}}


def _message(blocks: list[Json], message: Mapping[str, Any]) -> Json:
    texts: list[str] = []
    annotations: list[Json] = []
    length = 0
    for block in blocks:
        if block.get("type") == "text":
            text = str(block.get("text") or "")
            cited = block.get("citations")
            found = [citation(each, length, length + len(text)) for each in cited] if isinstance(cited, list) else []
            annotations += [each for each in found if each is not None]
            texts.append(text)
            length += len(text)
    said = "".join(texts)
    refused = message.get("stop_reason") == "refusal"
    answer: Json = {
        "role": "assistant",
        "content": said or None,
        "refusal": refusal_text(message.get("stop_details")) if refused else None,
    }
    thinking = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    if thinking:
        answer["reasoning_content"] = "".join(str(block.get("thinking") or "") for block in thinking)
        answer["thinking_blocks"] = thinking
    if annotations:
        answer["annotations"] = annotations
    calls = [_tool_call(block) for block in blocks if block.get("type") == "tool_use"]
    if calls:
        answer["tool_calls"] = calls
    return answer


def _tool_call(block: Mapping[str, Any]) -> Json:
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    function = {"name": str(block.get("name") or ""), "arguments": arguments}
    return {"id": str(block.get("id") or ""), "type": "function", "function": function}
