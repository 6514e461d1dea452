"""Everything a running copy has written anywhere, for tests that look for what must not be there."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import redis
from azure.data.tables import TableServiceClient
from azure.eventhub.aio import EventHubConsumerClient
from azure.storage.blob import BlobServiceClient

from tests.support.laptop import Laptop

HUBS = ("usage", "llm-logs")
READ_SECONDS = 30


def everything_stored(laptop: Laptop) -> dict[str, bytes]:
    """Place -> bytes: each hub message, table row, blob, Redis key with its value, and log file."""
    found: dict[str, bytes] = {}
    for hub, messages in asyncio.run(_read_hubs(laptop.hub_connection)).items():
        found |= {f"hub {hub} {number}": body for number, body in enumerate(messages)}
    found |= dict(_table_rows(laptop))
    found |= dict(_blobs(laptop))
    found |= dict(_redis_keys(laptop))
    for process in laptop.stack.processes.values():
        found[f"log {process.log_path.name}"] = process.log_path.read_bytes()
    for path in laptop.stack.options.logs.rglob("*"):
        if path.is_file():
            found[f"file {path.name}"] = path.read_bytes()
    return found


def places_of(text: str, found: dict[str, bytes]) -> list[str]:
    """The places that hold a text, plainly or in base64."""
    spellings = list(_spellings(text))
    return sorted(place for place, content in found.items() if any(each in content.lower() for each in spellings))


async def _read_hubs(connection: str) -> dict[str, list[bytes]]:
    return dict(zip(HUBS, await asyncio.gather(*(_read_hub(connection, hub) for hub in HUBS)), strict=True))


async def _read_hub(connection: str, hub: str) -> list[bytes]:
    """Every message of a hub from its start, through the real SDK."""
    bodies: list[bytes] = []
    client = EventHubConsumerClient.from_connection_string(connection, consumer_group="search", eventhub_name=hub)
    async with client:
        left: dict[str, int] = {}  # the last sequence number of every partition that is not read yet
        for partition in await client.get_partition_ids():
            properties = await client.get_partition_properties(partition)
            if not properties["is_empty"]:
                left[partition] = properties["last_enqueued_sequence_number"]
        done = asyncio.Event()

        async def take(context: Any, events: list[Any]) -> None:
            for event in events:
                bodies.append(b"".join(event.body) + json.dumps(_texts(event.properties)).encode())
                if event.sequence_number >= left.get(context.partition_id, 0):
                    left.pop(context.partition_id, None)
            if not left:
                done.set()

        if left:
            reading = asyncio.create_task(client.receive_batch(take, starting_position="-1", max_wait_time=1))
            try:
                await asyncio.wait_for(done.wait(), READ_SECONDS)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    return bodies


def _table_rows(laptop: Laptop) -> Iterator[tuple[str, bytes]]:
    with TableServiceClient.from_connection_string(laptop.storage_connection) as service:
        for table in service.list_tables():
            for number, row in enumerate(service.get_table_client(table.name).list_entities()):
                yield f"table {table.name} {number}", json.dumps(_texts(row)).encode()


def _blobs(laptop: Laptop) -> Iterator[tuple[str, bytes]]:
    with BlobServiceClient.from_connection_string(laptop.storage_connection) as service:
        for container in service.list_containers():
            client = service.get_container_client(container.name)
            for blob in client.list_blobs(include=["metadata"]):
                content: bytes = client.download_blob(blob.name).readall()
                yield f"blob {container.name}/{blob.name}", content + json.dumps(_texts(blob.metadata)).encode()


def _redis_keys(laptop: Laptop) -> Iterator[tuple[str, bytes]]:
    with redis.Redis.from_url(laptop.redis_url) as client:
        for key in client.scan_iter(count=1000):
            kind = client.type(key)
            value: Any = {
                b"string": lambda key: client.get(key),
                b"hash": lambda key: client.hgetall(key),
                b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
                b"set": lambda key: client.smembers(key),
                b"list": lambda key: client.lrange(key, 0, -1),
                b"stream": lambda key: client.xrange(key),
            }[kind](key)
            yield f"redis {key.decode(errors='replace')}", key + repr(value).encode()


def _texts(values: Any) -> dict[str, str]:
    """Names and values as text; bytes as they are, or a text inside them would not be found."""
    return {_text(name): _text(value) for name, value in (values or {}).items()}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _spellings(text: str) -> Iterator[bytes]:
    plain = text.lower().encode()
    yield plain
    yield plain.hex().encode()
    for shift in range(3):
        # Inside a longer text base64 depends on where it starts; the first and last characters mix with neighbours.
        coded = base64.b64encode(b"\0" * shift + text.encode())
        core = coded[4 if shift else 0 : len(coded) - 4]
        yield core.lower()
        yield core.translate(bytes.maketrans(b"+/", b"-_")).lower()
