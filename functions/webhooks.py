"""Webhooks of other products that meter calls, mapped to usage events."""

from __future__ import annotations

from datetime import UTC, datetime

from functions.auth import USAGE_WRITE
from functions.blueprints import new_blueprint
from functions.http import DEFAULT_TENANT, Answer, Call, door
from functions.usage import source_prefix
from shared.budgets.request import known_tenant
from shared.errors import InvalidRequest
from shared.scopes import validate_scopes
from shared.usage.helicone import SIGNATURE_HEADER

bp = new_blueprint()


@bp.function_name("helicone")
@bp.route(route="webhooks/helicone", methods=["POST"])
@door(USAGE_WRITE)
async def post_helicone(call: Call) -> Answer:
    """Bill a call that Helicone saw. Tenant and scopes stand in the address that an operator set in Helicone:
    `?tenant=contoso&team=search`; what clients of Helicone assert about themselves decides no bill."""
    body = call.body(call.services.settings.max_usage_body_bytes)
    parameters = dict(call.request.params)
    tenant = known_tenant(call.services.config.current, parameters.pop("tenant", DEFAULT_TENANT))
    scopes = validate_scopes(parameters)
    if not scopes:
        raise InvalidRequest("team: the webhook's address must name at least one scope, as ?team=search", param="team")
    signature = call.request.headers.get(SIGNATURE_HEADER)
    prefix = source_prefix(call.principal)
    await call.services.helicone.take(body, signature, tenant, scopes, prefix, datetime.now(UTC))
    return Answer(status=204)
