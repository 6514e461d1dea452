"""Reading request bodies, and how much memory all of them together may take.

A body is up to three times in memory (as it came, decoded, and encoded for the model), and JSON made of nothing but
brackets takes twenty times its length: a few such bodies would fill a container, whoever's key they come with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from shared.errors import InvalidRequest, PayloadTooLarge, TollkeeperError

MOST_BODY_BYTES = 32 * 1024 * 1024  # room for images sent inline
MOST_VALUES = 1_000_000  # objects, lists and members; the longest prompts have a fifth of it in punctuation
UPLOAD_SECONDS = 120.0
MOST_BYTES_IN_HAND = 512 * 1024 * 1024
SMALL_BYTES = 64 * 1024  # such a body is always taken in: what others send at length must not keep it out
_COPIES = 3
_BYTES_PER_VALUE = 100
_RETRY_AFTER_SECONDS = 2


class GatewayBusy(TollkeeperError):
    """So many large bodies are in hand that no other one is taken in; small ones are."""

    code, http_status, kind = "gateway_busy", 503, "server_error"


class UploadTooSlow(TollkeeperError):
    """The body did not arrive in time."""

    code, http_status, kind = "upload_too_slow", 408, "invalid_request_error"


class Bodies:
    """What the large ones of one gateway take."""

    def __init__(self, most_bytes: int = MOST_BYTES_IN_HAND, upload_seconds: float = UPLOAD_SECONDS) -> None:
        self._most_bytes = most_bytes
        self._upload_seconds = upload_seconds
        self.taken_bytes = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one body, free again when nobody needs the body any more."""
        place = Place(self, self._upload_seconds)
        try:
            yield place
        finally:
            self.taken_bytes -= place.taken_bytes

    def take(self, wanted_bytes: int) -> None:
        """Take so much more. Raises GatewayBusy."""
        if self.taken_bytes + wanted_bytes > self._most_bytes:
            raise GatewayBusy(
                "too many large requests are in hand at the moment; try again shortly",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self.taken_bytes += wanted_bytes


class Place:
    """What one body takes."""

    def __init__(self, bodies: Bodies, upload_seconds: float) -> None:
        self._bodies = bodies
        self._upload_seconds = upload_seconds
        self.taken_bytes = 0

    async def read(self, request: Request) -> bytes:
        """The body. Raises PayloadTooLarge, UploadTooSlow, GatewayBusy without reading on; InvalidRequest for values
        beyond any call's, and for a body that is packed: a small one could be of any size.
        """
        if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise InvalidRequest("content-encoding: expected a body that is not packed", param="content-encoding")
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._upload_seconds):
                async for piece in request.stream():
                    size += len(piece)
                    if size > MOST_BODY_BYTES:
                        raise PayloadTooLarge(f"the body is larger than {MOST_BODY_BYTES} bytes")
                    if size > SMALL_BYTES:
                        self._grow_to(_COPIES * size)
                    pieces.append(piece)
        except TimeoutError:
            raise UploadTooSlow(f"the body did not arrive within {self._upload_seconds:g} seconds") from None
        raw = b"".join(pieces)
        values = raw.count(b"[") + raw.count(b"{") + raw.count(b",")
        if values > MOST_VALUES:
            raise InvalidRequest(f"the body holds more than {MOST_VALUES} values; text in strings counts by its commas")
        if size > SMALL_BYTES:
            self._grow_to(_COPIES * size + _BYTES_PER_VALUE * values)
        return raw

    def _grow_to(self, wanted_bytes: int) -> None:
        self._bodies.take(wanted_bytes - self.taken_bytes)
        self.taken_bytes = wanted_bytes
