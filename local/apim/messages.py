"""The request on its way to the backend and the response on its way back, as policies change them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx

if TYPE_CHECKING:
    from local.apim.llm_log import Watch

_NOT_PASSED_ON = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host")
)


class Headers:
    """Header fields in order; names are matched without regard to case, a name may have several values."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = list(fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def get(self, name: str) -> str | None:
        """The first value."""
        return next((value for known, value in self._fields if known.lower() == name.lower()), None)

    def set(self, name: str, values: Sequence[str]) -> None:
        """These values instead of any."""
        self.delete(name)
        self._fields += [(name, value) for value in values]

    def append(self, name: str, values: Sequence[str]) -> None:
        """These values after the ones there are."""
        self._fields += [(name, value) for value in values]

    def delete(self, name: str) -> None:
        """No value."""
        self._fields = [(known, value) for known, value in self._fields if known.lower() != name.lower()]

    def grouped(self) -> dict[str, list[str]]:
        """{name: values}."""
        grouped: dict[str, list[str]] = {}
        names: dict[str, str] = {}
        for name, value in self._fields:
            grouped.setdefault(names.setdefault(name.lower(), name), []).append(value)
        return grouped

    def encoded(self) -> list[tuple[bytes, bytes]]:
        """As bytes for the wire: what came as Latin-1 goes as it came, what else a policy wrote as UTF-8."""
        return [(name.encode("latin-1", "replace"), _encoded(value)) for name, value in self._fields]

    def passed_on(self) -> list[tuple[str, str]]:
        """Those that belong to the message, not to one connection."""
        return [(name, value) for name, value in self._fields if name.lower() not in _NOT_PASSED_ON]


def json_object(body: bytes | None) -> dict[str, Any]:
    """The body as a JSON object; empty for anything else, however deep it nests."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _encoded(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


@dataclass
class Request:
    """The request: as the client sent it, then as policies left it."""

    method: str
    original_url: str  # the gateway's, as the client wrote it
    headers: Headers
    body: bytes | None
    ip_address: str
    matched_parameters: dict[str, str] = field(default_factory=dict)
    backend_url: str = ""  # of the service, without what rewrite-uri decides
    backend_path: str = ""  # path and query below backend_url
    body_is_consumed: bool = False  # an expression read it without preserveContent, and nothing replaced it

    def query(self) -> list[tuple[str, str]]:
        """Query parameters of the backend URL, in order."""
        return parse_qsl(urlsplit(self.backend_path).query, keep_blank_values=True)

    def set_query(self, parameters: Sequence[tuple[str, str]]) -> None:
        """Replace the query of the backend URL."""
        path = self.backend_path.partition("?")[0]
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters)
        self.backend_path = f"{path}?{text}" if text else path

    @property
    def target(self) -> str:
        """Where the request goes: what expressions see as context.Request.Url."""
        return f"{self.backend_url.rstrip('/')}/{self.backend_path.lstrip('/')}".rstrip("/")


@dataclass
class Response:
    """A response: made by a policy, or a backend's whose body may still be on its way."""

    status: int
    reason: str
    headers: Headers
    body: bytes | None = None  # None while it is (in part) on its way, or when there is none
    upstream: httpx.Response | None = None  # open while the body is on its way
    pieces: AsyncIterator[bytes] | None = None  # the body as it comes: one iterator, begun by whoever buffers
    first_pieces: list[bytes] = field(default_factory=list)  # read from upstream already, to be sent first
    is_streamed: bool = False  # relayed as it comes; reading it in a policy would end that
    is_too_large: bool = False  # above what a policy may buffer
    body_is_consumed: bool = False
    watch: Watch | None = None  # reads along for the LLM log
    is_buffered: bool = False  # buffer-response="true": sent in pieces of 8 KB rather than as they come

    @property
    def is_event_stream(self) -> bool:
        """True for what a model sends piece by piece."""
        return (self.headers.get("content-type") or "").lower().startswith("text/event-stream")

    def replace_body(self, body: bytes) -> None:
        """This body instead of the one there is or was to come."""
        self.body, self.first_pieces, self.is_streamed, self.is_too_large = body, [], False, False
        self.body_is_consumed = False
        for name in ("content-encoding", "content-length", "transfer-encoding"):
            self.headers.delete(name)

    async def close(self) -> None:
        """Let the backend go."""
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            await upstream.aclose()
