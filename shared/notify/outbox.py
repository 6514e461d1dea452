"""The outbox: notifications, each added at most once for ever under a key, kept until every route is done with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from shared.notify.notice import Notice, Progress

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

_PARTITION = "outbox"
_WAITING, _GIVEN_UP = "waiting-", "dead-"
_decode_payload = msgspec.json.Decoder(dict[str, Any]).decode
_decode_progress = msgspec.json.Decoder(dict[str, Progress]).decode


class Outbox:
    """The table of notifications.

    Two entities in one transaction: the key, kept for ever so that a replayed crossing never notifies again, and the
    waiting notice, deleted when sent. So the waiting ones are a short range, however many were ever sent.
    """

    def __init__(self, table: TableClient):
        self._table = table

    async def add_once(self, key: str, kind: str, payload: dict[str, Any]) -> bool:
        """Add a notice unless its key was ever added; whether it was added now."""
        from azure.data.tables import TableErrorCode, TableTransactionError

        digest = blake2b(key.encode(), digest_size=16).hexdigest()
        once = {"PartitionKey": _PARTITION, "RowKey": f"key-{digest}", "key": key[:1000], "kind": kind}
        waiting = once | {
            "RowKey": f"{_WAITING}{digest}",
            "payload": msgspec.json.encode(payload).decode(),
            "added_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            await self._table.submit_transaction([("create", once), ("create", waiting)])
        except TableTransactionError as error:
            if getattr(error, "error_code", None) == TableErrorCode.ENTITY_ALREADY_EXISTS:
                return False
            raise
        return True

    async def waiting(self, limit: int = 100) -> list[Notice]:
        """Notices that were not sent yet, in no particular order."""
        return [notice async for notice in self._of(_WAITING, limit)]

    async def unclaimed(self, now_utc: datetime) -> list[Notice]:
        """The waiting notices that nobody is sending, the oldest first."""
        free = [
            notice
            async for notice in self._of(_WAITING, None)
            if not notice.claimed_until or datetime.fromisoformat(notice.claimed_until) <= now_utc
        ]
        return sorted(free, key=lambda notice: notice.added_at)

    async def given_up(self, limit: int = 100) -> list[Notice]:
        """Notices that a route could not deliver for days; the reasons are in their progress."""
        return [notice async for notice in self._of(_GIVEN_UP, limit)]

    async def claim(self, notice: Notice, now_utc: datetime, seconds: float) -> Notice | None:
        """The notice for this worker alone until the time is over; None when another was faster or has sent it."""
        until = (now_utc + timedelta(seconds=seconds)).isoformat()
        return await self._update(notice, claimed_until=until)

    async def record(self, notice: Notice, progress: Mapping[str, Progress], *, release: bool = False) -> Notice | None:
        """Keep how far the routes have come; None when the claim was over and another worker has taken the notice."""
        changes: dict[str, Any] = {"progress": progress}
        return await self._update(notice, **(changes | {"claimed_until": ""} if release else changes))

    async def mark_sent(self, notice_id: str) -> None:
        """No route has anything left to do with it. Sending and marking are two steps: after a crash between them it
        is sent again.
        """
        await self._table.delete_entity(_PARTITION, notice_id)

    async def give_up(self, notice: Notice) -> None:
        """Keep the notice apart from the waiting ones, with the reasons, for a person to see."""
        entity = _entity(notice) | {"RowKey": f"{_GIVEN_UP}{notice.digest}", "claimed_until": ""}
        waiting = {"PartitionKey": _PARTITION, "RowKey": notice.id}
        await self._table.submit_transaction([("upsert", entity), ("delete", waiting)])

    async def _of(self, prefix: str, limit: int | None) -> AsyncIterator[Notice]:
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        condition = f"PartitionKey eq '{_PARTITION}' and RowKey ge '{prefix}' and RowKey lt '{after}'"
        count = 0
        async for row in self._table.query_entities(condition, results_per_page=min(limit or 1000, 1000)):
            yield _notice(row)
            count += 1
            if count == limit:
                return

    async def _update(self, notice: Notice, **changes: Any) -> Notice | None:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        changed = msgspec.structs.replace(notice, **changes)
        try:
            done = await self._table.update_entity(
                _entity(changed), mode="merge", etag=notice.version, match_condition=MatchConditions.IfNotModified
            )
        except (ResourceModifiedError, ResourceNotFoundError):
            return None
        return msgspec.structs.replace(changed, version=str(done["etag"]))


def _entity(notice: Notice) -> dict[str, Any]:
    return {
        "PartitionKey": _PARTITION,
        "RowKey": notice.id,
        "key": notice.key,
        "kind": notice.kind,
        "payload": msgspec.json.encode(notice.payload).decode(),
        "added_at": notice.added_at,
        "progress": msgspec.json.encode(notice.progress).decode(),
        "claimed_until": notice.claimed_until,
    }


def _notice(row: Any) -> Notice:
    """From an entity; one of an earlier version has no progress yet."""
    return Notice(
        id=row["RowKey"],
        key=row["key"],
        kind=row["kind"],
        payload=_decode_payload(row["payload"]),
        added_at=row["added_at"],
        progress=_decode_progress(row.get("progress") or "{}"),
        claimed_until=row.get("claimed_until") or "",
        version=row.metadata["etag"],
    )
