"""The watermark: the instant up to which every event on the hub has been processed. Holds may expire only below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.ledger.recreated_hub import notice_recreated_hub
from shared.ledger.row import Position
from shared.notify.outbox import Outbox
from shared.usage.hub import PartitionState


async def find_watermark_ms(
    hub: str, ends: Iterable[PartitionState], progress: Mapping[str, Position], now_ms: int, outbox: Outbox
) -> int | None:
    """The watermark by how far each stream was processed; None when it cannot be told. Notices a hub made anew."""
    behind = []
    for end in ends:
        suffix = f"/{hub}/{end.partition}"
        reached = max(
            (position for stream, position in progress.items() if stream.endswith(suffix)),
            key=lambda position: position.enqueued_ms,
            default=None,
        )
        if end.empty:
            continue
        if reached is None:
            return None
        last = Position(reached.stream, end.last_enqueued_ms, end.last_sequence)
        await notice_recreated_hub(outbox, reached, last)
        if not last.at_or_before(reached):
            behind.append(reached.enqueued_ms)
    return min(behind, default=now_ms)
