"""The hub door: usage events in batches, from one partition at a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, List  # noqa: UP035 - see ingest()

import azure.functions as func

from functions.blueprints import new_blueprint
from shared.instants import epoch_ms
from shared.ledger.row import Position

bp = new_blueprint()


@bp.function_name("ingest")
@bp.event_hub_message_trigger(
    arg_name="events",
    event_hub_name="%USAGE_HUB%",
    connection="EventHubs",
    consumer_group="%USAGE_CONSUMER_GROUP%",
    cardinality=func.Cardinality.MANY,
    data_type=func.DataType.BINARY,  # the bytes as they were sent: their digest tells a retry from a conflict
)
@bp.retry(strategy="fixed_delay", max_retry_count="-1", delay_interval="00:00:02")  # -1: until it succeeds
async def ingest(events: List[func.EventHubEvent]) -> None:  # noqa: UP006 - the worker refuses to load list[...]
    """Bill a batch. Raises unless every event is durably in the ledger or the dead letters.

    The host moves its checkpoint past a batch whose retries are used up, so with any limit an outage of the stores
    longer than the retries would lose the batch's money without a trace.
    """
    from shared.bootstrap import app
    from shared.ledger.delivery import Delivery

    stream = stream_of(events[0].metadata)
    await (await app()).ingest.run([Delivery(event.get_body(), position_of(event, stream)) for event in events])


def stream_of(metadata: Mapping[str, Any] | None) -> str:
    """`namespace/hub/partition` of a batch. Raises KeyError when the host did not say, because marks hang on it."""
    context = (metadata or {})["PartitionContext"]
    return f"{context['FullyQualifiedNamespace']}/{context['EventHubName']}/{context['PartitionId']}"


def position_of(event: func.EventHubEvent, stream: str) -> Position:
    """Where the event stands in its stream. Raises ValueError when the host gave no time or number."""
    enqueued: datetime | None = event.enqueued_time
    sequence: int | None = event.sequence_number
    if enqueued is None or sequence is None:
        raise ValueError(f"an event of {stream} came without enqueued time or sequence number")
    return Position(stream, epoch_ms(enqueued), sequence)
