"""One piece of a stream: the bytes that go out together and the output tokens they carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Piece:
    """Some bytes of a stream, and the tokens the model has produced with them."""

    content: bytes
    tokens: int = 0


def event(data: dict[str, Any], tokens: int = 0, *, name: str | None = None) -> Piece:
    """A server-sent event; the Responses API also names each."""
    head = f"event: {name}\n".encode() if name else b""
    return Piece(head + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n", tokens)
