"""What a gateway says that cannot start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


def in_words(lifespan: ASGIApp, refused: Sequence[str]) -> ASGIApp:
    """The lifespan, which tells the server why the configuration was `refused` where that is why it failed.

    Whoever starts it then reads which line of which file is wrong, not a traceback of ours.
    """

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_words(message: Message) -> None:
            await send({**message, "message": refused[-1]} if refused and "message" in message else message)

        await lifespan(scope, receive, send_in_words)

    return told
