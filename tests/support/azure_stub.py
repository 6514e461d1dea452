"""A stub of Azure over HTTP for the scripts that deploy: answers are given by the test, requests are kept for it.

The answers in the tests have the shape that Azure's REST documentation publishes. None was recorded from Azure.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError


@dataclass(frozen=True)
class Reply:
    """One answer. A dict or list is sent as JSON."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class AzureStub:
    """`stub.on("GET", "/path", Reply(...), ...)` answers in this order, the last for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        self._asked: dict[tuple[str, str], int] = defaultdict(int)

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """State the answers of a path, in place of earlier ones."""
        self._replies[method, path.lower()] = list(replies)
        self._asked[method, path.lower()] = 0

    def to(self, method: str, ending: str) -> list[Request]:
        """Requests to paths that end like this."""
        return [r for r in self.requests if r.method == method and r.path.lower().endswith(ending.lower())]

    def reply(self, request: Request) -> Reply:
        """Keep the request, and find its answer."""
        self.requests.append(request)
        key = (request.method, request.path.lower())
        replies = self._replies.get(key)
        if replies is None:
            return Reply({"error": {"code": "NotFound", "message": f"{request.path} is not there"}}, 404)
        number = self._asked[key]
        self._asked[key] += 1
        return replies[min(number, len(replies) - 1)]


@contextmanager
def azure_stub() -> Iterator[AzureStub]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else headers and body wait for each other, 40 ms a request

        def answer(self) -> None:
            split = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = stub.reply(Request(self.command, split.path, dict(parse_qsl(split.query)), headers, body))
            is_json = isinstance(reply.body, dict | list)
            sent = json.dumps(reply.body).encode() if is_json else str(reply.body or "").encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json" if is_json else "text/plain")
            self.send_header("Content-Length", str(len(sent)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as the base class names them

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = AzureStub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Tokens:
    """A credential that tells for what its tokens are good, and counts them."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """A token for the scope, good for an hour."""
        self.scopes += scopes
        return AccessToken(f"token for {scopes[0]}", int(time.time()) + 3600)


class NotSignedIn:
    """A credential of nobody."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Refuses as azure-identity does."""
        raise ClientAuthenticationError("Please run 'az login' to set up an account")


class Sleeps(list[float]):
    """Stands in for time.sleep, and keeps how long it was."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
