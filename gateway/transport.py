"""httpx over aiohttp's connections: the same requests, answers and errors for a third of the processor time.

httpx's own transport spends more on a call than all the rest of the gateway does. aiohttp parses and pools in C, and
the product has it anyway. The errors matter most here: one that means `never sent` costs the caller nothing, every
other may have been served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx
from yarl import URL

_NOT_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # headers that aiohttp would add by itself
_PROXIED = frozenset({"http", "https", "all"})  # the environment may name exceptions (`no`) to no proxy at all

# The first that fits decides. What is not known to have failed before sending counts as sent.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.InvalidUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.ClientError, httpx.ReadError),
    (OSError, httpx.ReadError),
)
# What a slow client has not taken yet is in memory, for each stream: a third of what aiohttp would hold by itself.
_MOST_PIECE_BYTES, _MOST_AHEAD_BYTES = 64 * 1024, 16 * 1024
_NOTHING = httpx.ByteStream(b"")
_RAISED = (aiohttp.ClientError, OSError)


def open_transport(limits: httpx.Limits) -> httpx.AsyncBaseTransport:
    """The transport; behind a proxy of the environment httpx's own client, which knows whom to reach through it."""
    has_proxy = not _PROXIED.isdisjoint(getproxies())
    return _Proxied(httpx.AsyncClient(limits=limits)) if has_proxy else AiohttpTransport(limits)


class _Proxied(httpx.AsyncBaseTransport):
    """httpx as it comes, with the environment's proxies."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        # A cookie that a backend sets for one caller would go out with the next one's call.
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True)

    async def aclose(self) -> None:
        await self._client.aclose()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 on pooled connections. Nothing is sent twice, no redirect is followed, no cookie is kept."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None  # needs the running loop

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and return once the head of the answer is there. Raises httpx's own errors."""
        session = self._session or self._open()
        timeout: dict[str, Any] = request.extensions.get("timeout", {})
        try:
            answer = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                data=await request.aread(),
                headers=request.headers.multi_items(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    connect=timeout.get("pool"), sock_connect=timeout.get("connect"), sock_read=timeout.get("read")
                ),
            )
        except _RAISED as error:
            raise _as_httpx(error, request) from error
        # The answer knows its request for as long as it takes; what was asked may be 32 MiB, and nobody needs it again.
        request.stream, request._content = _NOTHING, b""
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, request), request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._limits.max_connections or 0,
            keepalive_timeout=self._limits.keepalive_expiry,
            ssl=httpx.create_ssl_context(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),  # one caller's cookie must not go out with the next one's call
            auto_decompress=False,  # httpx does that
            skip_auto_headers=_NOT_OURS,
            read_bufsize=_MOST_AHEAD_BYTES,
        )
        return self._session


class _Body(httpx.AsyncByteStream):
    """The body as it comes, in pieces of bounded size. Silence ends it after the request's read timeout."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._answer.connection
        if connection is not None and connection.protocol is not None:  # None: all of the body is here already
            # It may be another than the wait for the head was.
            connection.protocol.read_timeout = self._request.extensions.get("timeout", {}).get("read")
            connection.protocol.start_timeout()
        content = self._answer.content
        try:
            while piece := await content.read(_MOST_PIECE_BYTES):
                yield piece
        except _RAISED as error:
            raise _as_httpx(error, self._request) from error

    async def aclose(self) -> None:
        """Keep the connection for the next call when the body was read to its end; else cut it."""
        self._answer.release()


def _as_httpx(error: Exception, request: httpx.Request) -> httpx.TransportError:
    kind = next(kind for raised, kind in _ERRORS if isinstance(error, raised))
    return kind(str(error) or type(error).__name__, request=request)
