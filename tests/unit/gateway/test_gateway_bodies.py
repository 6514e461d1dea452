"""How much memory and time the bodies of requests may take, whoever sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from gateway.bodies import MOST_BODY_BYTES, MOST_VALUES, SMALL_BYTES, Bodies, GatewayBusy, UploadTooSlow
from shared.errors import InvalidRequest, PayloadTooLarge


class Request:
    """Sends its pieces; after them nothing, for ever, where it stalls."""

    def __init__(self, pieces: Sequence[bytes], *, stalls: bool = False, **headers: str) -> None:
        self._pieces, self._stalls = pieces, stalls
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.sent = 0

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.sent += 1
            yield piece
        if self._stalls:
            await asyncio.Event().wait()


async def read(bodies: Bodies, *pieces: bytes, stalls: bool = False) -> bytes:
    with bodies.place() as place:
        return await place.read(Request(pieces, stalls=stalls))


async def test_a_body_is_put_together_and_its_place_given_back() -> None:
    """Whatever it took is free again when the call is over."""
    bodies = Bodies()
    with bodies.place() as place:
        assert await place.read(Request([b"[1", b"]" + b" " * SMALL_BYTES])) == b"[1]" + b" " * SMALL_BYTES
        assert bodies.taken_bytes >= 3 * SMALL_BYTES
    assert bodies.taken_bytes == 0


async def test_a_packed_body_is_refused_by_name() -> None:
    """Read as it is it would be no JSON, and nobody would know why."""
    with Bodies().place() as place, pytest.raises(InvalidRequest) as refused:
        await place.read(Request([b"{}"], content_encoding="gzip"))
    assert refused.value.param == "content-encoding"
    with Bodies().place() as place:
        assert await place.read(Request([b"{}"], content_encoding="identity")) == b"{}"


async def test_a_body_beyond_the_limit_is_not_read_on() -> None:
    """The rest stays where it is."""
    request = Request([b" " * (MOST_BODY_BYTES // 2)] * 8)
    with Bodies().place() as place, pytest.raises(PayloadTooLarge):
        await place.read(request)
    assert request.sent == 3


async def test_a_body_of_brackets_is_refused_before_it_is_decoded() -> None:
    """Eleven million empty objects in 32 MiB would take 800 MB of memory, and the process with it."""
    with pytest.raises(InvalidRequest, match=str(MOST_VALUES)):
        await read(Bodies(), b"[" + b"{}," * (MOST_VALUES // 2) + b"{}]")


async def test_the_longest_prompts_are_taken() -> None:
    """A million tokens of English, with a comma or bracket every eighth byte as code has them."""
    text = "if (a, b): {" * (4_000_000 // 12)
    raw = msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    assert raw.count(b",") + raw.count(b"{") > 600_000
    assert await read(Bodies(), raw) == raw


async def test_large_bodies_together_have_a_limit_and_small_ones_pass() -> None:
    """A few clients with much to send must not fill the memory, nor keep everybody else out."""
    large = b" " * (SMALL_BYTES * 2)
    bodies = Bodies(most_bytes=3 * len(large) + 1)
    with bodies.place() as place:
        await place.read(Request([large]))
        with pytest.raises(GatewayBusy) as busy:
            await read(bodies, large)
        assert busy.value.headers() == {"Retry-After": "2"}
        assert await read(bodies, b"{}") == b"{}"
    assert await read(bodies, large) == large


async def test_what_was_refused_holds_nothing() -> None:
    """Neither a body that is too large, nor one that never ends, takes room from the next."""
    bodies = Bodies(upload_seconds=0.05)
    with pytest.raises(UploadTooSlow):
        await read(bodies, b" " * (2 * SMALL_BYTES), stalls=True)
    with pytest.raises(PayloadTooLarge):
        await read(bodies, *[b" " * (MOST_BODY_BYTES // 4)] * 5)
    assert bodies.taken_bytes == 0


async def test_a_body_that_never_ends_is_given_up() -> None:
    """A client that sends a byte now and then would hold what it sent before for days."""
    with pytest.raises(UploadTooSlow):
        await read(Bodies(upload_seconds=0.05), b"{", stalls=True)
