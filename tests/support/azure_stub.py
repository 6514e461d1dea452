"""A stub of Azure over HTTP for the scripts that deploy: answers are given by the test, requests are kept for it.

The answers in the tests have the shape that Azure's REST documentation publishes. None was recorded from Azure.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from tests.support.http_server import Reply, Request, serving


class AzureStub:
    """`stub.on("GET", "/path", Reply(...), ...)` answers in this order, the last for ever."""

    def __init__(self) -> None:
        self.url = ""
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
    stub = AzureStub()
    with serving(stub.reply) as port:
        stub.url = f"http://127.0.0.1:{port}"
        yield stub


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
