"""The policies between a client, the simulated model and a budget service that says what a test tells it to."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from local.apim.runner import LOOPBACK, Runner
from local.apim.settings import hashed_keys
from local.entra import Issuer
from local.entra import build_app as build_entra
from local.model.app import build_app as build_model
from local.process import free_port
from tests.support.apim import start_runner
from tests.support.policy_coverage import keep
from tests.support.policy_files import serve_app

Says = Callable[[dict[str, Any]], Response | Awaitable[Response]]
ADMITTED_AT = "2026-11-21T10:00:00.123Z"
DEPLOYMENTS = {"gpt-4o": "gpt-4o-weu", "gpt-4o-mini": "gpt-4o-mini-weu"}
CHAT, RESPONSES, EMBEDDINGS = "/openai/v1/chat/completions", "/openai/v1/responses", "/openai/v1/embeddings"
AZURE = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"
MESSAGES = [{"role": "user", "content": "How much is left?"}]
# The callers whose modes differ, by the names they have in the generated maps.
NAMED_VALUES = {
    "tk-enforcement-by-caller": "s:observed=observe,s:unchecked=off,g:group-42=off",
    "tk-fail-mode-by-caller": "s:opened=open,s:kept=cached,a:app%20one=open,s:odd%21%2A%27%28%29%2C%3D%C3%A9=open",
    "tk-asserted-scopes": "session+task",
    "tk-asserted-scopes-by-caller": "p:mute=-,p:brief=task",
    "tk-deployments": "gpt-4o=gpt-4o-weu,gpt-4o-mini=gpt-4o-mini-weu",
    "tk-usage-opt-out": "quiet,t%C3%AAte",
    "tk-check-timeout-seconds": "1",
    "tk-model-timeout-seconds": "2",
    "tk-retry-seconds": "1",
    "tk-rate-calls": "40",
    "tk-tokens-per-minute": "20000",
}


def admission(asked: Mapping[str, Any], headers: Mapping[str, str] | None = None, **fields: Any) -> Response:
    """What the budget service answers to a call that may run; fields that are None are left out."""
    named = asked["model"]
    model = next((model for model, deployment in DEPLOYMENTS.items() if named == deployment), named)
    body = {
        "decision": "allow",
        "reason": "within_budget",
        "state": "active",
        "tenant": "contoso",
        "scopes": {"team": "search", **asked.get("scopes", {})},
        "requested_model": model,
        "model": model,
        "provider": "azure-openai",
        "deployment": named if named != model else DEPLOYMENTS.get(model, model),
        "disabled_tools": [],
        "budget": None,
        "admitted_at": ADMITTED_AT,
        "reservation": f"hold-{uuid.uuid4().hex}",
        "cache_seconds": 0,
        **fields,
    }
    known = {"x-budget-state": "active", **(headers or {})}
    return JSONResponse({name: value for name, value in body.items() if value is not None}, headers=known)


def refusal(status: int, code: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Response:
    """What it answers to a call that may not."""
    error = {"code": code, "message": f"no: {code}", "type": "budget", "param": None}
    return JSONResponse({"error": error, "decision": "refuse", **fields}, status, headers=dict(headers or {}))


@dataclass
class Service:
    """The budget service. `says[subscription]` decides its answers; without an entry every call is admitted."""

    says: dict[str, Says] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    async def check(self, request: Request) -> Response:
        """POST /budget/check."""
        asked = await request.json()
        self.asked.append(asked)
        self.tokens.append(request.headers.get("authorization", ""))
        answer = self.says.get(asked["identity"].get("subscription", ""), admission)(asked)
        return answer if isinstance(answer, Response) else await answer

    async def release(self, request: Request) -> Response:
        """POST /budget/release."""
        self.released.append((await request.json())["reservation"])
        return JSONResponse({"released": True})

    def app(self) -> Starlette:
        """Both doors."""
        routes = [
            Route("/budget/check", self.check, methods=["POST"]),
            Route("/budget/release", self.release, methods=["POST"]),
        ]
        return Starlette(routes=routes)


class Model:
    """The simulated model, which also keeps what it was sent, byte for byte."""

    def __init__(self) -> None:
        self._app = build_model()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path with query, headers, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request, then serve it; `x-raw-*` headers make an answer that no model would give."""
        pieces, more = [], scope["type"] == "http"
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body, headers = b"".join(pieces), {k.decode().lower(): v.decode("latin-1") for k, v in scope["headers"]}
        self.requests.append((f"{scope['path']}?{scope['query_string'].decode()}", headers, body))
        if "x-raw-status" in headers:
            given = json.loads(headers.get("x-raw-headers", "{}"))
            answer = Response(headers.get("x-raw-body", ""), int(headers["x-raw-status"]), given)
            if "x-sim-chunked" in headers:
                del answer.headers["content-length"]
            await answer(scope, receive, send)
            return
        delivered = False

        async def again() -> Any:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    @property
    def last(self) -> tuple[str, dict[str, str], Any]:
        """(path with query, headers, decoded body) of the newest request."""
        path, headers, body = self.requests[-1]
        return path, headers, json.loads(body) if body else None


@dataclass
class Bench:
    """One running gateway with its surroundings. Each test takes subscriptions of its own, so none sees another's."""

    runner: Runner
    service: Service
    model: Model
    issuer: Issuer
    client: httpx.AsyncClient

    def subscribe(self, name: str | None = None, says: Says | None = None, product: str | None = None) -> str:
        """A subscription; the answer is its key."""
        name = name or f"sub-{uuid.uuid4().hex[:12]}"
        key = f"key-of-{quote(name)}"
        self.runner.options.subscriptions.update(hashed_keys({key: name}))  # type: ignore[attr-defined]
        if product is not None:
            self.runner.options.products[name] = product  # type: ignore[index]
        if says is not None:
            self.service.says[name] = says
        return key

    async def post(self, key: str | None, path: str = CHAT, **fields: Any) -> httpx.Response:
        """One call: `headers` and `content` as they are, other fields into the body."""
        headers = {**({"api-key": key} if key else {}), **(fields.pop("headers", None) or {})}
        if "content" in fields:
            given = {"content-type": "application/json"} | headers
            return await self.client.post(path, content=fields["content"], headers=given)
        return await self.client.post(path, json={"model": "gpt-4o", "messages": MESSAGES, **fields}, headers=headers)

    async def event(self, answer: httpx.Response) -> dict[str, Any]:
        """The one usage event of a call."""
        (event,) = await self.events(answer)
        return event

    async def events(self, answer: httpx.Response) -> list[dict[str, Any]]:
        """The usage events of a call."""
        await self.runner.settle()
        known = [(each.partition_key, json.loads(each.body)) for each in self.runner.events]
        found = [event for key, event in known if event["id"] == answer.headers["x-request-id"]]
        assert all(key == event["id"] for key, event in known), "an event left its partition"
        return found


@asynccontextmanager
async def start_bench(named_values: Mapping[str, str] | None = None, **options: Any) -> AsyncIterator[Bench]:
    """A bench. What the project's own policies executed counts towards their coverage."""
    service, model = Service(), Model()
    async with AsyncExitStack() as stack:
        service_url = await stack.enter_async_context(serve_app(service.app()))
        model_url = await stack.enter_async_context(serve_app(model))
        port = free_port()
        issuer = Issuer(f"http://{LOOPBACK}:{port}")
        await stack.enter_async_context(serve_app(build_entra(issuer), port))
        values = {
            **NAMED_VALUES,
            "tk-service-url": service_url,
            "tk-entra-openid-config": issuer.metadata_url,
            "tk-entra-audience": issuer.audience,
            "tk-entra-issuer": issuer.issuer,
            **(named_values or {}),
        }
        options = {"backends": {"openai-pool": f"{model_url}/openai"}, "products": {}, **options}
        runner = await stack.enter_async_context(start_runner(f"{model_url}/openai", named_values=values, **options))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=runner.url, timeout=30, trust_env=False))
        yield Bench(runner, service, model, issuer, client)
        await runner.settle()
        if "policies" not in options:
            keep(runner.coverage)
        assert runner.violations == [], "a policy read the body of a stream"


def utc(text: str) -> datetime:
    """An event's time."""
    return datetime.fromisoformat(text).astimezone(UTC)
