"""set-header and set-body, in a section and inside send-request and return-response."""

from __future__ import annotations

import re

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.messages import Headers, Request
from local.apim.schema import ALL_SECTIONS, Children, Element, Policy, literal, needs

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\r\n\0]")


async def change_header(call: Call, node: Node, headers: Headers) -> None:
    """Apply one <set-header> to `headers`."""
    name = await call.text(node, "name")
    action = await call.text(node, "exists-action", "override")
    values = [await call.text(value, "text") for value in node.all("value")]
    if action == "delete":
        headers.delete(name)
        return
    if not _NAME.fullmatch(name) or any(_FORBIDDEN.search(value) for value in values):
        raise CallFailed("InvalidHeader", f"the header {name[:60]!r} cannot be sent with what it was set to")
    if action == "append":
        headers.append(name, values)
    elif action == "override" or headers.get(name) is None:
        headers.set(name, values)


async def body_of(call: Call, node: Node) -> bytes:
    """The bytes of a <set-body>."""
    value = await call.raw(node, "text")
    if value is None:
        return b""
    return value.value if isinstance(value.value, bytes) else value.text.encode()


async def run_set_header(call: Call, node: Node) -> None:
    """On the request before the backend answers, on the response after."""
    await change_header(call, node, call.message.headers)
    call.bridge.changed(call.message)


async def run_set_body(call: Call, node: Node) -> None:
    """Replace the message's body."""
    body, message = await body_of(call, node), call.message
    if isinstance(message, Request):
        message.body, message.body_is_consumed = body, False
        message.headers.delete("content-length")
    else:
        if message.is_streamed:
            call.gateway.violate(f"{node.where} replaced the body of a streamed answer")
            raise CallFailed("ExpressionValueEvaluationFailure", "the body of a streamed answer was replaced")
        await message.close()
        message.replace_body(body)
    call.bridge.changed(message, body=True)


SET_HEADER = Element(
    attributes={
        "name": needs(),
        "exists-action": literal(choices=frozenset(("override", "skip", "append", "delete"))),
    },
    children={"value": Children(Element(text="optional"))},
)
SET_BODY = Element(text="optional")

POLICIES = (
    Policy("set-header", ALL_SECTIONS, SET_HEADER, run_set_header),
    Policy("set-body", frozenset(("inbound", "backend", "outbound")), SET_BODY, run_set_body),
)
