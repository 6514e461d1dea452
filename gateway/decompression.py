"""An answer that a backend compressed although it was asked not to, unpacked in pieces of bounded size.

httpx would unpack each piece at once, as often over as the backend names an encoding: 64 KiB of zeros, packed twice,
are 64 GiB. Pure but for the reading.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import httpx

_MOST_PIECE_BYTES = 64 * 1024
_PACKED = ("gzip", "x-gzip", "deflate")
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def pieces_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. Its errors are httpx.HTTPError, for an encoding that nobody asked for too."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    return answer.aiter_raw() if encoding in ("", "identity") else _unpacked(answer, encoding)


async def _unpacked(answer: httpx.Response, encoding: str) -> AsyncIterator[bytes]:
    if encoding not in _PACKED:
        raise httpx.DecodingError("the backend packed its answer in a way that it was not asked for")
    unpack = zlib.decompressobj(_GZIP_OR_ZLIB)
    async for piece in answer.aiter_raw():
        packed = piece
        while packed and not unpack.eof:
            try:
                unpacked = unpack.decompress(packed, _MOST_PIECE_BYTES)
            except zlib.error as error:
                raise httpx.DecodingError("the backend's packed answer cannot be unpacked") from error
            packed = unpack.unconsumed_tail
            if unpacked:
                yield unpacked
    if not unpack.eof:
        raise httpx.RemoteProtocolError("the backend's packed answer ended early")
