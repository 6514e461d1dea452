"""Dead letters: events that could not be billed, kept byte for byte with the reason, until somebody replays them.

The key comes from the event's place on the hub, so a redelivered batch does not store its bad events twice; the first
reason stays.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from shared.ledger.codec import INT64, decode_position, integer, literal, position_columns
from shared.ledger.row import Position
from shared.scopes import TENANT_ID

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient
    from azure.storage.blob.aio import ContainerClient

MAX_INLINE_BYTES = 30_000  # larger bodies go to a blob; an entity's binary column ends at 64 KiB
MAX_MESSAGE_CHARS = 2_000
_HUB_KEEPS = timedelta(days=8)  # events, at most; a day more than its longest retention here
_NEWEST_FIRST = 10**15  # past any epoch millisecond: ids count down, so that the newest letter sorts first
_ID = re.compile(r"(hub|body)-[0-9a-f-]{1,80}")
_TEXTS = ("code", "message", "tenant", "event_source", "event_id", "received_at", "replayed_at", "replayed_by")
_LISTED = ["RowKey", *_TEXTS, "stream", "enqueued_ms", "sequence", "size_bytes"]


class DeadLetter(msgspec.Struct, frozen=True):
    """A letter with its body, exactly as it was delivered."""

    id: str
    code: str
    message: str
    body: bytes
    tenant: str | None = None
    position: Position | None = None


class DeadLetters:
    """The table of dead letters and the blobs of the large ones."""

    def __init__(self, table: TableClient, bodies: ContainerClient):
        self._table = table
        self._bodies = bodies

    async def put(self, code: str, message: str, body: bytes, position: Position | None, part: int = 0) -> str:
        """Keep an event; returns the letter's id. The same delivery put again changes nothing.

        `part` tells apart several letters of one message.
        """
        from azure.core.exceptions import ResourceExistsError

        letter_id = letter_key(body, position, part)
        entity: dict[str, Any] = {
            "PartitionKey": _partition(letter_id),
            "RowKey": letter_id,
            "code": code,
            "message": message[:MAX_MESSAGE_CHARS],
            "size_bytes": (len(body), INT64),
            "received_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            **_peek(body),
        }
        if position is not None:
            entity |= position_columns(position)
        if len(body) <= MAX_INLINE_BYTES:
            entity["body"] = body
        else:
            await self._bodies.upload_blob(letter_id, body, overwrite=True)
        try:
            await self._table.create_entity(entity)
        except ResourceExistsError:
            return letter_id
        return letter_id

    async def take(self, ids: Sequence[str]) -> list[DeadLetter]:
        """The letters with their bodies, for putting them back on the hub; unknown ids are left out."""
        letters = await asyncio.gather(*(self._get(letter_id) for letter_id in dict.fromkeys(ids)))
        return [letter for letter in letters if letter is not None]

    async def mark_replayed(self, ids: Iterable[str], who: str) -> None:
        """The letters were put back on the hub by this person. They stay, and may be replayed again."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        marks = [
            {"PartitionKey": _partition(letter_id), "RowKey": letter_id, "replayed_at": now, "replayed_by": who}
            for letter_id in ids
        ]
        await asyncio.gather(*(self._table.update_entity(mark, mode="merge") for mark in marks))

    async def _get(self, letter_id: str) -> DeadLetter | None:
        from azure.core.exceptions import ResourceNotFoundError

        if not _ID.fullmatch(letter_id):
            return None
        try:
            entity = await self._table.get_entity(_partition(letter_id), letter_id)
        except ResourceNotFoundError:
            return None
        body = entity.get("body")
        if body is None:
            body = await (await self._bodies.download_blob(letter_id)).readall()
        return DeadLetter(
            id=letter_id,
            code=entity["code"],
            message=entity["message"],
            body=bytes(body),
            tenant=entity.get("tenant"),
            position=_position(entity),
        )

    async def received_since(self, since_utc: datetime) -> AsyncIterator[tuple[str, str, datetime]]:
        """Code, tenant (empty where the event named none) and time of every letter received since then.

        Hub letters are sorted by when the hub took their events: those older than any hub keeps are not looked at.
        """
        oldest_ms = int((since_utc - _HUB_KEEPS).timestamp() * 1000)
        since = since_utc.isoformat(timespec="milliseconds")
        places = (
            f"PartitionKey eq 'hub' and RowKey lt 'hub-{_NEWEST_FIRST - oldest_ms:015d}'",
            "PartitionKey eq 'body'",
        )
        for place in places:
            condition = f"{place} and received_at ge {literal(since)}"
            async for row in self._table.query_entities(condition, select=["code", "tenant", "received_at"]):
                yield row["code"], row.get("tenant") or "", datetime.fromisoformat(row["received_at"])

    async def list(self, tenant: str | None = None, code: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest letters without their bodies; `tenant` and `code` narrow. Letters of no hub come last."""
        letters: list[dict[str, Any]] = []
        for partition in ("hub", "body"):
            condition = f"PartitionKey eq '{partition}'"
            for column, value in (("tenant", tenant), ("code", code)):
                if value is not None:
                    condition += f" and {column} eq {literal(value)}"
            async for entity in self._table.query_entities(condition, select=_LISTED):
                if len(letters) == limit:
                    return letters
                letters.append(_listing(entity))
        return letters


def letter_key(body: bytes, position: Position | None, part: int = 0) -> str:
    """The id of a letter: from its place on the hub, newest first; from its bytes when it never was on a hub."""
    if position is None:
        return f"body-{blake2b(body, digest_size=16).hexdigest()}"
    text = f"{position.stream}|{position.sequence}" + (f"|{part}" if part else "")
    place = blake2b(text.encode(), digest_size=12).hexdigest()
    return f"hub-{max(_NEWEST_FIRST - position.enqueued_ms, 0):015d}-{place}"


def _partition(letter_id: str) -> str:
    return letter_id.partition("-")[0]


def _peek(body: bytes) -> dict[str, str]:
    """Tenant, source and id of an event that may be anything, for the list; what cannot be read is left out."""
    try:
        event = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(event, dict):
        return {}
    data = event.get("data")
    tenant = data.get("tenant") if isinstance(data, dict) else None
    seen = {"event_source": event.get("source"), "event_id": event.get("id")}
    columns = {name: value[:512] for name, value in seen.items() if isinstance(value, str)}
    if isinstance(tenant, str) and TENANT_ID.fullmatch(tenant):
        columns["tenant"] = tenant
    return columns


def _position(entity: Mapping[str, Any]) -> Position | None:
    return None if entity.get("stream") is None else decode_position(entity)


def _listing(entity: Mapping[str, Any]) -> dict[str, Any]:
    """A letter as the API lists it."""
    position = _position(entity)
    place = None if position is None else position._asdict()
    listing: dict[str, Any] = {"id": entity["RowKey"], **{name: entity.get(name) for name in _TEXTS}}
    return listing | {"size_bytes": integer(entity["size_bytes"]), "position": place}
