"""log-to-eventhub: a message to a hub, without waiting and without hearing whether it arrived."""

from __future__ import annotations

from local.apim.call import Call
from local.apim.document import Node
from local.apim.errors import CallFailed
from local.apim.schema import ALL_SECTIONS, Attribute, Element, Policy, literal

MAX_MESSAGE_BYTES = 200 * 1024


async def run_log(call: Call, node: Node) -> None:
    """Hand the message over; longer ones are cut without a word, as API Management does."""
    logger_id = node.attributes["logger-id"].text
    if logger_id not in call.gateway.options.loggers:
        raise CallFailed("LoggerNotFound", f"there is no logger {logger_id!r}")
    message = (await call.text(node, "text")).encode()[:MAX_MESSAGE_BYTES]
    partition_key = await call.text(node, "partition-key") or None
    call.gateway.log_event(logger_id, partition_key, message.decode("utf-8", "ignore"))


_LOG = Element(attributes={"logger-id": literal(required=True), "partition-key": Attribute()}, text="required")

POLICIES = (Policy("log-to-eventhub", ALL_SECTIONS, _LOG, run_log),)
