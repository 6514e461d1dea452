"""Usage events on their way from the gateway to the hub."""

import asyncio
from datetime import UTC, datetime

import pytest

from gateway.events import BacklogFull, EventQueue
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
    queue.start()
    for round_ in range(5):
        for i in range(3):
            queue.reserve()
            queue.put(event(3 * round_ + i))
        await asyncio.sleep(0.01)
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
    queue.start()
    for i in range(4):
        queue.reserve()
        queue.put(event(i))
    await asyncio.sleep(0.05)
    assert (hub.taken, queue.pending) == ([], 4)
    hub.down = False
    await queue.close()
    assert hub.taken == [event(i) for i in range(4)]
    assert hub.tries > 1


async def test_closing_without_a_hub_ends_and_says_how_many_are_left(monkeypatch, caplog):
    """Shutdown does not hang on a dead hub, and does not hide what it lost."""
    monkeypatch.setattr("gateway.events.FLUSH_TIMEOUT_SECONDS", 0.05)
    queue = EventQueue(Hub(down=True))
    queue.start()
    queue.reserve()
    queue.put(event(1))
    await queue.close()
    assert "1 usage events" in caplog.text
