"""The LLM log door: what the gateway's diagnostic setting says each call used, in batches."""

from __future__ import annotations

from typing import List  # noqa: UP035 - see llm_logs()

import azure.functions as func

from functions.blueprints import new_blueprint
from functions.ingest import position_of, stream_of

bp = new_blueprint()


@bp.function_name("llm_logs")
@bp.event_hub_message_trigger(
    arg_name="events",
    event_hub_name="%LLM_LOGS_HUB%",
    connection="LlmLogs",
    consumer_group="%LLM_LOGS_CONSUMER_GROUP%",
    cardinality=func.Cardinality.MANY,
    data_type=func.DataType.BINARY,
)
@bp.retry(strategy="fixed_delay", max_retry_count="-1", delay_interval="00:00:02")  # -1: until it succeeds
async def llm_logs(events: List[func.EventHubEvent]) -> None:  # noqa: UP006 - the worker refuses to load list[...]
    """Take a batch. Raises unless every record is durably kept, matched or among the dead letters.

    The host moves its checkpoint past a batch whose retries are used up: with a limit, an outage of the stores would
    leave its streams at their estimates for ever.
    """
    from shared.bootstrap import app
    from shared.ledger.delivery import Delivery

    stream = stream_of(events[0].metadata)
    await (await app()).llm_logs.run([Delivery(event.get_body(), position_of(event, stream)) for event in events])
