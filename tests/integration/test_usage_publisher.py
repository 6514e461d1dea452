"""The publisher against the Event Hubs server: everything arrives, in order per key, through faults and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from local.eventhub.broker import AmqpError, StoreThenDisconnect
from local.eventhub.embedded import EmbeddedHub
from shared.errors import PayloadTooLarge
from shared.settings import Settings
from shared.usage.hub import HubUnavailable, PartitionState, UsagePublisher


@pytest.fixture
async def publisher(hub: EmbeddedHub, hub_name: str) -> AsyncIterator[UsagePublisher]:
    """A publisher to that hub, as the laptop's settings make it."""
    publisher = UsagePublisher(Settings(eventhub_connection=hub.connection_string(), usage_hub=hub_name))
    yield publisher
    await publisher.close()


async def test_events_arrive_whole_and_in_order_per_key(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """Each key's events stand in one partition in the order given, bodies byte for byte, unicode included."""
    bodies = [(f"key-{number % 5}", f'{{"n":{number},"é":"日本"}}'.encode()) for number in range(50)]
    await publisher.publish(bodies)
    log = hub.log(hub_name)
    for key in {key for key, _ in bodies}:
        arrived = [record for record in log if record.partition_key == key]
        assert [record.body for record in arrived] == [body for other, body in bodies if other == key]
        assert len({record.partition_id for record in arrived}) == 1


async def test_concurrent_publishing_shares_one_link(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """A hundred callers at once, the first of them still opening the link, lose and repeat nothing."""
    await asyncio.gather(*(publisher.publish([(f"k{n % 7}", b"%d" % n)]) for n in range(100)))
    assert sorted(int(record.body) for record in hub.log(hub_name)) == list(range(100))


async def test_more_than_a_message_holds_goes_in_several(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """Three megabytes under one key take several messages and keep their order."""
    bodies = [("key", b"%06d" % number + b"x" * 1_000) for number in range(3_000)]
    await publisher.publish(bodies)
    assert [record.body for record in hub.log(hub_name)] == [body for _, body in bodies]


async def test_an_oversize_event_refuses_all_before_anything_is_sent(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """One event that cannot fit is the caller's mistake; half a batch on the hub would hide it."""
    with pytest.raises(PayloadTooLarge, match="1100000 bytes"):
        await publisher.publish([("key", b"fine"), ("key", b"x" * 1_100_000)])
    assert hub.log(hub_name) == []


async def test_a_throttled_send_is_retried(hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher) -> None:
    """Server-busy passes; the SDK's own retry sends the event once."""
    faults = [AmqpError("com.microsoft:server-busy", "throttled")]
    hub.set_fault(lambda *_: faults.pop() if faults else None)
    await publisher.publish([("key", b"once")])
    assert [record.body for record in hub.log(hub_name)] == [b"once"]


async def test_a_lost_acknowledgement_repeats_identical_bytes(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """The hub stored the event but the sender never learnt it: the repeat is identical, so the ledger can drop it."""
    faults = [StoreThenDisconnect()]
    hub.set_fault(lambda *_: faults.pop() if faults else None)
    await publisher.publish([("key", b"twice")])
    assert [record.body for record in hub.log(hub_name)] == [b"twice", b"twice"]


async def test_a_dropped_connection_is_opened_again(hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher) -> None:
    """A publisher kept open for days survives a network failure."""
    await publisher.publish([("key", b"before")])
    hub.abort_connections()
    await publisher.publish([("key", b"after")])
    assert [record.body for record in hub.log(hub_name)] == [b"before", b"after"]


async def test_a_closed_publisher_opens_again(hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher) -> None:
    """Closing frees the connection; the next call opens another."""
    await publisher.publish([("key", b"before")])
    await publisher.close()
    await publisher.publish([("key", b"after")])
    assert [record.body for record in hub.log(hub_name)] == [b"before", b"after"]


async def test_partition_state_tells_how_far_each_has_come(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """Sequence and enqueue time of the last event, per partition; empty ones say so."""
    assert all(state.empty and state.last_sequence == -1 for state in await publisher.partition_state())
    await publisher.publish([("a", b"1"), ("a", b"2"), ("b", b"3")])
    last = {record.partition_id: record for record in hub.log(hub_name)}
    for state in await publisher.partition_state():
        if state.empty:
            assert state.partition not in last
        else:
            record = last[state.partition]
            assert state == PartitionState(record.partition_id, record.sequence_number, record.enqueued_ms, empty=False)


async def test_partition_state_notices_a_hub_that_grew(
    hub: EmbeddedHub, hub_name: str, publisher: UsagePublisher
) -> None:
    """A partition overlooked would let holds expire before their events were processed."""
    assert [state.partition for state in await publisher.partition_state()] == ["0", "1"]
    hub.delete_hub(hub_name)
    hub.create_hub(hub_name, 5)
    assert [state.partition for state in await publisher.partition_state()] == ["0", "1", "2", "3", "4"]


async def test_a_hub_that_does_not_answer_is_unavailable(hub: EmbeddedHub) -> None:
    """After the SDK's retries the error says which hub, is a 503, and asks to come back."""
    publisher = UsagePublisher(Settings(eventhub_connection=hub.connection_string(), usage_hub="no-such-hub"))
    with pytest.raises(HubUnavailable, match="no-such-hub") as caught:
        await publisher.publish([("key", b"lost?")])
    await publisher.close()
    assert (caught.value.http_status, caught.value.retry_after_seconds) == (503, 1)


async def test_log_records_go_back_to_the_namespace_of_the_llm_log(hub: EmbeddedHub, hub_name: str) -> None:
    """It has a connection of its own; that of the usage hub leads nowhere here, and both hubs have one name."""
    nowhere = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=x;SharedAccessKey=y;UseDevelopmentEmulator=true;"
    settings = Settings(
        eventhub_connection=nowhere,
        usage_hub=hub_name,
        llm_logs_connection=hub.connection_string(),
        llm_logs_hub=hub_name,
    )
    publisher = UsagePublisher(settings, llm_logs=True)
    await publisher.publish([("key", b"record")])
    await publisher.close()
    assert [record.body for record in hub.log(hub_name)] == [b"record"]
