"""The unchanged azure-eventhub SDK works against the local Event Hubs server, errors and odd moments included."""

import asyncio
import contextlib
import math
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventData
from azure.eventhub import EventHubProducerClient as SyncProducer
from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient, PartitionContext
from azure.eventhub.exceptions import ConnectError, ConnectionLostError, EventDataSendError, EventHubError
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore
from azure.storage.blob.aio import ContainerClient

from local.azurite import Azurite
from local.eventhub.broker import AmqpError, StoreThenDisconnect
from local.eventhub.embedded import EmbeddedHub
from local.process import Process


@pytest.fixture
async def producer(hub: EmbeddedHub, hub_name: str) -> AsyncIterator[EventHubProducerClient]:
    """An open producer of the test's hub that retries quickly."""
    async with EventHubProducerClient.from_connection_string(
        hub.connection_string(hub_name), retry_total=4, retry_backoff_factor=0.05
    ) as client:
        yield client


async def receive(
    connection_string: str,
    count: int,
    *,
    timeout_seconds: float = 60.0,
    each: Callable[[PartitionContext, EventData], Awaitable[None]] | None = None,
    store: BlobCheckpointStore | None = None,
    **options: Any,
) -> list[EventData]:
    """Read until `count` events came or the time is over."""
    events: list[EventData] = []

    async def on_event(context: PartitionContext, event: EventData | None) -> None:
        if event is not None:
            if each:
                await each(context, event)
            events.append(event)

    client = EventHubConsumerClient.from_connection_string(
        connection_string, "$Default", checkpoint_store=store, load_balancing_interval=1
    )
    async with client:
        task = asyncio.create_task(client.receive(on_event=on_event, **options))
        with contextlib.suppress(TimeoutError):
            await _until(lambda: len(events) >= count or task.done(), timeout_seconds)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return events


async def test_events_arrive_in_order_with_what_the_sender_set(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """Body, properties and content type pass through; sequence numbers count from 0 in each partition."""
    event = EventData(b"\x00\xff first")
    event.content_type = "application/json"
    event.properties = {"team": "search", "ok": True}
    await producer.send_event(event, partition_id="1")
    await producer.send_batch([EventData(f"{n}") for n in range(5)], partition_id="1")
    got = await receive(hub.connection_string(hub_name), 6, partition_id="1", starting_position="-1")
    assert [event.sequence_number for event in got] == list(range(6))
    assert b"".join(got[0].body) == b"\x00\xff first"
    assert got[0].content_type == "application/json"
    assert got[0].properties == {b"team": b"search", b"ok": True}
    assert [event.body_as_str() for event in got[1:]] == ["0", "1", "2", "3", "4"]
    assert abs((datetime.now(UTC) - got[0].enqueued_time).total_seconds()) < 30


async def test_a_partition_key_always_leads_to_the_same_partition(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """Events of one key land on one partition, in single sends and in batches, and readers see the key."""
    for _ in range(2):
        for team in range(8):
            await producer.send_event(EventData(f"single {team}"), partition_key=f"team-{team}")
            await producer.send_batch([EventData(f"batch {team}")] * 3, partition_key=f"team-{team}")
    recorded = hub.log(hub_name)
    assert len(recorded) == 2 * 8 * 4
    places: dict[str | None, set[str]] = {}
    for entry in recorded:
        places.setdefault(entry.partition_key, set()).add(entry.partition_id)
    assert set(places) == {f"team-{team}" for team in range(8)}
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set.union(*places.values())) == 2


async def test_events_without_a_key_are_spread(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """Without a key or partition, sends go to the partitions in turn."""
    for n in range(4):
        await producer.send_event(EventData(f"{n}"))
    assert sorted(entry.partition_id for entry in hub.log(hub_name)) == ["0", "0", "1", "1"]


async def test_an_event_of_900_kb_arrives_whole(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """A message that spans many frames is put together again, and one above 1 MiB is refused by the SDK's batch."""
    body = bytes(range(256)) * 3600
    batch = await producer.create_batch(partition_id="0")
    batch.add(EventData(body))
    await producer.send_batch(batch)
    (event,) = await receive(hub.connection_string(hub_name), 1, partition_id="0", starting_position="-1")
    assert b"".join(event.body) == body
    with pytest.raises(ValueError, match="reached its size limit"):
        (await producer.create_batch()).add(EventData(b"x" * 1_100_000))


async def test_positions(hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient) -> None:
    """A reader starts at the beginning, after or at a sequence number, after a time, or at the end."""
    await producer.send_batch([EventData(f"{n}") for n in range(4)], partition_id="0")
    await asyncio.sleep(0.05)
    middle = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await producer.send_batch([EventData(f"{n}") for n in range(4, 8)], partition_id="0")
    source = hub.connection_string(hub_name)

    async def bodies(count: int, **options: Any) -> list[str]:
        got = await receive(source, count, partition_id="0", **options)
        return [event.body_as_str() for event in got]

    beginning, after, at, since = await asyncio.gather(
        bodies(8, starting_position="-1"),
        bodies(2, starting_position=5),
        bodies(3, starting_position=5, starting_position_inclusive=True),
        bodies(4, starting_position=middle),
    )
    assert beginning == [str(n) for n in range(8)]
    assert after == ["6", "7"]
    assert at == ["5", "6", "7"]
    assert since == ["4", "5", "6", "7"]


async def test_latest_sees_only_what_comes_later(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """A reader at the end gets new events within a fraction of a second."""
    await producer.send_event(EventData("old"), partition_id="0")
    arrived: list[float] = []
    sent = {b"old": -math.inf}

    async def note(_: PartitionContext, event: EventData) -> None:
        arrived.append(time.monotonic() - sent[b"".join(event.body)])

    reading = asyncio.create_task(
        receive(hub.connection_string(hub_name), 5, each=note, partition_id="0", starting_position="@latest")
    )
    while not reading.done():  # it never sees what is sent before it is there
        body = str(len(sent)).encode()
        sent[body] = time.monotonic()
        await producer.send_event(EventData(body), partition_id="0")
        await asyncio.wait([reading], timeout=0.1)
    assert len(arrived) >= 5
    assert max(arrived) < math.inf
    assert min(arrived) < 0.5


async def test_properties_of_hub_and_partitions(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """The management calls answer with what the hub holds."""
    properties = await producer.get_eventhub_properties()
    assert properties["eventhub_name"] == hub_name
    assert properties["partition_ids"] == ["0", "1"]
    empty = await producer.get_partition_properties("0")
    assert empty["is_empty"]
    assert empty["last_enqueued_sequence_number"] == -1
    await producer.send_batch([EventData("a"), EventData("b")], partition_id="0")
    full = await producer.get_partition_properties("0")
    assert not full["is_empty"]
    assert (full["beginning_sequence_number"], full["last_enqueued_sequence_number"]) == (0, 1)


async def test_readers_can_follow_the_last_enqueued_event(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """With tracking on, each event tells how far the partition has grown."""
    await producer.send_batch([EventData(f"{n}") for n in range(3)], partition_id="0")
    seen: list[int] = []

    async def note(context: PartitionContext, _: EventData) -> None:
        properties = context.last_enqueued_event_properties
        assert properties is not None
        seen.append(properties["sequence_number"])

    options = {"partition_id": "0", "starting_position": "-1", "track_last_enqueued_event_properties": True}
    await receive(hub.connection_string(hub_name), 3, each=note, **options)
    assert seen == [2, 2, 2]


async def test_unknown_hub_and_partition_are_errors(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """Sending to, asking about or reading what does not exist fails, instead of vanishing."""
    with pytest.raises(ConnectError):
        await producer.send_event(EventData("x"), partition_id="7")
    nowhere = EventHubProducerClient.from_connection_string(hub.connection_string("nowhere"), retry_total=0)
    async with nowhere:
        with pytest.raises(ConnectError):
            await nowhere.send_event(EventData("x"))
        with pytest.raises(EventHubError):
            await nowhere.get_eventhub_properties()


async def test_a_higher_epoch_takes_the_partition(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """A second owner with a higher level displaces the first, which learns that its link was stolen."""
    await producer.send_event(EventData("x"), partition_id="0")
    source = hub.connection_string(hub_name)
    errors: list[Exception] = []
    counts = {"first": 0, "second": 0}

    def counter(name: str) -> Callable[[PartitionContext, EventData | None], Awaitable[None]]:
        async def on_event(_: PartitionContext, event: EventData | None) -> None:
            counts[name] += event is not None

        return on_event

    async def on_error(_: PartitionContext | None, error: Exception) -> None:
        errors.append(error)

    first = EventHubConsumerClient.from_connection_string(source, "$Default", retry_total=0)
    second = EventHubConsumerClient.from_connection_string(source, "$Default", retry_total=0)
    async with first, second:
        options: dict[str, Any] = {"partition_id": "0", "starting_position": "-1"}
        tasks = [
            asyncio.create_task(first.receive(on_event=counter("first"), on_error=on_error, owner_level=1, **options))
        ]
        await _until(lambda: counts["first"] == 1)
        tasks.append(asyncio.create_task(second.receive(on_event=counter("second"), owner_level=2, **options)))
        await _until(lambda: counts["second"] == 1 and bool(errors))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(errors[0], ConnectionLostError)
    assert "amqp:link:stolen" in str(errors[0])


async def test_a_throttled_send_is_retried(hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient) -> None:
    """On an open link the SDK tries once more after server-busy; throttled twice, it gives up and stores nothing."""
    await producer.send_event(EventData("opens the link"), partition_id="0")
    refusals = [1]

    def busy(_: str, __: int, event_count: int) -> AmqpError | None:
        if not refusals:
            return None
        refusals.pop()
        return AmqpError("com.microsoft:server-busy", f"{event_count} events were throttled.")

    hub.set_fault(busy)
    await producer.send_batch([EventData("a"), EventData("b")], partition_id="0")
    assert [entry.body for entry in hub.log(hub_name)] == [b"opens the link", b"a", b"b"]
    refusals += [1, 1]
    with pytest.raises(EventDataSendError, match="2 events were throttled"):
        await producer.send_batch([EventData("c"), EventData("d")], partition_id="0")
    assert len(hub.log(hub_name)) == 3


async def test_a_lost_acknowledgement_makes_a_duplicate(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """When the connection drops after the store, the sender sends again: the duplicate the ledger must recognise."""
    asked: list[int] = []

    def drop_once(_: str, __: int, event_count: int) -> StoreThenDisconnect | None:
        asked.append(event_count)
        return StoreThenDisconnect() if len(asked) == 1 else None

    hub.set_fault(drop_once)
    await producer.send_event(EventData("once?"), partition_id="0")
    assert [entry.body for entry in hub.log(hub_name)] == [b"once?", b"once?"]


async def test_clients_survive_lost_connections(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """After aborted connections, and after a time without a listener, the same client sends on."""
    await producer.send_event(EventData("a"), partition_id="0")
    hub.abort_connections()
    await producer.send_event(EventData("b"), partition_id="0")
    hub.stop_listening()
    sending = asyncio.create_task(producer.send_event(EventData("c"), partition_id="0"))
    await asyncio.sleep(0.1)
    hub.listen_again()
    await sending
    assert [entry.body for entry in hub.log(hub_name)] == [b"a", b"b", b"c"]


async def test_a_hub_created_again_starts_over(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """Sequence numbers restart, created_at changes, the old client goes on, and an old position is refused."""
    before = await producer.get_eventhub_properties()
    await producer.send_batch([EventData(f"{n}") for n in range(5)], partition_id="0")
    await asyncio.sleep(0.01)
    hub.recreate_hub(hub_name)
    await producer.send_event(EventData("new"), partition_id="0")
    after = await producer.get_eventhub_properties()
    assert after["created_at"] > before["created_at"]
    assert [(entry.sequence_number, entry.body) for entry in hub.log(hub_name)] == [(0, b"new")]
    errors: list[Exception] = []

    async def on_error(_: PartitionContext | None, error: Exception) -> None:
        errors.append(error)

    stale = EventHubConsumerClient.from_connection_string(hub.connection_string(hub_name), "$Default", retry_total=0)

    async def on_event(_: PartitionContext, __: EventData | None) -> None:
        raise AssertionError("a position of the deleted hub must not be read from")

    async with stale:
        options: dict[str, Any] = {"partition_id": "0", "starting_position": 4, "on_error": on_error}
        task = asyncio.create_task(stale.receive(on_event=on_event, **options))
        await _until(lambda: bool(errors))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert "The supplied sequence-number '4' is invalid" in str(errors[0])


async def test_checkpoints_on_azurite_resume_where_a_reader_stopped(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient, azurite: Azurite
) -> None:
    """With the real blob checkpoint store, a new reader gets what came after the last checkpoint and nothing before."""
    container = f"checkpoints-{uuid.uuid4().hex[:8]}"
    async with ContainerClient.from_connection_string(azurite.connection_string, container) as client:
        await client.create_container()

    async def checkpoint(context: PartitionContext, event: EventData) -> None:
        await context.update_checkpoint(event)

    async def read(count: int) -> list[str]:
        store = BlobCheckpointStore.from_connection_string(azurite.connection_string, container)
        async with store:
            source = hub.connection_string(hub_name)
            got = await receive(source, count, each=checkpoint, store=store, starting_position="-1")
        return sorted(event.body_as_str() for event in got)

    for partition in ("0", "1"):
        await producer.send_batch([EventData(f"{partition}-{n}") for n in range(3)], partition_id=partition)
    assert await read(6) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    for partition in ("0", "1"):
        await producer.send_event(EventData(f"{partition}-new"), partition_id=partition)
    assert await read(2) == ["0-new", "1-new"]


def test_synchronous_clients_work_too(hub: EmbeddedHub, hub_name: str) -> None:
    """The synchronous SDK sends and asks as well."""
    with SyncProducer.from_connection_string(hub.connection_string(hub_name)) as client:
        client.send_batch([EventData("sync")], partition_id="1")
        assert client.get_partition_properties("1")["last_enqueued_sequence_number"] == 0


async def test_the_server_runs_as_a_process(tmp_path: Path) -> None:
    """`python -m local.eventhub` prints its connection string, serves the named hubs and ends on SIGTERM."""
    command = [sys.executable, "-m", "local.eventhub", "--hubs", "usage:3,llm-logs:1", "--port", "0"]
    process = Process("eventhub", command, log_path=tmp_path / "log.txt", cwd=Path(__file__).parents[2])
    try:
        process.wait_until(lambda: "Endpoint=" in process.log_tail())
        source = process.log_tail().splitlines()[0]
        async with EventHubProducerClient.from_connection_string(source, eventhub_name="usage") as client:
            assert (await client.get_eventhub_properties())["partition_ids"] == ["0", "1", "2"]
            await client.send_event(EventData("x"))
    finally:
        process.stop()
    assert process.exit_code == 0


async def test_a_malformed_frame_ends_only_its_connection(
    hub: EmbeddedHub, hub_name: str, producer: EventHubProducerClient
) -> None:
    """Garbage on one connection does not disturb another."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=5) as garbage:
        garbage.sendall(b"AMQP\x00\x01\x00\x00" + b"\x00\x00\x00\x10\x02\x00\x00\x00" + b"\xff" * 8)
        garbage.settimeout(5)
        received = b""
        while chunk := garbage.recv(4096):
            received += chunk
    assert b"amqp:decode-error" in received
    await producer.send_event(EventData("fine"), partition_id="0")


async def _until(condition: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        await asyncio.sleep(0.01)
