"""The `context` of one call, as Python sees it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from local.apim.expressions.parts import Body, ContextParts, RequestMessage, ResponseMessage, member
from local.apim.expressions.values import Value, decode, encode

if TYPE_CHECKING:
    from local.apim.expressions.host import ExpressionHost

_context_ids = itertools.count(1)


class Context:
    """Made by ExpressionHost.open.

    What it is told waits here and goes with the next expression, in one message: asking costs a change of process
    twice, and most of what a policy does is asked about by no expression.
    """

    def __init__(self, host: ExpressionHost, parts: ContextParts) -> None:
        self._host = host
        self.id = f"c{next(_context_ids)}"
        self._changes: list[dict[str, Any]] = [{"op": "open", "parts": parts.as_json()}]
        self._is_known = False  # C# keeps something for this context
        self.bodies: dict[str, Body] = {}
        """Bodies of its messages by id; the host marks here what was consumed."""
        self.traces: list[str] = []
        """What expressions wrote with context.Trace."""

    async def evaluate(self, expression: int) -> Value:
        """Evaluate the expression with this index. Raises ExpressionError, StreamedBodyRead, HostLostError."""
        return decode(await self._host.evaluate(self, self._take_changes(), expression))

    async def store(self, expression: int, name: str) -> None:
        """Evaluate it and keep the C# object as that context variable. Raises what evaluate raises."""
        await self._host.evaluate(self, self._take_changes(), expression, name)

    def set_request(self, request: RequestMessage) -> None:
        """Make this the request; a Body that was in the one before keeps its state."""
        self._change_message({"op": "request"}, request)

    def set_response(self, response: ResponseMessage | None) -> None:
        """Make this the response, or null."""
        self._change_message({"op": "response"}, response)

    def set_message_variable(self, name: str, response: ResponseMessage | None) -> None:
        """Put an IResponse into a variable, as send-request does; None puts null there."""
        self._change_message({"op": "message_variable", "name": name}, response)

    def set_variable(self, name: str, value: Any) -> None:
        """Put a value into a variable: dict and list become JObject and JArray. Raises TypeError."""
        self._changes.append({"op": "variable", "name": name, "value": encode(value)})

    def set_jwt_variable(self, name: str, token: str) -> None:
        """Put the Jwt that a token parses to into a variable, as validate-jwt does."""
        self._changes.append({"op": "variable", "name": name, "value": {"type": "jwt", "value": token}})

    def remove_variable(self, name: str) -> None:
        """Forget a variable."""
        self._changes.append({"op": "remove_variable", "name": name})

    def set_part(self, name: str, part: Mapping[str, Any] | None) -> None:
        """Replace one part of ContextParts, by its name there: `set_part("product", {"Id": ...})`."""
        self._changes.append({"op": "part", "name": member(name), "part": None if part is None else dict(part)})

    def set_last_error(self, error: Mapping[str, Any] | None) -> None:
        """Set context.LastError: Source, Reason, Message, Scope, Section, Path, PolicyId."""
        self.set_part("last_error", error)

    def close(self) -> None:
        """Forget the context. It waits for nothing, so a call that is cancelled can do it too."""
        if self._is_known:
            self._is_known = False
            self._host.forget(self)

    def _take_changes(self) -> list[dict[str, Any]]:
        changes, self._changes, self._is_known = self._changes, [], True
        return changes

    def _change_message(self, change: dict[str, Any], message: RequestMessage | ResponseMessage | None) -> None:
        change["message"] = None if message is None else message.as_json()
        if message is not None and message.body is not None:
            self.bodies[message.body.id] = message.body
            change["body"] = message.body.as_json()
        self._changes.append(change)
