"""What a call tells C# about itself: its messages, their bodies, and what else `context` shows."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

BUFFER_LIMIT_BYTES = 2 * 1024 * 1024
"""What API Management buffers of a body for policies."""

_body_ids = itertools.count(1)


@dataclass(eq=False)
class Body:
    """A message's body. The same object may be in several messages: an expression consumes it once for all of them.

    A body that is larger than BUFFER_LIMIT_BYTES is never asked for: its size is enough (`Body(b"", size=3_000_000)`).
    """

    content: bytes
    streamed: bool = False
    size: int | None = None  # of `content`, when None
    consumed: bool = False  # an expression read it without preserveContent
    id: str = field(default_factory=lambda: f"b{next(_body_ids)}")

    def as_json(self) -> dict[str, Any]:
        """For C#, without the content."""
        size = len(self.content) if self.size is None else self.size
        return {"id": self.id, "size": size, "streamed": self.streamed}


@dataclass
class RequestMessage:
    """`context.Request`. URLs are absolute; without a body, `context.Request.Body` is null."""

    method: str
    url: str
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Body | None = None
    original_url: str | None = None  # as the client sent it; `url` when None
    ip_address: str = "127.0.0.1"
    matched_parameters: Mapping[str, str] = field(default_factory=dict)
    foundry_deployment: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For C#."""
        return {
            "method": self.method,
            "url": self.url,
            "original_url": self.original_url,
            "headers": {name: list(values) for name, values in self.headers.items()},
            "ip_address": self.ip_address,
            "matched_parameters": dict(self.matched_parameters),
            "foundry_deployment": self.foundry_deployment,
        }


@dataclass
class ResponseMessage:
    """`context.Response`, or a variable that send-request made."""

    status_code: int
    status_reason: str = ""
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Body | None = None

    def as_json(self) -> dict[str, Any]:
        """For C#."""
        return {
            "status_code": self.status_code,
            "status_reason": self.status_reason,
            "headers": {name: list(values) for name, values in self.headers.items()},
        }


@dataclass
class ContextParts:
    """What surrounds a call. Each part is a mapping whose keys are the members that C# shows: {"Id": ..., "Name": ...}.

    A part that is None is null in C#: a call without a subscription has no context.Subscription. Times are strings
    in RFC 3339.
    """

    request_id: uuid.UUID = field(default_factory=uuid.uuid4)
    timestamp: datetime | None = None  # now, when None
    tracing: bool = False
    api: Mapping[str, Any] | None = None
    backend: Mapping[str, Any] | None = None
    deployment: Mapping[str, Any] | None = None
    last_error: Mapping[str, Any] | None = None
    operation: Mapping[str, Any] | None = None
    product: Mapping[str, Any] | None = None
    subscription: Mapping[str, Any] | None = None
    user: Mapping[str, Any] | None = None
    workspace: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For C#."""
        parts = {member(name): value for name, value in asdict(self).items()}
        parts["RequestId"] = str(self.request_id)
        parts["Timestamp"] = (self.timestamp or datetime.now(UTC)).isoformat()
        return parts


def member(name: str) -> str:
    """The name that C# gives a part: LastError of last_error."""
    return "".join(word.capitalize() for word in name.split("_"))
