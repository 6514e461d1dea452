"""What can go wrong: in a policy document when it is loaded, and in a call while it runs."""

from __future__ import annotations

from collections.abc import Mapping


class PolicyError(Exception):
    """A policy document that API Management would refuse. The message begins with file and line."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class CallFailed(Exception):
    """A step of a call failed: on-error runs; `status` and `shown` are what the caller sees if that changes nothing.

    `reason` is the code that API Management documents for context.LastError.Reason.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: int = 500,
        shown: str | None = None,
        source: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = status
        self.shown = shown if shown is not None else ("Internal server error" if status == 500 else message)
        self.source = source
        self.section = ""
        self.path = ""
        self.policy_id: str | None = None
        self.headers = dict(headers or {})
