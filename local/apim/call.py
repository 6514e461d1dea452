"""One call on its way through the sections: its messages, its variables, and how values are evaluated for it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local.apim.bridge import Bridge
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.expressions import Value
from local.apim.messages import Request, Response
from local.apim.operations import Operation

if TYPE_CHECKING:
    import asyncio

    from local.apim.gateway import Gateway
    from local.apim.llm_log import Watch


class PipelineEnded(Exception):
    """return-response was executed: no further policy runs."""


@dataclass(eq=False)
class Call:
    """Everything that policies of one call read and change."""

    gateway: Gateway
    request: Request
    client_gone: asyncio.Event
    subscription_id: str | None = None
    subscription_key: str | None = None
    product_id: str | None = None
    operation: Operation | None = None
    section: str = "inbound"
    request_id: uuid.UUID = field(default_factory=uuid.uuid4)
    timestamp_utc: datetime = field(default_factory=lambda: datetime.now(UTC))
    response: Response | None = None
    backend_id: str | None = None
    backend_urls: Sequence[str] = ()  # of a pool, when set-backend-service chose one
    forwarded: bool = False  # a backend was asked
    failure: CallFailed | None = None
    watch: Watch | None = None  # of the answer that the client gets
    late_headers: dict[str, str] = field(default_factory=dict)  # that limits add to the response
    on_tokens: list[Any] = field(default_factory=list)  # told the tokens of the answer once the gateway saw them
    bridge: Bridge = field(init=False)

    def __post_init__(self) -> None:
        self.bridge = Bridge(self)

    @property
    def message(self) -> Request | Response:
        """What set-header and set-body work on in this section."""
        if self.section in ("outbound", "on-error"):
            assert self.response is not None
            return self.response
        return self.request

    async def keep(self, node: Node, name: str, variable: str) -> None:
        """Put the attribute `name` into a variable; what an expression returns stays the object it is in C#."""
        written = node.attributes[name]
        if written.expression_id is None:
            self.bridge.set_variable(variable, written.text)
        else:
            await self.bridge.store(written.expression_id, variable)
            self.gateway.coverage.hit(f"{node.key}:{name}")

    async def raw(self, node: Node, name: str) -> Value | None:
        """The attribute `name`, or the text for "text"; None when it is not there. Raises CallFailed."""
        written = node.text if name == "text" else node.attributes.get(name)
        if written is None:
            return None
        if written.expression_id is None:
            return Value(written.text, written.text, "System.String")
        value = await self.bridge.evaluate(written.expression_id)
        if name != "condition":
            self.gateway.coverage.hit(f"{node.key}:{name}")
        return value

    async def text(self, node: Node, name: str, default: str = "") -> str:
        """A value as text."""
        value = await self.raw(node, name)
        return default if value is None else value.text

    async def boolean(self, node: Node, name: str, default: bool = False) -> bool:
        """A value as a boolean. Raises CallFailed for anything else."""
        value = await self.raw(node, name)
        if value is None:
            return default
        if isinstance(value.value, bool):
            return value.value
        if value.text.strip().lower() in ("true", "false"):
            return value.text.strip().lower() == "true"
        raise _mistyped(name, "a boolean", value)

    async def condition(self, node: Node) -> bool:
        """The `condition` of a node, each outcome recorded."""
        result = await self.boolean(node, "condition")
        self.gateway.coverage.hit(f"{node.key}:{'true' if result else 'false'}")
        return result

    async def number(self, node: Node, name: str, default: float = 0) -> float:
        """A value as a number. Raises CallFailed for anything else."""
        value = await self.raw(node, name)
        if value is None:
            return default
        try:
            return float(value.text)
        except ValueError:
            raise _mistyped(name, "a number", value) from None


def _mistyped(name: str, expected: str, value: Value) -> CallFailed:
    message = f"Expression value is invalid. The field '{name}' expects {expected}, got {value.type or 'null'}."
    return CallFailed("ExpressionValueTypeMismatch", message)
