"""The chargeback door: a tenant's statement for one month."""

from __future__ import annotations

from datetime import UTC, datetime

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.months import month_of, month_span
from shared.reports.render import render, require_format

bp = new_blueprint()


@bp.function_name("chargeback_report")
@bp.route(route="chargeback/report", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_chargeback_report(call: Call) -> Answer:
    """The statement as JSON or CSV; of the caller's own teams unless they read the whole tenant."""
    reach = call.reach()
    now = datetime.now(UTC)
    wanted = require_format(call.query("format") or "json")
    period = call.query("period") or month_of(now)
    month_span(period)
    teams = None if reach.tenant_wide else sorted(reach.teams)
    rendering = render(await call.services.reports.statement(reach.tenant, period, teams, now), wanted)
    name = f"statement-{reach.tenant}-{period}.{rendering.extension}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'} if wanted == "csv" else {}
    return Answer(rendering.body, headers=headers, media_type=rendering.media_type)
