"""Answers that a backend compressed unasked: unpacked, but never larger in memory than the gateway allows."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.decompression import pieces_of

MIB = 1024 * 1024


class Body(httpx.AsyncByteStream):
    """Sends pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def answer(encoding: str | None, *pieces: bytes) -> httpx.Response:
    return httpx.Response(200, headers={"content-encoding": encoding} if encoding else {}, stream=Body(list(pieces)))


@pytest.mark.parametrize("encoding", [None, "identity", "gzip", "X-GZip", "deflate"])
async def test_answers_are_unpacked_however_they_are_cut(encoding: str | None) -> None:
    """Backends and proxies pack in two ways; a piece may end anywhere."""
    text = b"data: {}\n\n" * 10_000
    kind = (encoding or "").lower()
    packed = gzip.compress(text) if "gzip" in kind else zlib.compress(text) if kind == "deflate" else text
    cut = [packed[i : i + 7] for i in range(0, len(packed), 7)]
    assert b"".join([piece async for piece in pieces_of(answer(encoding, *cut))]) == text


async def test_a_bomb_comes_in_small_pieces() -> None:
    """256 MiB of zeros in a quarter of one: whoever reads stops at its own limit, and each piece is small."""
    pack = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join(pack.compress(bytes(MIB)) for _ in range(256)) + pack.flush()
    assert len(bomb) < MIB / 3
    tracemalloc.start()
    size = 0
    async for piece in pieces_of(answer("gzip", bomb)):
        size += len(piece)
        if size > 64 * MIB:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size <= 64 * MIB + 65_536
    assert peak < 8 * MIB


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "what"])
async def test_other_encodings_are_refused(encoding: str) -> None:
    """Packed twice, a piece has no bounded size; and nobody asked for any of it."""
    with pytest.raises(httpx.DecodingError):
        _ = [piece async for piece in pieces_of(answer(encoding, gzip.compress(gzip.compress(b"{}"))))]


@pytest.mark.parametrize("packed", [b"no gzip at all", gzip.compress(b"{}" * 1000)[:-12]], ids=["other", "cut"])
async def test_what_is_damaged_or_cut_is_no_answer(packed: bytes) -> None:
    """Half an answer is billed and said to be one."""
    with pytest.raises(httpx.HTTPError):
        _ = [piece async for piece in pieces_of(answer("gzip", packed))]
