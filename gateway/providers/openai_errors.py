"""Errors of providers in the one shape that OpenAI's SDKs know: code, message, type and param, all four. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.call import UNREADABLE_JSON
from gateway.providers.base import AnswerFailed

_CODES = {
    400: "invalid_request",
    401: "upstream_refused",
    402: "upstream_credits",
    403: "upstream_refused",
    404: "not_found",
    408: "upstream_timeout",
    413: "payload_too_large",
    422: "invalid_request",
    429: "rate_limit_exceeded",
}
# What a Responses answer says of the call itself: no other place would do better, and none has failed.
_ABOUT_THE_CALL = (
    *("invalid_prompt", "bio_policy", "misalignment_policy_violation", "data_residency_mismatch"),
    *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
    *("image_too_large", "image_too_small", "image_file_too_large", "empty_image_file", "image_file_not_found"),
    *("image_parse_error", "unsupported_image_media_type", "failed_to_download_image"),
    "image_content_policy_violation",
)
_STATUSES = {  # of the codes that Responses and streams state instead of a status
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "vector_store_timeout": 504,
    **dict.fromkeys(_ABOUT_THE_CALL, 400),
}
_MOST_DIGITS = 3  # of a status; Python refuses to read some thousands
_STATUSES_OF_TYPES = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
}


def error_body(status: int, content: bytes) -> bytes:
    """The body of an HTTP error. What has the shape already stays as it is, byte for byte."""
    try:
        body = msgspec.json.decode(content)
    except UNREADABLE_JSON:
        return _encoded(status, None)  # a proxy's page of HTML, or nothing
    if isinstance(body, dict) and _is_shaped(body.get("error")):
        return content
    return _encoded(status, body)


def shaped_error(status: int, body: Any) -> dict[str, Any]:
    """The error that a decoded body holds, with what its provider wrote beside it kept."""
    found: dict[str, Any] = {}
    if isinstance(body, dict):
        inner = body.get("error")
        found = inner if isinstance(inner, dict) else {"message": inner} if isinstance(inner, str) else body
    message, code = found.get("message"), found.get("code") or found.get("error_code")
    own = {name: value for name, value in found.items() if name not in ("error_code", "object", "status_code")}
    return {
        **own,
        "message": message if isinstance(message, str) and message else f"the model backend answered {status}",
        "code": code if isinstance(code, str) and not code.isdigit() else _code(status),
        "type": found["type"] if isinstance(found.get("type"), str) else _type(status),
        "param": found["param"] if isinstance(found.get("param"), str) else None,
    }


def answer_failed(error: Any, usage: dict[str, Any] | None) -> AnswerFailed:
    """The failure that an error inside an answer of status 200 stands for."""
    status = status_of(error)
    try:
        content = _encoded(status, {"error": error})
    except RecursionError:  # it could just be read; failing over it, whoever reports the call never would
        content = _encoded(status, None)
    return AnswerFailed(status, content, usage)


def status_of(error: Any) -> int:
    """The HTTP status that an error would have had: its code where that is one, else what its names mean, else 502."""
    code, kind = (error.get("code"), error.get("type")) if isinstance(error, dict) else (None, None)
    if isinstance(code, str):
        code = int(code) if code.isascii() and code.isdigit() and len(code) <= _MOST_DIGITS else _STATUSES.get(code)
    if code is None and isinstance(kind, str):
        code = _STATUSES_OF_TYPES.get(kind)
    return code if isinstance(code, int) and 400 <= code <= 599 else 502


def _encoded(status: int, body: Any) -> bytes:
    return msgspec.json.encode({"error": shaped_error(status, body)})


def _is_shaped(error: Any) -> bool:
    if not isinstance(error, dict) or not {"code", "message", "type", "param"} <= error.keys():
        return False
    return (
        isinstance(error["message"], str)
        and isinstance(error["type"], str)
        and isinstance(error["code"], str | None)
        and isinstance(error["param"], str | None)
    )


def _code(status: int) -> str:
    return _CODES.get(status, "upstream_failed" if status >= 500 else "invalid_request")


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
