"""The usage door: events of emitters that speak HTTP rather than AMQP, put on the same hub."""

from __future__ import annotations

from datetime import UTC, datetime

from functions.auth import CHARGEBACK_ADMIN, USAGE_WRITE, Principal
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.usage.build import partition_key_of
from shared.usage.events import decode_http

bp = new_blueprint()


@bp.function_name("usage")
@bp.route(route="usage", methods=["POST"])
@door(USAGE_WRITE)
async def post_usage(call: Call) -> Answer:
    """Take one CloudEvent or a batch: 202 with what was accepted and what was not, and why."""
    body = call.body(call.services.settings.max_usage_body_bytes)
    content_type = call.request.headers.get("content-type") or ""
    accepted, rejected = decode_http(content_type, body, datetime.now(UTC), source_prefix(call.principal))
    if accepted:
        events = map(call.services.pseudonyms.event, accepted)
        await call.services.publisher.publish([(partition_key_of(event), event) for event in events])
    return Answer({"accepted": len(accepted), "rejected": rejected}, 202)


def source_prefix(principal: Principal) -> str | None:
    """What goes in front of the `source` of this caller's events, so that nobody can claim the ids of another emitter.

    Whoever sends an id first decides what it costs: without the prefix a stranger could send another gateway's ids at
    zero cost and its real events would be dropped as duplicates. Admins import and correct, so theirs stays as it is.
    """
    return None if principal.has_any((CHARGEBACK_ADMIN,)) else f"http/{principal.identity()}"
