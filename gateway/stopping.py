"""What a gateway says that is stopped before a call is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request

from shared.errors import TollkeeperError

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class GatewayStopping(TollkeeperError):
    """The gateway ends, and the call with it."""

    code, http_status, kind = "gateway_stopping", 503, "server_error"

    def __init__(self) -> None:
        super().__init__("the gateway is being stopped; send the call again", retry_after_seconds=1)


class Stoppable:
    """An app whose calls may be cancelled, as uvicorn does with those that outlast its grace.

    uvicorn takes what it hears of that for a defect: it would log a traceback for every call, and answer in plain text.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[Request, TollkeeperError], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; a call that is cancelled before its answer began is told why. A stream says so itself."""
        is_begun = False

        def noted(message: Message) -> Awaitable[None]:
            nonlocal is_begun
            is_begun = True
            return send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not is_begun:
                await self._answer(Request(scope), GatewayStopping())(scope, receive, send)
