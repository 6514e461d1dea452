"""Display names of users. They live here and nowhere else, so that a name can be erased and no sum changes.

The ledger, the counters, events and logs know a user by a key alone: an object id, or an HMAC. Reports and the
dashboard ask here what to show for it, and show the key when there is no answer. The export of the ledger leaves this
table out: what was erased must not come back with a restore.
"""

from __future__ import annotations

import logging
import unicodedata
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from shared.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

log = logging.getLogger("tollkeeper.names")

MAX_NAME_CHARS = 200
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp", "Cf")  # Cf: what turns the direction of text around


class DisplayName(msgspec.Struct, frozen=True):
    """What to show for a user, and who said so when."""

    name: str
    who: str  # object id
    at_utc: datetime


class Names:
    """The table of names: PartitionKey tenant, RowKey a digest of the user's key."""

    def __init__(self, table: TableClient) -> None:
        self._table = table

    async def all(self, tenant: str) -> dict[str, DisplayName]:
        """The names of a tenant's users by their keys."""
        query = self._table.query_entities("PartitionKey eq @tenant", parameters={"tenant": tenant})
        return {
            entity["user"]: DisplayName(entity["name"], entity["who"], datetime.fromisoformat(entity["at"]))
            async for entity in query
        }

    async def put(self, tenant: str, user: str, name: str, who: str) -> DisplayName:
        """Give a user a name, or another one. Raises InvalidRequest."""
        cleaned = name.strip()
        if not 0 < len(cleaned) <= MAX_NAME_CHARS or any(unicodedata.category(c) in _UNPRINTABLE for c in cleaned):
            expected = f"expected 1 to {MAX_NAME_CHARS} printable characters"
            raise InvalidRequest(f"name: {expected}", param="name")
        said = DisplayName(cleaned, who, datetime.now(UTC))
        entity = {**_keys(tenant, user), "user": user, "name": cleaned, "who": who, "at": said.at_utc.isoformat()}
        await self._table.upsert_entity(entity, mode="replace")
        return said

    async def erase(self, tenant: str, user: str) -> None:
        """Forget a user's name. Raises NotFound when there is none."""
        if user not in await self.all(tenant):
            raise NotFound("user: this user has no name here", param="user")
        keys = _keys(tenant, user)
        await self._table.delete_entity(keys["PartitionKey"], keys["RowKey"])
        log.info("name_erased", extra={"tenant": tenant})


def _keys(tenant: str, user: str) -> dict[str, str]:
    return {"PartitionKey": tenant, "RowKey": blake2b(user.encode(), digest_size=16).hexdigest()}
