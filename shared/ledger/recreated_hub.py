"""Noticing that a hub was deleted and created again: its sequence numbers restarted."""

from __future__ import annotations

import logging

from shared.ledger.row import Position
from shared.notify.outbox import Outbox

log = logging.getLogger("tollkeeper.hub")


async def notice_recreated_hub(outbox: Outbox, known: Position | None, seen: Position) -> None:
    """Alert, once, when `seen` on a stream has a lower number than `known` although it was enqueued later.

    Nothing is lost by it here, because positions are ordered by time first; but the trigger's checkpoints point into
    the old hub, and only an operator can remove them.
    """
    # Not by the order of positions: within its slack a hub created anew at once would look like a redelivery.
    if known is None or seen.sequence >= known.sequence or seen.enqueued_ms <= known.enqueued_ms:
        return
    log.error("hub_recreated", extra={"stream": seen.stream, "sequence": seen.sequence})
    payload = {"stream": seen.stream, "was": known.sequence, "now": seen.sequence}
    await outbox.add_once(f"hub_recreated|{seen.stream}|{known.enqueued_ms}", "hub_recreated", payload)
