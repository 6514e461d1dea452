"""The gateway as an ASGI app: authenticate, check the budget, forward, answer, report what was used."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.auth import asserted_scopes, authenticate
from gateway.call import UNREADABLE_JSON, Operation, dropped_tools, read_call, upstream_body
from gateway.events import EventQueue
from gateway.exchange import Exchange
from gateway.relay import StreamRelay
from gateway.stream import UsageWatch
from gateway.upstream import (
    Upstream,
    UpstreamBroken,
    UpstreamRefused,
    client_headers,
    default_api_version,
)
from shared.budgets.request import CheckRequest
from shared.errors import NotFound, PayloadTooLarge, TollkeeperError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from shared.bootstrap import Services
    from shared.budgets.answer import CheckAnswer

log = logging.getLogger("tollkeeper.gateway")

MAX_BODY_BYTES = 32 * 1024 * 1024  # room for images sent inline
Handler = Callable[[Request], Awaitable[Response]]


class Gateway:
    """The routes' handlers over one set of services."""

    def __init__(self, services: Services, upstream: Upstream, events: EventQueue, name: str) -> None:
        """`name` tells gateways apart in the events' source."""
        self._services = services
        self._upstream = upstream
        self._events = events
        self._source = f"gateway/{name}"

    async def call(self, request: Request, operation: Operation) -> Response | StreamRelay:
        """One model call, whatever its route."""
        request_id = uuid.uuid4().hex  # our own: a client that chose it could pre-empt another call's identity
        request.state.request_id = request_id
        subscription = authenticate(request.headers, self._services.settings.gateway_keys)
        call = read_call(operation, await _body(request), request.path_params.get("deployment"))
        check = CheckRequest(
            model=call.model,
            identity={"subscription": subscription},
            scopes=asserted_scopes(request.headers),
            operation=operation,
            tools=list(call.tools),
            input_bytes=call.body_bytes,
            max_output_tokens=call.max_output_tokens,
            choices=call.choices,
            request_id=request_id,
        )
        self._events.reserve()
        try:
            answer = await self._services.budget.check(check)
        except BaseException:
            self._events.give_back()
            raise
        if answer.decision == "refuse":
            self._events.give_back()
            return JSONResponse(answer.body, answer.status, {**answer.headers, "x-request-id": request_id})
        exchange = Exchange(source=self._source, request_id=request_id, call=call, answer=answer)
        return await self._forward(request, exchange)

    async def models(self, request: Request) -> Response:
        """GET .../models: what config lists, in OpenAI's shape."""
        authenticate(request.headers, self._services.settings.gateway_keys)
        models = self._services.config.current.models.values()
        data = [{"id": m.id, "object": "model", "created": 0, "owned_by": m.provider} for m in models]
        return JSONResponse({"object": "list", "data": data})

    async def health(self, request: Request) -> Response:
        """GET /health: that it serves, and how many events wait for the hub."""
        return JSONResponse({"status": "ok", "pending_events": self._events.pending})

    async def _forward(self, request: Request, exchange: Exchange) -> Response | StreamRelay:
        call, answer = exchange.call, exchange.answer
        model_name = self._upstream.model_name(answer.model, answer.deployment)
        by_deployment = "deployment" in request.path_params
        api_version = default_api_version(request.query_params.get("api-version")) if by_deployment else None
        try:
            body = upstream_body(call, model_name, answer.disabled_tools)
            upstream = await self._upstream.send(call, answer.deployment, body, request.headers, api_version)
        except (UpstreamBroken, asyncio.CancelledError):
            # The model may have seen it, so it is on record; without usage it costs nothing and frees its hold.
            exchange.report(self._events, status=UpstreamBroken.http_status, usage=None, streamed=call.streamed)
            raise
        except Exception:
            # The model never saw the call: what was held for it is free again at once.
            self._events.give_back()
            await self._release(answer)
            raise
        exchange.region = upstream.headers.get("x-ms-region", "").lower().replace(" ", "")
        if upstream.status_code in (401, 403):
            # Passed on, it would tell the caller that the caller's key is wrong.
            exchange.report(self._events, status=upstream.status_code, usage=None, streamed=call.streamed)
            await upstream.aclose()
            raise UpstreamRefused("the model backend does not accept the gateway's credential")
        headers = self._response_headers(exchange, upstream)
        if upstream.status_code < 400 and _is_event_stream(upstream):
            watch = UsageWatch(hide_usage_chunk=not call.wants_usage_chunk)
            on_end = partial(self._stream_ended, exchange, upstream.status_code, watch)
            return StreamRelay(upstream, headers, watch, exchange.request_id, on_end)
        return await self._whole_answer(exchange, upstream, headers)

    async def _whole_answer(self, exchange: Exchange, upstream: httpx.Response, headers: dict[str, str]) -> Response:
        usage: dict[str, Any] | None = None
        status = UpstreamBroken.http_status
        try:
            content = await upstream.aread()
            status = upstream.status_code
            usage = _usage_in(content) if status < 400 else None
        except httpx.HTTPError as error:
            raise UpstreamBroken("the model backend ended its answer early") from error
        finally:
            exchange.report(self._events, status=status, usage=usage, streamed=False)
            await upstream.aclose()
        return Response(content, status, headers)

    def _stream_ended(self, exchange: Exchange, status: int, watch: UsageWatch) -> None:
        aborted = watch.usage is None and not watch.finished
        exchange.report(self._events, status=status, usage=watch.usage, streamed=True, aborted=aborted)

    async def _release(self, answer: CheckAnswer) -> None:
        if answer.reservation is None:
            return
        try:
            await self._services.budget.release(answer.reservation)
        except TollkeeperError as error:
            # The hold then ends with its time to live: budget is tied up for minutes, nothing is lost.
            log.warning("a reservation could not be released: %s", error.code)

    def _response_headers(self, exchange: Exchange, upstream: httpx.Response) -> dict[str, str]:
        headers = {**client_headers(upstream), **exchange.answer.headers, "x-request-id": exchange.request_id}
        if dropped := dropped_tools(exchange.call, exchange.answer.disabled_tools):
            headers["x-budget-disabled-tools"] = ",".join(dropped)
        return headers


def build_app(
    open_services: Callable[[], Awaitable[Services]],
    name: str,
    open_upstream: Callable[[Services], Upstream] = lambda services: Upstream(services.settings),
) -> ASGIApp:
    """The app. Services open when it starts and close, events flushed first, when it stops."""
    gateways: list[Gateway] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        services = await open_services()
        upstream = open_upstream(services)
        events = EventQueue(services.publisher)
        events.start()
        gateways.append(Gateway(services, upstream, events, name))
        try:
            yield
        finally:
            gateways.clear()
            await events.close()
            await upstream.close()
            await services.close()

    async def chat(request: Request) -> Response | StreamRelay:
        return await gateways[0].call(request, "chat")

    async def embeddings(request: Request) -> Response | StreamRelay:
        return await gateways[0].call(request, "embeddings")

    async def models(request: Request) -> Response:
        return await gateways[0].models(request)

    async def health(request: Request) -> Response:
        return await gateways[0].health(request)

    routes = [Route("/health", health)]
    routes += [Route(path, models) for path in ("/v1/models", "/openai/v1/models", "/openai/models")]
    for prefix in ("/v1", "/openai/v1", "/openai/deployments/{deployment}"):
        routes.append(Route(f"{prefix}/chat/completions", chat, methods=["POST"]))
        routes.append(Route(f"{prefix}/embeddings", embeddings, methods=["POST"]))
    handlers: dict[Any, Any] = {
        TollkeeperError: _deliberate_error,
        ClientDisconnect: _client_left,
        404: _no_route,
        405: _no_route,
        Exception: _defect,
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _body(request: Request) -> bytes:
    """The request body. Raises PayloadTooLarge as soon as it is, without reading on."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _is_event_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _usage_in(content: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(content)
    except UNREADABLE_JSON:
        return None
    usage = answer.get("usage") if isinstance(answer, dict) else None
    return usage if isinstance(usage, dict) else None


def _error_response(request: Request, error: TollkeeperError) -> Response:
    request_id = getattr(request.state, "request_id", None) or uuid.uuid4().hex
    return JSONResponse(error.body(), error.http_status, {**error.headers(), "x-request-id": request_id})


async def _deliberate_error(request: Request, error: TollkeeperError) -> Response:
    return _error_response(request, error)


async def _client_left(request: Request, error: Exception) -> Response:
    """The client left while it was sending its request: nobody reads this."""
    return Response(status_code=499)


async def _no_route(request: Request, error: Exception) -> Response:
    return _error_response(request, NotFound(f"{request.method} {request.url.path[:200]} is not served here"))


async def _defect(request: Request, error: Exception) -> Response:
    log.error("a call failed on %s: %s", request.url.path, type(error).__name__)
    return _error_response(request, TollkeeperError("the gateway failed; its log knows more"))
