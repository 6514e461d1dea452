"""The gateway as an ASGI app: its routes, and the wiring behind them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.answers import Caller, Streamed
from gateway.auth import Authenticator, asserted_scopes, authenticator
from gateway.bodies import Bodies, UploadTooSlow
from gateway.call import Operation, read_call
from gateway.chat import chat_body, chat_call, with_scope_header
from gateway.events import EventQueue
from gateway.pipeline import Pipeline
from gateway.relay import StreamRelay
from gateway.route import route
from gateway.spool import Spool
from gateway.startup import in_words
from gateway.stopping import Stoppable
from gateway.upstream import Upstream, UpstreamBroken, default_api_version
from shared.budgets.request import CheckRequest, disallowed_by, resolve_caller
from shared.budgets.routed import AUTO
from shared.errors import ConfigInvalid, InvalidRequest, NotFound, PayloadTooLarge, TollkeeperError
from shared.routing.router import Bounds

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from shared.bootstrap import Services
    from shared.settings import Settings

log = logging.getLogger("tollkeeper.gateway")

REGION_HEADER, DATA_ZONE_HEADER = "x-tollkeeper-region", "x-tollkeeper-data-zone"
_MOST_PLACE_CHARS = 128  # as in a check


class MethodNotAllowed(TollkeeperError):
    """The route exists, for another method."""

    code, http_status, kind = "method_not_allowed", 405, "invalid_request_error"


class Gateway:
    """The routes' handlers over one set of services."""

    def __init__(self, services: Services, callers: Authenticator, pipeline: Pipeline, events: EventQueue) -> None:
        self._services = services
        self._callers = callers
        self._pipeline = pipeline
        self._events = events
        self._bodies = Bodies()

    async def call(self, request: Request, operation: Operation) -> Response | StreamRelay:
        """One model call, whatever its route."""
        request_id = _new_request_id(request)
        caller = await self._caller(request)
        with self._bodies.place() as place:
            call = read_call(operation, await place.read(request), request.path_params.get("deployment"))
            answer = await self._pipeline.run(call, caller, request_id)
        if isinstance(answer, Streamed):
            return StreamRelay(answer, request_id)
        return Response(answer.content, answer.status, answer.headers)

    async def prompt(self, request: Request) -> Response:
        """POST /chat: one prompt, one reply and its cost."""
        request_id = _new_request_id(request)
        caller = await self._caller(request, with_scope_header(request.headers))
        with self._bodies.place() as place:
            answer = await self._pipeline.run(chat_call(await place.read(request)), caller, request_id)
        if isinstance(answer, Streamed):  # the backend streams although it was not asked to
            answer.ended()
            await answer.upstream.aclose()
            raise UpstreamBroken("the model backend streamed an answer that was not to be streamed")
        content = msgspec.json.encode(chat_body(answer, self._services.pricer))
        return Response(content, answer.status, {**answer.headers, "content-type": "application/json"})

    async def route(self, request: Request) -> Response:
        """POST /route: which model a call should use, and why."""
        request_id = _new_request_id(request)
        caller = await self._caller(request)
        with self._bodies.place() as place:
            found = route(await place.read(request), caller, self._services.snapshot())
        return JSONResponse(found, headers={"x-request-id": request_id})

    async def models(self, request: Request) -> Response:
        """GET .../models: what the caller may name, in OpenAI's shape: `auto`, and what config lists."""
        owners = self._owners(await self._caller(request))
        return JSONResponse({"object": "list", "data": [_model(name, owner) for name, owner in owners.items()]})

    async def model(self, request: Request) -> Response:
        """GET .../models/{model}: one of them."""
        name = request.path_params["model"]
        owner = self._owners(await self._caller(request)).get(name)
        if owner is None:
            raise NotFound(f"model: {name[:128]!r} is not listed", code="model_not_found", param="model")
        return JSONResponse(_model(name, owner))

    def _owners(self, caller: Caller) -> dict[str, str]:
        """Whose each model is that the caller may use. Raises Forbidden for a caller whom no team lists."""
        config = self._services.config.current
        check = CheckRequest(model=AUTO, identity=dict(caller.identity), scopes=dict(caller.scopes))
        tenant, scopes = resolve_caller(check, config)
        found = {m.id: m.provider for m in config.models.values()}
        return {AUTO: "tollkeeper"} | {
            name: owner for name, owner in found.items() if disallowed_by(config, tenant, scopes, name) is None
        }

    async def health(self, request: Request) -> Response:
        """GET /health: that it serves, and what waits for the hub."""
        return JSONResponse(self._events.health())

    async def _caller(self, request: Request, headers: Headers | None = None) -> Caller:
        """Who calls; `headers` stand for the request's own."""
        headers = request.headers if headers is None else headers
        identity = await self._callers.identity(headers)
        by_deployment = "deployment" in request.path_params
        api_version = default_api_version(request.query_params.get("api-version")) if by_deployment else None
        bounds = Bounds(_place(headers, REGION_HEADER), _place(headers, DATA_ZONE_HEADER))
        return Caller(identity, asserted_scopes(headers), headers, api_version, bounds)


def build_app(
    open_services: Callable[[], Awaitable[Services]],
    name: str,
    open_upstream: Callable[[Services], Upstream] = lambda services: Upstream(
        services.settings, lambda: services.config.current
    ),
) -> ASGIApp:
    """The app. Services open when it starts and close, events flushed first, when it stops."""
    gateways: list[Gateway] = []
    refused: list[str] = []  # why the configuration was, when it did not start

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            services = await open_services()
            upstream = open_upstream(services)
        except ConfigInvalid as error:
            refused.append(error.message)
            raise
        events = EventQueue(services.publisher, spool=_spool(services.settings))
        await events.start()
        callers = authenticator(services.settings)
        callers.start()
        gateways.append(Gateway(services, callers, Pipeline(services, upstream, events, name), events))
        try:
            yield
        finally:
            gateways.clear()
            await events.close(services.settings.shutdown_flush_seconds)
            await callers.close()
            await upstream.close()
            await services.close()

    handlers: dict[Any, Any] = {
        TollkeeperError: _deliberate_error,
        ClientDisconnect: _client_left,
        404: _no_route,
        405: _wrong_method,
        Exception: _defect,
    }
    stoppable = Middleware(Stoppable, answer=_error_response)
    app = Starlette(routes=_routes(gateways), lifespan=lifespan, exception_handlers=handlers, middleware=[stoppable])
    # A redirect would name an http:// address behind TLS, and clients take their key along to it.
    app.router.redirect_slashes = False
    app.router.lifespan = in_words(app.router.lifespan, refused)  # type: ignore[method-assign, assignment]
    return app


def _routes(gateways: list[Gateway]) -> list[Route]:
    """The routes of the one gateway that is in the list as soon as the app has started."""

    async def chat(request: Request) -> Response | StreamRelay:
        return await gateways[0].call(request, "chat")

    async def responses(request: Request) -> Response | StreamRelay:
        return await gateways[0].call(request, "responses")

    async def embeddings(request: Request) -> Response | StreamRelay:
        return await gateways[0].call(request, "embeddings")

    async def prompt(request: Request) -> Response:
        return await gateways[0].prompt(request)

    async def which_model(request: Request) -> Response:
        return await gateways[0].route(request)

    async def models(request: Request) -> Response:
        return await gateways[0].models(request)

    async def model(request: Request) -> Response:
        return await gateways[0].model(request)

    async def health(request: Request) -> Response:
        return await gateways[0].health(request)

    routes = []  # looked through in this order for every call, so what is called most comes first
    for prefix in ("/v1", "/openai/v1", "/openai/deployments/{deployment}"):
        routes.append(Route(f"{prefix}/chat/completions", chat, methods=["POST"]))
        routes.append(Route(f"{prefix}/embeddings", embeddings, methods=["POST"]))
    # Responses requests name their model in the body on every path.
    routes += [Route(f"{prefix}/responses", responses, methods=["POST"]) for prefix in ("/v1", "/openai/v1", "/openai")]
    routes += [Route(path, models) for path in ("/v1/models", "/openai/v1/models", "/openai/models")]
    routes += [Route(f"{prefix}/models/{{model:path}}", model) for prefix in ("/v1", "/openai/v1")]
    routes.append(Route("/chat", prompt, methods=["POST"]))
    routes.append(Route("/route", which_model, methods=["POST"]))
    routes.append(Route("/health", health))
    return routes


def _place(headers: Headers, name: str) -> str:
    """Where the call must be served. Two headers are one value that names nowhere: neither may be left out.

    Raises InvalidRequest for what can be no place's name: the answer says of every model that it is not there.
    """
    place = ",".join(headers.getlist(name))
    if len(place) > _MOST_PLACE_CHARS or not place.isprintable():
        raise InvalidRequest(f"{name}: expected at most {_MOST_PLACE_CHARS} printable characters", param=name)
    return place


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _spool(settings: Settings) -> Spool | None:
    if settings.spool_directory is None:
        log.warning("SPOOL_DIR is not set: usage events that the hub does not take are lost with this process")
        return None
    return Spool(Path(settings.spool_directory), settings.spool_max_bytes)


def _new_request_id(request: Request) -> str:
    """Our own: a client that chose it could pre-empt another call's identity. Error answers find it on the request."""
    request.state.request_id = request_id = uuid.uuid4().hex
    return request_id


def _path(request: Request) -> str:
    """The path for messages, without what a log or a terminal would obey. A URL made of it may not even be readable."""
    return ascii(request.scope["path"][:200])[1:-1]


def _error_response(request: Request, error: TollkeeperError) -> Response:
    request_id = getattr(request.state, "request_id", None) or uuid.uuid4().hex
    headers = {**error.headers(), "x-request-id": request_id}
    if error.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, UploadTooSlow | PayloadTooLarge):
        headers["connection"] = "close"  # what is left of the body is read by nobody
    return JSONResponse(error.body(), error.http_status, headers)


async def _deliberate_error(request: Request, error: TollkeeperError) -> Response:
    return _error_response(request, error)


async def _client_left(request: Request, error: Exception) -> Response:
    """The client left while it was sending its request: nobody reads this."""
    return Response(status_code=499)


async def _no_route(request: Request, error: Exception) -> Response:
    return _error_response(request, NotFound(f"{request.method} {_path(request)} is not served here"))


async def _wrong_method(request: Request, error: Exception) -> Response:
    allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
    message = f"{_path(request)} takes {allowed}, not {request.method}"
    answer = _error_response(request, MethodNotAllowed(message))
    answer.headers["allow"] = allowed
    return answer


async def _defect(request: Request, error: Exception) -> Response:
    log.error("a call failed on %s: %s", _path(request), type(error).__name__)
    return _error_response(request, TollkeeperError("the gateway failed; its log knows more"))
