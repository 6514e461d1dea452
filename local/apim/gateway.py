"""What all calls of one gateway share: the policy, the clients, the counters and what was recorded."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx

from local.apim.cache import Cache
from local.apim.coverage import Coverage
from local.apim.elements.jwt import SigningKeys
from local.apim.expressions import ExpressionHost
from local.apim.hub import HubSender, LoggedEvent
from local.apim.llm_log import LlmLogWriter, Watch
from local.apim.loading import LoadedPolicy
from local.apim.messages import Response
from local.apim.recent import Recent
from local.apim.settings import RunnerOptions
from local.apim.tokens import Tokens

if TYPE_CHECKING:
    from local.apim.call import Call
    from local.apim.elements.limits import Window


log = logging.getLogger("tollkeeper.apim")


class Gateway:
    """Opened once, before the first call."""

    def __init__(self, policy: LoadedPolicy, options: RunnerOptions) -> None:
        self.policy = policy
        self.options = options
        self.coverage = Coverage()
        policy.declare(self.coverage)
        self.violations: list[str] = Recent()
        self.errors: list[dict[str, Any]] = Recent()
        self.events: list[LoggedEvent] = Recent()
        self.traces: list[str] = Recent()
        self.cache = Cache()
        self.tokens = Tokens(options.mint_token, on_azure=options.on_azure)
        self.rate_windows: dict[str, Window] = {}
        self.token_windows: dict[str, Window] = {}
        self.token_quotas: dict[tuple[Any, ...], int] = {}
        self.host: ExpressionHost | None = None
        self.lost: asyncio.Future[str]  # done, with the reason, once no expression can be evaluated any more
        self.llm_log: LlmLogWriter | None = None
        self.http: httpx.AsyncClient
        self.signing_keys: SigningKeys
        self._hub: HubSender | None = None
        self._pools: dict[str, itertools.count[int]] = {}
        self._open_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start the expression host and the clients."""
        self.lost = asyncio.get_running_loop().create_future()
        # Each call has a time limit of its own, given by its policy; the pool must not add another.
        # Servers here end idle connections after 5 s; one that is reused just then would look like a broken backend.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2.0)
        self.http = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)
        # A cookie that a backend sets for one caller would go out with the next one's call.
        self.http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.signing_keys = SigningKeys(self.http)
        if self.options.hub_connection is not None:
            self._hub = HubSender(self.options.hub_connection)
        if self.options.llm_log.hub is not None:
            self.llm_log = LlmLogWriter(self.options.llm_log, self._publish_llm_log)
        if self.policy.compiled is not None:
            self.host = ExpressionHost(self.policy.compiled)
            await self.host.start()
            self.lost = self.host.lost

    async def close(self) -> None:
        """Send what waits, then end everything."""
        await self.settle()
        if self._hub is not None:
            await self._hub.close()
        if self.host is not None:
            await self.host.close()
        await self.tokens.close()
        await self.http.aclose()

    async def settle(self) -> None:
        """Return when every call is over and nothing they left behind is on its way any more."""
        await self._idle.wait()
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        if self.llm_log is not None:
            await self.llm_log.settle()
        if self._hub is not None:
            await self._hub.settle()

    @property
    def hub_failures(self) -> Sequence[str]:
        """Events that no hub took."""
        return self._hub.failures if self._hub is not None else ()

    @contextmanager
    def open_call(self) -> Iterator[None]:
        """Around everything that is done for a call; its answer is out before the end."""
        self._open_calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._open_calls -= 1
            if not self._open_calls:
                self._idle.set()

    async def sleep(self, seconds: float) -> None:
        """Between retries."""
        await asyncio.sleep(seconds)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this without the call waiting for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def violate(self, where: str) -> None:
        """A policy touched the body of a stream: note it, and tell whoever reads the log."""
        self.violations.append(where)
        log.error("the body of a stream was touched: %s", where)

    def log_event(self, logger_id: str, partition_key: str | None, body: str) -> None:
        """Hand an event to a logger's hub."""
        self.events.append(LoggedEvent(logger_id, partition_key, body))
        if self._hub is not None:
            self._hub.send(self.options.loggers[logger_id], partition_key, body.encode())

    def next_of_pool(self, backend_id: str, urls: Sequence[str]) -> str:
        """The backends of a pool take turns."""
        return urls[next(self._pools.setdefault(backend_id, itertools.count())) % len(urls)]

    def watch(self, call: Call, response: Response) -> None:
        """Read along with the answer of an LLM operation."""
        if call.operation is not None and call.operation.is_llm and response.status < 400:
            call.watch = response.watch = Watch(response.is_event_stream, keeps_texts=self.options.llm_log.messages)
        else:
            call.watch = None
        response.pieces = self._pieces(response)

    async def _pieces(self, response: Response) -> AsyncIterator[bytes]:
        """A backend's body as it comes."""
        assert response.upstream is not None
        async for piece in response.upstream.aiter_bytes():
            if response.watch is not None:
                response.watch.feed(piece)
            yield piece
        if response.watch is not None:
            response.watch.finish()

    async def _publish_llm_log(self, message: bytes) -> None:
        if self._hub is not None and self.options.llm_log.hub is not None:
            self._hub.send(self.options.llm_log.hub, None, message)
