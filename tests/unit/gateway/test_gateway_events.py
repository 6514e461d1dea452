"""Usage events on their way from the gateway to the hub."""

import asyncio
import errno
import os
from datetime import UTC, datetime

import pytest

from gateway.events import ROOM_PER_CALL_BYTES, BacklogFull, EventQueue
from gateway.spool import Spool
from shared.usage.build import usage_event_bytes


def event(number: int) -> bytes:
    return usage_event_bytes("gateway/test", str(number), datetime(2026, 11, 21, tzinfo=UTC), {"tenant": "contoso"})


class Hub:
    """A publisher that can be down."""

    def __init__(self, down: bool = False) -> None:
        self.down = down
        self.taken: list[bytes] = []
        self.tries = 0

    async def publish(self, bodies) -> None:
        self.tries += 1
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError("down")
        self.taken += [body for _, body in bodies]


async def test_events_reach_the_hub_in_order_and_free_their_places():
    """What was put is published once, and its place can be taken again."""
    hub = Hub()
    queue = EventQueue(hub, most_pending=3)
    await queue.start()
    for round_ in range(5):
        for i in range(3):
            queue.reserve()
            queue.put(event(3 * round_ + i))
        await until(lambda: queue.pending == 0)
    await queue.close()
    assert hub.taken == [event(i) for i in range(15)]


async def test_a_full_queue_refuses_at_the_door():
    """Calls in flight count too: a call is let in only if its event will have a place."""
    queue = EventQueue(Hub(), most_pending=2)
    queue.reserve()
    queue.reserve()
    with pytest.raises(BacklogFull) as raised:
        queue.reserve()
    assert raised.value.http_status == 503
    queue.give_back()
    queue.reserve()


async def test_a_hub_that_comes_back_gets_every_event_once():
    """While the hub is down events wait, in order; nothing is dropped."""
    hub = Hub(down=True)
    queue = EventQueue(hub)
    await queue.start()
    for i in range(4):
        queue.reserve()
        queue.put(event(i))
    await until(lambda: hub.tries > 0)
    assert (hub.taken, queue.pending) == ([], 4)
    hub.down = False
    await queue.close()
    assert hub.taken == [event(i) for i in range(4)]
    assert hub.tries > 1


async def test_closing_without_a_hub_ends_and_says_how_many_are_left(caplog):
    """Shutdown does not hang on a dead hub, and does not hide what it lost."""
    queue = EventQueue(Hub(down=True))
    await queue.start()
    queue.reserve()
    queue.put(event(1))
    await queue.close(flush_seconds=0.05)
    assert "1 usage events" in caplog.text


def spool_in(directory, max_bytes=2**20) -> Spool:
    return Spool(directory, max_bytes)


async def until(holds) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for is done by a thread
            await asyncio.sleep(0.01)


async def test_what_the_hub_does_not_take_goes_to_disk_and_then_to_the_hub_in_order(tmp_path):
    """Events of an outage are on disk, not in memory; those that come while it is made up for go behind them."""
    hub = Hub(down=True)
    queue = EventQueue(hub, spool=spool_in(tmp_path), most_pending=3)
    await queue.start()
    for i in range(12):  # four times what fits into memory
        queue.reserve()
        queue.put(event(i))
        if i % 3 == 2:
            await until(lambda: not queue._events)
    health = queue.health()
    assert (health["status"], health["pending_events"], health["spool"]["events"]) == ("backlog", 12, 12)
    hub.down = False
    for i in range(12, 15):
        queue.reserve()
        queue.put(event(i))
    await queue.close()
    assert hub.taken == [event(i) for i in range(15)]
    assert list(tmp_path.iterdir()) == []


async def test_events_left_at_the_end_are_sent_by_the_next_gateway(tmp_path):
    """Closed without a hub: the same bytes go out at the next start, once."""
    first = EventQueue(Hub(down=True), spool=spool_in(tmp_path))
    await first.start()
    for i in range(3):
        first.reserve()
        first.put(event(i))
    await first.close(flush_seconds=0.05)
    hub = Hub()
    second = EventQueue(hub, spool=spool_in(tmp_path))
    await second.start()
    assert second.pending == 3
    await second.close()
    assert hub.taken == [event(i) for i in range(3)]


async def test_a_hub_that_hangs_does_not_keep_events_in_memory(tmp_path, monkeypatch):
    """No answer is as bad as a refusal: after the patience for one, the events are on disk, whatever becomes of it."""
    monkeypatch.setattr("gateway.events.PATIENCE_SECONDS", 0.05)
    answers = asyncio.Event()

    class Hanging(Hub):
        async def publish(self, bodies) -> None:
            await answers.wait()
            await super().publish(bodies)

    hub = Hanging()
    queue = EventQueue(hub, spool=spool_in(tmp_path))
    await queue.start()
    queue.reserve()
    queue.put(event(1))
    await until(lambda: queue.health()["spool"]["events"] == 1)
    answers.set()
    await queue.close()
    assert set(hub.taken) == {event(1)}  # perhaps twice, in the same bytes


async def test_a_full_spool_closes_the_door_until_the_hub_is_back(tmp_path):
    """The bound is for letting calls in: what was let in finds a place, and nobody else is let in."""
    hub = Hub(down=True)
    queue = EventQueue(hub, spool=spool_in(tmp_path, max_bytes=3 * ROOM_PER_CALL_BYTES))
    await queue.start()
    queue.reserve()
    queue.put(event(0))
    await until(lambda: queue.health()["spool"]["events"] == 1)
    for _ in range(2):  # one of three places is the event's on disk, begun or not
        queue.reserve()
    with pytest.raises(BacklogFull):
        queue.reserve()
    assert queue.health()["status"] == "full"
    for i in range(1, 3):
        queue.put(event(i))
    hub.down = False
    await until(lambda: len(hub.taken) == 3)
    queue.reserve()
    queue.give_back()
    await queue.close()
    assert hub.taken == [event(i) for i in range(3)]


async def test_a_disk_that_takes_nothing_closes_the_door_at_once(tmp_path, caplog):
    """Neither hub nor disk: 503 before a model is called, and not only when the memory is full."""
    hub = Hub(down=True)
    no_directory = tmp_path / "file"
    no_directory.write_text("in the way")
    queue = EventQueue(hub, spool=spool_in(no_directory / "spool"))
    await queue.start()
    queue.reserve()
    queue.put(event(0))
    await until(lambda: queue.health()["status"] == "full")
    assert "spool_unwritable" in caplog.text
    with pytest.raises(BacklogFull):
        queue.reserve()
    no_directory.unlink()  # mended, it is used again without a restart
    await until(lambda: queue.health()["spool"]["events"] == 1)
    queue.reserve()
    queue.give_back()
    hub.down = False
    await queue.close()
    assert hub.taken == [event(0)]


async def test_a_disk_that_is_full_keeps_events_in_memory_and_in_order(tmp_path, monkeypatch):
    """ENOSPC in the middle of a write: nothing of it is believed, and everything is sent once when the hub is back."""
    hub = Hub(down=True)
    queue = EventQueue(hub, spool=spool_in(tmp_path))
    await queue.start()
    write, room = os.write, [10]

    def short_write(descriptor, content):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, bytes(content)[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("gateway.spool.os.write", short_write)
    for i in range(2):
        queue.reserve()
        queue.put(event(i))
    await until(lambda: queue.health()["status"] == "full")
    assert queue.health()["spool"] == {
        "events": 0,
        "bytes": 0,
        "max_bytes": 2**20,
        "oldest_seconds": 0.0,
        "writable": False,
    }
    room[0] = 10**9
    await until(lambda: queue.health()["spool"]["events"] == 2)
    hub.down = False
    await queue.close()
    assert hub.taken == [event(i) for i in range(2)]
