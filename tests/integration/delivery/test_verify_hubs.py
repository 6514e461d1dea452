"""`make verify` reads hubs beside the functions, through the real SDK."""

from __future__ import annotations

import time

import pytest
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient

from local.eventhub.embedded import EmbeddedHub
from scripts.azure.verify.errors import CannotRunError
from scripts.azure.verify.hubs import CONSUMER_GROUP, USAGE, EventHubs


def reader(hub: EmbeddedHub, name: str) -> EventHubs:
    """The usage hub alone, asked once and not again when it fails."""
    connection = hub.connection_string()
    client = EventHubConsumerClient.from_connection_string(
        connection, CONSUMER_GROUP, eventhub_name=name, retry_total=0
    )
    return EventHubs({USAGE: client})


def test_messages_of_every_partition_arrive(hub: EmbeddedHub, hub_name: str) -> None:
    """With the time at which the hub took them."""
    hubs = reader(hub, hub_name)
    hubs.start()
    try:
        with EventHubProducerClient.from_connection_string(hub.connection_string(), eventhub_name=hub_name) as producer:
            for partition in producer.get_partition_ids():
                producer.send_batch([EventData(f"to {partition}")], partition_id=partition)
        deadline = time.monotonic() + 30
        messages = hubs.messages()
        while len(messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            messages += hubs.messages()
    finally:
        hubs.close()
    assert sorted(message.body for message in messages) == [b"to 0", b"to 1"]
    assert all(abs(message.enqueued.timestamp() - time.time()) < 60 for message in messages)


def test_a_hub_that_cannot_be_read_is_told_before_any_call(hub: EmbeddedHub) -> None:
    """With the role, the consumer group and the network that it takes."""
    hubs = reader(hub, "not-there")
    with pytest.raises(CannotRunError, match=r"Azure Event Hubs Data Receiver.*consumer group verify"):
        hubs.start()
    hubs.close()
