"""The outbox: notifications, each added at most once for ever under a key, kept until one was sent."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

_PARTITION = "outbox"
_decode_payload = msgspec.json.Decoder(dict[str, Any]).decode


class Notice(msgspec.Struct, frozen=True):
    """One notification that waits to be sent."""

    id: str
    key: str
    kind: str
    payload: dict[str, Any]
    added_at: str


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
            "RowKey": f"waiting-{digest}",
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
        condition = f"PartitionKey eq '{_PARTITION}' and RowKey ge 'waiting-' and RowKey lt 'waiting.'"
        pages = self._table.query_entities(condition, results_per_page=min(limit, 1000))
        notices: list[Notice] = []
        async for row in pages:
            payload = _decode_payload(row["payload"])
            notices.append(Notice(row["RowKey"], row["key"], row["kind"], payload, row["added_at"]))
            if len(notices) == limit:
                break
        return notices

    async def mark_sent(self, notice_id: str) -> None:
        """The notice was delivered. Sending and marking are two steps: after a crash between them it is sent again."""
        await self._table.delete_entity(_PARTITION, notice_id)
