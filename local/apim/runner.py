"""A running gateway: the policies loaded, the server listening, and what happened open to look at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from local.apim.app import GatewayApp
from local.apim.coverage import Coverage
from local.apim.gateway import Gateway
from local.apim.hub import LoggedEvent
from local.apim.loading import load_policy
from local.apim.settings import RunnerOptions

LOOPBACK = "127.0.0.1"
GRACE_SECONDS = 10  # what an open stream gets to end by itself when the gateway is told to stop


class Runner:
    """One gateway in this process."""

    def __init__(self, options: RunnerOptions) -> None:
        """Load the policies. Raises PolicyError."""
        self.options = options
        self.gateway = Gateway(load_policy(options.policies, options.named_values), options)
        self.port = 0

    @property
    def url(self) -> str:
        """Base URL of the gateway; the API lies under /openai."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def violations(self) -> list[str]:
        """Policies that touched the body of a streamed answer."""
        return self.gateway.violations

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Every LastError."""
        return self.gateway.errors

    @property
    def events(self) -> list[LoggedEvent]:
        """What log-to-eventhub sent."""
        return self.gateway.events

    @property
    def traces(self) -> list[str]:
        """What <trace> and context.Trace wrote."""
        return self.gateway.traces

    @property
    def llm_records(self) -> list[dict[str, Any]]:
        """The LLM log, each record once."""
        return self.gateway.llm_log.records if self.gateway.llm_log is not None else []

    @property
    def coverage(self) -> Coverage:
        """What of the policies was executed."""
        return self.gateway.coverage

    async def settle(self) -> None:
        """Return when events, one-way requests and the LLM log of all calls so far are sent."""
        await self.gateway.settle()

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[None]:
        """Listen on loopback while the block runs; 0 takes a free port."""
        await self.gateway.open()
        server = uvicorn.Server(
            uvicorn.Config(
                GatewayApp(self.gateway),
                log_level="error",
                lifespan="off",
                server_header=False,
                proxy_headers=False,  # X-Forwarded-For is the caller's to write, and no part of where it calls from
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        listener = socket.create_server((LOOPBACK, port))
        self.port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn offers a flag, not an event
                await asyncio.sleep(0.005)
            yield
        finally:
            server.should_exit = True
            await serving
            await self.gateway.close()
