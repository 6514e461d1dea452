"""Every error the product raises on purpose: a stable code, its HTTP status, and what the caller should change.

The body shape is OpenAI's, so that OpenAI SDKs raise their own typed exceptions on it.
"""

from __future__ import annotations

from typing import Any


class TollkeeperError(Exception):
    """Base of all deliberate errors: a stable, documented `code`, and a `message` naming the field and the fix."""

    code = "internal_error"
    http_status = 500
    kind = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.extra = extra or {}

    def body(self) -> dict[str, Any]:
        """The JSON body: OpenAI's `error` object, with the contract's extra fields beside it."""
        error = {"code": self.code, "message": self.message, "type": self.kind, "param": self.param}
        return {"error": error, **self.extra}

    def headers(self) -> dict[str, str]:
        """The response headers this error asks for."""
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}


class InvalidRequest(TollkeeperError):
    """The request cannot be understood; `param` names the field. Sending it again unchanged cannot help."""

    code, http_status, kind = "invalid_request", 400, "invalid_request_error"


class PayloadTooLarge(TollkeeperError):
    """The body is larger than the route accepts."""

    code, http_status, kind = "payload_too_large", 413, "invalid_request_error"


class NotAuthenticated(TollkeeperError):
    """No validated identity came with the request."""

    code, http_status, kind = "not_authenticated", 401, "authentication_error"


class Forbidden(TollkeeperError):
    """The caller is known but may not do this: `scope_not_allowed`, `model_not_allowed`, `tenant_unknown`, more."""

    code, http_status, kind = "forbidden", 403, "permission_error"


class NotFound(TollkeeperError):
    """What the request names does not exist."""

    code, http_status, kind = "not_found", 404, "invalid_request_error"


class Conflict(TollkeeperError):
    """What the request was based on has changed meanwhile. Reading it again and deciding anew helps."""

    code, http_status, kind = "conflict", 409, "invalid_request_error"


class BudgetExhausted(TollkeeperError):
    """The budget is spent. Retrying before the reset cannot help."""

    code, http_status, kind = "budget_exhausted", 402, "budget"


class BudgetReserved(TollkeeperError):
    """What is left is held by calls in flight. Retrying shortly helps."""

    code, http_status, kind = "budget_reserved", 429, "budget"


class StateUnavailable(TollkeeperError):
    """The live counters cannot be read and the tenant fails closed."""

    code, http_status, kind = "state_unavailable", 503, "budget"


class DeadlinePassed(TollkeeperError):
    """The caller said until when it waits, and that is over. Nothing stays held for it."""

    code, http_status, kind = "deadline_passed", 504, "server_error"


class ConfigInvalid(TollkeeperError):
    """The configuration has errors; each line of the message names file, line and field. It is refused as a whole."""

    code, http_status, kind = "config_invalid", 422, "invalid_request_error"
