"""return-response and set-status."""

from __future__ import annotations

from http import HTTPStatus

from local.apim.call import Call, PipelineEnded
from local.apim.document import Node
from local.apim.elements.headers import SET_BODY, SET_HEADER, body_of, change_header
from local.apim.errors import CallFailed
from local.apim.messages import Headers, Response
from local.apim.schema import ALL_SECTIONS, Attribute, Children, Element, Policy, literal, needs


async def run_return_response(call: Call, node: Node) -> None:
    """Answer now; no later policy runs."""
    response = Response(200, "OK", Headers())
    if (variable := node.attributes.get("response-variable-name")) is not None:
        known = call.bridge.message_variables.get(variable.text)
        if known is None:
            raise CallFailed("ResponseVariableNotFound", f"no response is kept as {variable.text!r}")
        response = Response(known.status, known.reason, Headers(known.headers), known.body)
    for child in node.children:
        if child.name == "set-status":
            await _set_status(call, child, response)
        elif child.name == "set-header":
            await change_header(call, child, response.headers)
        else:
            response.replace_body(await body_of(call, child))
    if call.response is not None:
        await call.response.close()
    call.response = response
    raise PipelineEnded


async def run_set_status(call: Call, node: Node) -> None:
    """Change the status of the response."""
    if call.response is None:
        call.response = Response(200, "OK", Headers())
    await _set_status(call, node, call.response)
    call.bridge.changed(call.response)


async def _set_status(call: Call, node: Node, response: Response) -> None:
    status = int(await call.number(node, "code"))
    if not 100 <= status <= 999:
        raise CallFailed("InvalidStatusCode", f"{status} is not an HTTP status")
    response.status = status
    response.reason = await call.text(node, "reason") or _phrase(status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


_SET_STATUS = Element(attributes={"code": needs("integer", least=100, most=999), "reason": Attribute()})
_RETURN = Element(
    attributes={"response-variable-name": literal()},
    children={
        "set-status": Children(_SET_STATUS, most=1),
        "set-header": Children(SET_HEADER),
        "set-body": Children(SET_BODY, most=1),
    },
)

POLICIES = (
    Policy("return-response", ALL_SECTIONS, _RETURN, run_return_response),
    Policy("set-status", frozenset(("backend", "outbound", "on-error")), _SET_STATUS, run_set_status),
)
