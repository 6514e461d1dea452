"""Resets and opening balances: a grant row in the ledger says who moved which counter and why; the counter follows.

It travels as an event on the usage hub like everything that moves counters, so it is applied exactly once and survives
a rebuild. The bill is untouched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from shared.budgets.spend import SpendService
from shared.errors import InvalidRequest, NotFound
from shared.money import decimal_from_nano, nano_from_decimal
from shared.scopes import CONTROL_CHARACTER, validate_scope_key
from shared.usage.build import Publish, grant_event_bytes, partition_key

FirstHeard = Callable[[str, str, datetime], Awaitable[datetime]]


class ResetService:
    """Sets what a scope has spent in its open periods, by a row that says who and why."""

    def __init__(self, spend: SpendService, publish: Publish, first_heard: FirstHeard) -> None:
        """`first_heard(source, key, now)` gives the instant a key was first used, for a retry to repeat."""
        self._spend = spend
        self._publish = publish
        self._first_heard = first_heard

    async def reset(
        self, tenant: str, scope: str, who: str, why: str, *, spent: str = "0.00", period: str | None = None, key: str
    ) -> dict[str, Any]:
        """Publish one grant per counter of `scope` (`type:key`), of one period kind when `period` names it.

        `spent` is the USD the counter shall show; an opening balance is a reset to what was spent before. `key` makes
        the request idempotent: it is granted once, however often it is sent. Raises InvalidRequest, Forbidden and
        NotFound.
        """
        scope_type, separator, scope_key = scope.partition(":")
        if not separator:
            raise InvalidRequest("scope: expected type:key, such as team:search", param="scope")
        if not why.strip():
            raise InvalidRequest("why: say the reason; it stands in the ledger", param="why")
        if CONTROL_CHARACTER.search(why):
            # As an event it would be a dead letter after this answer had said that it was granted.
            raise InvalidRequest("why: control characters are not allowed", param="why")
        try:
            target_nano_usd = nano_from_decimal(spent)
        except ValueError as error:
            raise InvalidRequest(f"spent: {error}", param="spent") from None
        if target_nano_usd < 0:
            raise InvalidRequest("spent: must not be negative", param="spent")
        rows = await self._spend.one(tenant, scope_type, validate_scope_key(scope_key, "scope"))
        counters = {row["cell"]: row for row in rows if period is None or row["cell"].split("|")[1] == period}
        if not counters:
            raise NotFound(f"scope: no budget of tenant {tenant!r} counts {scope!r}", param="scope")
        grants, events = [], []
        source = f"tollkeeper/reset/{tenant}"
        # A retry stamped anew would land in another ledger hour and be granted twice.
        time_utc = await self._first_heard(source, key, datetime.now(UTC))
        for cell_id, row in sorted(counters.items()):
            amount = target_nano_usd - nano_from_decimal(row["spent"])
            grants.append({"cell": cell_id, "period": row["period"], "amount": decimal_from_nano(amount)})
            # A digest, because an encoded cell may be longer than an event's id can be.
            event_id = f"{key}/{blake2b(cell_id.encode(), digest_size=16).hexdigest()}"
            body = grant_event_bytes(
                source, event_id, time_utc, tenant=tenant, cell=cell_id, amount_nano_usd=amount, who=who, why=why
            )
            events.append((partition_key(source, event_id), body))
        await self._publish(events)
        return {"accepted": len(grants), "tenant": tenant, "scope": scope, "grants": grants}
