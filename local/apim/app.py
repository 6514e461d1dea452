"""The gateway as an ASGI app."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json

import httpx
from starlette.types import Receive, Scope, Send

from local.apim.bridge import error_response
from local.apim.call import Call
from local.apim.errors import CallFailed
from local.apim.gateway import Gateway
from local.apim.messages import Headers, Request, Response
from local.apim.pipeline import run_call, subscription_key

HEALTH_PATHS = ("/health", "/status-0123456789abcdef")
BUFFER_BYTES = 8 * 1024  # of a response with buffer-response="true"


class GatewayApp:
    """Answers health questions itself and sends everything else through the policies."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        if scope["path"] in HEALTH_PATHS:
            status = json.dumps({"status": "ok", "gateway": "apim policies"}).encode()
            await _send_whole(send, Response(200, "OK", Headers([("Content-Type", "application/json")]), status))
            return
        body = await _body(receive)
        if body is None:
            return
        gone = asyncio.Event()
        watching = asyncio.create_task(_watch_client(receive, gone))
        try:
            with self._gateway.open_call():
                await self._answer(scope, body, gone, send)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _answer(self, scope: Scope, body: bytes, gone: asyncio.Event, send: Send) -> None:
        request = _request(scope, body)
        path = request.original_url.split("/", 3)[3].partition("?")[0]
        relative = self._gateway.policy.api.relative(f"/{path}")
        if relative is None:
            missing = CallFailed("OperationNotFound", "no API", status=404, shown="Resource not found")
            await _send_whole(send, error_response(missing, ""))
            return
        call = self._call(request, relative, gone)
        aborted = False
        try:
            response = await run_call(call)
            aborted = gone.is_set() or not await self._relay(call, response, send)
        finally:
            if call.response is not None:
                await call.response.close()
            self._end(call, aborted=aborted)

    def _call(self, request: Request, relative: str, gone: asyncio.Event) -> Call:
        options = self._gateway.options
        match = self._gateway.policy.api.match(request.method, relative)
        query = request.original_url.partition("?")[2]
        request.backend_url = options.service_url
        request.backend_path = f"{relative}?{query}" if query else relative
        request.matched_parameters = dict(match.parameters) if match else {}
        key = subscription_key(request)
        subscription = options.subscriptions.get(hashlib.sha256(key.encode()).hexdigest()) if key else None
        return Call(
            gateway=self._gateway,
            request=request,
            client_gone=gone,
            subscription_id=subscription,
            subscription_key=key,
            product_id=options.products.get(subscription) if subscription else None,
            operation=match.operation if match else None,
        )

    def _end(self, call: Call, *, aborted: bool) -> None:
        """What the gateway does for itself once the answer is out: token counts and logs."""
        watch = call.watch
        tokens = watch.total_tokens if watch is not None and watch.is_complete else 0
        if call.forwarded and (call.failure is None or call.failure.reason == "ClientConnectionFailure"):
            for told in call.on_tokens:
                told(tokens)
        if self._gateway.llm_log is not None:
            self._gateway.llm_log.write(call, watch, aborted=aborted)

    async def _relay(self, call: Call, response: Response, send: Send) -> bool:
        """Send the response; False when the client left before its end."""
        if response.upstream is None:
            await _send_whole(send, response)
            return True
        relaying = asyncio.create_task(self._relay_pieces(response, send))
        leaving = asyncio.create_task(call.client_gone.wait())
        try:
            await asyncio.wait((relaying, leaving), return_when=asyncio.FIRST_COMPLETED)
            left = not relaying.done()
        finally:
            for task in (relaying, leaving):
                task.cancel()
            outcomes = await asyncio.gather(relaying, leaving, return_exceptions=True)
        if isinstance(outcomes[0], httpx.HTTPError):
            # The status is long sent. Ending without the final piece makes the server cut the connection.
            broken = CallFailed("BackendConnectionFailure", type(outcomes[0]).__name__, source="transfer-response")
            broken.section, call.failure = "backend", broken
        elif isinstance(outcomes[0], Exception):
            raise outcomes[0]
        return not left

    async def _relay_pieces(self, response: Response, send: Send) -> None:
        await send({"type": "http.response.start", "status": response.status, "headers": response.headers.encoded()})
        least = BUFFER_BYTES if response.is_buffered else 1
        held = b"".join(response.first_pieces)
        assert response.pieces is not None
        async for piece in response.pieces:
            held += piece
            if len(held) >= least:
                await send({"type": "http.response.body", "body": held, "more_body": True})
                held = b""
        await send({"type": "http.response.body", "body": held, "more_body": False})


async def _send_whole(send: Send, response: Response) -> None:
    # A policy that read the body without preserveContent has left nothing of it.
    body = b"" if response.body_is_consumed else response.body or b""
    headers = Headers(response.headers)
    headers.set("Content-Length", [str(len(body))])
    await send({"type": "http.response.start", "status": response.status, "headers": headers.encoded()})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _request(scope: Scope, body: bytes) -> Request:
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    host = headers.get("host") or "localhost"
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    url = f"{scope['scheme']}://{host}{path}" + (f"?{query}" if query else "")
    client = scope.get("client")
    return Request(scope["method"], url, headers, body or None, client[0] if client else "127.0.0.1")


async def _body(receive: Receive) -> bytes | None:
    """The request body; None when the client left while sending it."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _watch_client(receive: Receive, gone: asyncio.Event) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
