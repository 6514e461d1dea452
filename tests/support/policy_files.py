"""Small policy documents and a small backend, for tests of the policy runner."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

OPERATIONS = {
    "/v1/chat/completions": {"post": {"operationId": "chat-v1"}},
    "/v1/responses": {"post": {"operationId": "responses-v1"}},
    "/v1/models": {"get": {"operationId": "models-v1"}},
    "/deployments/{deployment-id}/chat/completions": {"post": {"operationId": "chat-deployment"}},
}
FORWARD = '<forward-request buffer-request-body="true" buffer-response="false" />'


def write_policies(
    directory: Path,
    inbound: str = "<base />",
    backend: str = FORWARD,
    outbound: str = "<base />",
    on_error: str = "<base />",
    *,
    fragments: Mapping[str, str] | None = None,
    named_values: Mapping[str, str] | None = None,
) -> Path:
    """Section files with these contents, and what belongs to them."""
    (directory / "fragments").mkdir(parents=True, exist_ok=True)
    for section, content in (
        ("inbound", inbound),
        ("backend", backend),
        ("outbound", outbound),
        ("on-error", on_error),
    ):
        (directory / f"{section}-policy.xml").write_text(f"<{section}>\n{content}\n</{section}>\n")
    for name, content in (fragments or {}).items():
        (directory / "fragments" / f"{name}.xml").write_text(f"<fragment>\n{content}\n</fragment>\n")
    listed = [{"name": name, "default": value, "description": "-"} for name, value in (named_values or {}).items()]
    (directory / "named-values.yaml").write_text(yaml.safe_dump(listed))
    api = {"openapi": "3.0.3", "info": {"title": "openai", "version": "1"}, "paths": OPERATIONS}
    (directory / "openai-api.yaml").write_text(yaml.safe_dump(api))
    return directory


class Backend:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.answers: list[Response | float] = []  # next first; a number is seconds to keep silent
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()  # of the stream; None ends it
        self.stream_ended = asyncio.Event()
        self.requested = asyncio.Event()

    def reset(self) -> None:
        """As new."""
        url = self.url
        self.__init__()  # type: ignore[misc]
        self.url = url

    @property
    def request(self) -> Request:
        """The last request."""
        return self.requests[-1]

    def json(self) -> Any:
        """The last request's body."""
        return json.loads(self.bodies[-1])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        request = Request(scope, receive)
        self.requests.append(request)
        self.bodies.append(await request.body())
        self.requested.set()
        answer = self.answers.pop(0) if self.answers else JSONResponse({"ok": True})
        if isinstance(answer, float | int):
            await asyncio.sleep(answer)
            answer = JSONResponse({"late": True})
        await answer(scope, receive, send)

    def stream(self, status: int = 200) -> StreamingResponse:
        """An event stream fed from `chunks`."""
        return StreamingResponse(self._chunks(), status, media_type="text/event-stream")

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            while (chunk := await self.chunks.get()) is not None:
                yield chunk
        finally:
            self.stream_ended.set()


@asynccontextmanager
async def serve_app(app: Any, port: int = 0) -> AsyncIterator[str]:
    """The base URL of an ASGI app that listens on loopback while the block runs."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", port))
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, not an event
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def serve_backend() -> AsyncIterator[Backend]:
    """A backend that listens."""
    backend = Backend()
    async with serve_app(backend) as backend.url:
        yield backend
