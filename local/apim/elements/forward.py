"""forward-request: the call to the backend, until its headers are here."""

from __future__ import annotations

import asyncio

import httpx

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.expressions import BUFFER_LIMIT_BYTES
from local.apim.messages import Headers, Response
from local.apim.schema import Attribute, Element, Policy

DEFAULT_TIMEOUT_SECONDS = 300


async def run_forward(call: Call, node: Node) -> None:
    """Send the request; what comes back is context.Response."""
    if call.forwarded and call.request.body and not await call.boolean(node, "buffer-request-body"):
        message = "the request body was sent once and is not buffered"
        raise CallFailed("BackendConnectionFailure", message)
    if call.response is not None:
        await call.response.close()
        call.response = None
    if len(call.backend_urls) > 1:
        call.request.backend_url = call.gateway.next_of_pool(call.backend_id or "", call.backend_urls)
    call.forwarded = True
    request = _request(call)
    timeout_seconds = await call.number(node, "timeout", DEFAULT_TIMEOUT_SECONDS)
    upstream = await _headers_of(call, request, timeout_seconds)
    headers = Headers(Headers(upstream.headers.multi_items()).passed_on())
    if headers.get("content-encoding") is not None:
        headers.delete("content-length")  # the body comes decoded here, and is longer then
    for name in ("content-encoding", "date", "server"):
        headers.delete(name)  # the last two are the gateway's own
    response = Response(upstream.status_code, upstream.reason_phrase, headers, upstream=upstream)
    response.is_buffered = await call.boolean(node, "buffer-response", default=True)
    response.is_streamed = not response.is_buffered and response.is_event_stream
    call.gateway.watch(call, response)
    if not response.is_streamed:
        await _buffer(call, response)
    call.response = response
    call.bridge.changed(response, body=True)
    if response.status >= 400 and await call.boolean(node, "fail-on-error-status-code"):
        raise CallFailed("BackendResponseError", f"the backend answered {response.status}", status=response.status)


def _request(call: Call) -> httpx.Request:
    headers = Headers(call.request.headers.passed_on())
    headers.delete("content-length")
    # What an expression consumed is gone: API Management then sends an empty body.
    body = None if call.request.body_is_consumed else call.request.body
    try:
        return call.gateway.http.build_request(
            call.request.method, call.request.target, headers=headers.encoded(), content=body or None
        )
    except httpx.InvalidURL as error:
        raise CallFailed("BackendConnectionFailure", f"{call.request.target} is not a URL: {error}") from error


async def _headers_of(call: Call, request: httpx.Request, timeout_seconds: float) -> httpx.Response:
    """The response once its headers are here. Ends the request when the client leaves or the time is over."""
    sending = asyncio.create_task(call.gateway.http.send(request, stream=True))
    leaving = asyncio.create_task(call.client_gone.wait())
    try:
        await asyncio.wait((sending, leaving), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            return sending.result()
    except httpx.HTTPError as error:
        raise CallFailed("BackendConnectionFailure", f"{request.url.host}: {type(error).__name__}") from error
    finally:
        leaving.cancel()
        if not sending.done():
            sending.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
    if call.client_gone.is_set():
        raise CallFailed("ClientConnectionFailure", "A client closed the connection while the request was pending.")
    raise CallFailed("Timeout", f"no headers from the backend within {timeout_seconds:g} seconds")


async def _buffer(call: Call, response: Response) -> None:
    """Read what a policy may read; of a longer body the rest stays on its way."""
    assert response.pieces is not None
    size, pieces = 0, response.first_pieces
    try:
        async for piece in response.pieces:
            pieces.append(piece)
            size += len(piece)
            if size > BUFFER_LIMIT_BYTES:
                response.is_too_large = True
                return
    except httpx.HTTPError as error:
        await response.close()
        raise CallFailed("BackendConnectionFailure", f"the body broke off: {type(error).__name__}") from error
    await response.close()
    response.body, response.first_pieces = b"".join(pieces), []


_LITERAL_FLAG = Attribute(expression=False, kind="boolean")
_FORWARD = Element(
    attributes={
        "timeout": Attribute(kind="number", least=0),
        "buffer-request-body": _LITERAL_FLAG,
        "buffer-response": _LITERAL_FLAG,
        "fail-on-error-status-code": _LITERAL_FLAG,
        "follow-redirects": Attribute(expression=False, kind="boolean", choices=frozenset(("false",))),
    }
)

POLICIES = (Policy("forward-request", frozenset(("backend",)), _FORWARD, run_forward),)
