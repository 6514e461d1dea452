"""What goes wrong with an answer on purpose: `x-sim-fault`, at the piece that `x-sim-fault-after` says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Literal, cast, get_args

from local.model.connection import CONNECTION
from local.model.pieces import Piece

Fault = Literal["reset", "cut", "half", "end", "json", "utf8", "stall", "error", "endless"]
FAULTS = cast("tuple[Fault, ...]", get_args(Fault))
LONGEST_STALL_SECONDS = 900
NO_UTF8 = b"\xff\xc3\x28"
_ENDLESS_PIECE = b"x" * 65536
_ERROR = {"error": {"code": "simulated_error", "message": "x-sim-fault asked for it", "type": "server_error"}}


class Cut(ConnectionResetError):
    """Raised out of an answer that has begun: the server then closes the connection without an end."""


async def stall() -> None:
    """Say nothing until the client hangs up."""
    await asyncio.wait_for(CONNECTION.get().gone(), LONGEST_STALL_SECONDS)


def reset() -> Cut:
    """Reset the connection; raise what this returns, so that nothing more is said either."""
    CONNECTION.get().reset()
    return Cut("x-sim-fault: reset")


async def spoiled_piece(fault: Fault, piece: Piece) -> AsyncIterator[bytes]:
    """What is sent in place of this piece of a stream. Only after `json` and `utf8` does the stream go on."""
    if fault == "reset":
        raise reset()
    if fault == "cut":
        raise Cut("x-sim-fault: cut")
    if fault == "half":
        yield piece.content[: len(piece.content) // 2]
        raise Cut("x-sim-fault: half")
    if fault == "json":
        yield piece.content[: len(piece.content) // 2].rstrip(b"\n") + b"\n\n"
    elif fault == "utf8":
        yield not_utf8(piece.content)
    elif fault == "stall":
        await stall()
    elif fault == "error":
        yield b"data: " + json.dumps(_ERROR).encode() + b"\n\n"
    elif fault == "endless":
        yield b"data: "
        async for more in _without_end():
            yield more


def goes_on_after(fault: Fault) -> bool:
    """Whether the stream continues behind the spoiled piece."""
    return fault in ("json", "utf8")


async def spoiled_whole(fault: Fault, content: bytes) -> AsyncIterator[bytes]:
    """A whole answer with this fault, behind a head that promised all of it."""
    half = content[: len(content) // 2]
    if fault in ("json", "end"):
        yield half
    elif fault == "utf8":
        yield not_utf8(content)
    elif fault == "error":
        yield json.dumps(_ERROR).encode()
    elif fault == "endless":
        async for more in _without_end():
            yield more
    else:
        yield half
        if fault == "stall":
            await stall()
        raise reset() if fault == "reset" else Cut(f"x-sim-fault: {fault}")


async def _without_end() -> AsyncIterator[bytes]:
    """Until the client hangs up, which ends whoever reads this; never so fast that nothing else is served."""
    while True:
        yield _ENDLESS_PIECE
        await asyncio.sleep(0.001)


def promises_length(fault: Fault) -> bool:
    """Whether the head of a whole answer says its full length, though less will come."""
    return fault in ("half", "cut", "reset", "stall")


def not_utf8(content: bytes) -> bytes:
    """The content with bytes that no UTF-8 text can hold, inside its last JSON string."""
    at = content.rfind(b':"') + 2
    return content[:at] + NO_UTF8 + content[at:]
