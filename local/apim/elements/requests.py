"""send-request and send-one-way-request: calls that the gateway makes for itself."""

from __future__ import annotations

import asyncio

import httpx

from local.apim.call import Call
from local.apim.document import Node
from local.apim.elements.headers import SET_BODY, SET_HEADER, body_of, change_header
from local.apim.elements.identity import MANAGED_IDENTITY, add_token
from local.apim.errors import CallFailed
from local.apim.messages import Headers, Response
from local.apim.schema import ALL_SECTIONS, Attribute, Children, Element, Policy, literal

DEFAULT_TIMEOUT_SECONDS = 60


async def run_send_request(call: Call, node: Node) -> None:
    """Ask, wait, keep the answer in a variable; null when it failed and errors are ignored."""
    request = await _request(call, node)
    variable = node.attributes["response-variable-name"].text
    timeout_seconds = await call.number(node, "timeout", DEFAULT_TIMEOUT_SECONDS)
    try:
        async with asyncio.timeout(timeout_seconds):
            answer = await call.gateway.http.send(request)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        if await call.boolean(node, "ignore-error"):
            call.bridge.set_variable(variable, None)
            return
        reason = "Timeout" if isinstance(error, TimeoutError) else "BackendConnectionFailure"
        raise CallFailed(reason, f"{request.url.host}: {type(error).__name__}") from error
    headers = Headers(answer.headers.multi_items())
    for name in ("content-encoding", "transfer-encoding"):
        headers.delete(name)  # httpx gave the body decoded
    response = Response(answer.status_code, answer.reason_phrase, headers, answer.content)
    call.bridge.set_message_variable(variable, response)


async def run_send_one_way_request(call: Call, node: Node) -> None:
    """Send and go on; nobody hears how it went."""
    request = await _request(call, node)
    timeout_seconds = await call.number(node, "timeout", DEFAULT_TIMEOUT_SECONDS)

    async def send() -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await call.gateway.http.send(request)
        except (httpx.HTTPError, TimeoutError) as error:
            call.gateway.traces.append(f"send-one-way-request {request.url.host} failed: {type(error).__name__}")

    call.gateway.in_background(send())


async def _request(call: Call, node: Node) -> httpx.Request:
    """The request that the children describe, made in their order."""
    method, url, headers, body = "GET", "", Headers(), b""
    if await call.text(node, "mode") == "copy":
        method, url = call.request.method, call.request.target
        headers = Headers(call.request.headers.passed_on())
        body = (call.request.body or b"") if call.section == "inbound" else b""
    for child in node.children:
        if child.name == "set-url":
            url = (await call.text(child, "text")).strip()
        elif child.name == "set-method":
            method = (await call.text(child, "text")).strip().upper()
        elif child.name == "set-header":
            await change_header(call, child, headers)
        elif child.name == "set-body":
            body = await body_of(call, child)
        else:
            await add_token(call, child, headers)
    headers.delete("content-length")
    try:
        return call.gateway.http.build_request(method, url, headers=headers.encoded(), content=body or None)
    except httpx.InvalidURL as error:
        raise CallFailed("InvalidRequest", f"the request cannot be made: {error}") from error


_CHILDREN = {
    "set-url": Children(Element(text="required"), most=1),
    "set-method": Children(Element(text="required"), most=1),
    "set-header": Children(SET_HEADER),
    "set-body": Children(SET_BODY, most=1),
    "authentication-managed-identity": Children(MANAGED_IDENTITY, most=1),
}
_ONE_WAY = {"mode": literal(choices=frozenset(("new", "copy"))), "timeout": Attribute(kind="number", least=0)}
_WAITING = {
    **_ONE_WAY,
    "response-variable-name": literal(required=True),
    "ignore-error": Attribute(expression=False, kind="boolean"),
}

POLICIES = (
    Policy("send-request", ALL_SECTIONS, Element(_WAITING, _CHILDREN), run_send_request),
    Policy("send-one-way-request", ALL_SECTIONS, Element(_ONE_WAY, _CHILDREN), run_send_one_way_request),
)
