"""HTTP triggers as an ASGI application."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import azure.functions as func

from local.functions_host.functions import Function, enum_value
from local.functions_host.routes import compile_route, specificity

logger = logging.getLogger("tollkeeper.local.functions")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# The limit of the Functions host.
MAX_BODY_BYTES = 100 * 1024 * 1024
_DEFAULT_METHODS = ("GET", "POST")


@dataclass(frozen=True, slots=True)
class _Route:
    template: str
    pattern: re.Pattern[str]
    methods: frozenset[str]
    function: Function


class HttpTriggers:
    """Routes requests to functions.

    `auth_level` is not enforced: on Azure the platform's authentication stands before the app and the app reads who
    the caller is; here nothing but this machine can connect.
    """

    def __init__(self, functions: Sequence[Function], route_prefix: str, custom_headers: dict[str, str]) -> None:
        """`route_prefix` comes before every route; `custom_headers` are added to every answer. Both from host.json."""
        routes = [_route(function, route_prefix) for function in functions]
        self._routes = sorted(routes, key=lambda route: specificity(route.template))
        self._custom_headers = [(name.lower().encode(), value.encode()) for name, value in custom_headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        matched = self._match(scope["method"], scope["path"])
        if matched is None:  # as the Functions host: also when only the method does not fit
            await self._answer(send, func.HttpResponse(status_code=404))
            return
        body = await _read_body(receive)
        if body is None:
            await self._answer(send, func.HttpResponse(status_code=413))
            return
        route, route_params = matched
        try:
            result = await route.function.call(_request(scope, body, route_params))
            response = _response(route.function, result)
        except Exception:
            # What the Functions host answers when a function raises: 500 without a word about why.
            logger.exception("function %s failed", route.function.name)
            response = func.HttpResponse(status_code=500)
        await self._answer(send, response)

    def _match(self, method: str, path: str) -> tuple[_Route, dict[str, str]] | None:
        for route in self._routes:
            match = route.pattern.match(path) if method in route.methods else None
            if match:
                return route, {name: value for name, value in match.groupdict().items() if value is not None}
        return None

    async def _answer(self, send: Send, response: func.HttpResponse) -> None:
        headers = [(name.lower().encode(), str(value).encode("latin-1")) for name, value in response.headers.items()]
        body = response.get_body()
        if body and not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", f"{response.mimetype}; charset={response.charset}".encode()))
        headers.append((b"content-length", str(len(body)).encode()))
        headers += [header for header in self._custom_headers if header[0] not in {name for name, _ in headers}]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _route(function: Function, prefix: str) -> _Route:
    own = str(function.trigger.get("route") or function.name).strip("/")
    template = f"{prefix}/{own}" if prefix else own
    methods = [enum_value(method).upper() for method in function.trigger.get("methods") or _DEFAULT_METHODS]
    return _Route(template, compile_route(template), frozenset(methods), function)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None when it is longer than the host takes."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts) if size <= MAX_BODY_BYTES else None


def _request(scope: Scope, body: bytes, route_params: dict[str, str]) -> func.HttpRequest:
    headers = _joined((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    query = scope["query_string"].decode("latin-1")
    url = f"{scope['scheme']}://{headers.get('host', 'localhost')}{scope['path']}"
    return func.HttpRequest(
        method=scope["method"],
        url=f"{url}?{query}" if query else url,
        headers=headers,
        params=_joined(parse_qsl(query, keep_blank_values=True)),
        route_params=route_params,  # of the path as ASGI hands it over, decoded once already
        body=body,
    )


def _joined(pairs: Any) -> dict[str, str]:
    """One value per name; repeated ones joined by commas, as the Functions host hands them to Python."""
    values: dict[str, str] = {}
    for name, value in pairs:
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def _response(function: Function, result: Any) -> func.HttpResponse:
    if isinstance(result, func.HttpResponse):
        return result
    if isinstance(result, str):
        return func.HttpResponse(result)
    raise TypeError(f"function {function.name} returned {type(result).__name__} instead of an HttpResponse")
