"""The chargeback door: a tenant's statement for one month."""

from __future__ import annotations

from datetime import UTC, datetime
from tempfile import TemporaryFile

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.downloads import file_headers, require_size
from functions.http import Answer, Call, door
from shared.months import month_of, month_span
from shared.reports.formats import require_format
from shared.scopes import validate_scope_key

bp = new_blueprint()


@bp.function_name("chargeback_report")
@bp.route(route="chargeback/report", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_chargeback_report(call: Call) -> Answer:
    """The statement in one of its forms; of one team, else of all teams that the caller may read."""
    reach = call.reach()
    now = datetime.now(UTC)
    form = require_format(call.query("format") or "json", call.query("focus_version"))
    period = call.query("period") or month_of(now)
    month_span(period)
    team = call.query("team")
    if team is not None:
        reach.require("team", validate_scope_key(team, "team"))
    teams = [team] if team is not None else None if reach.tenant_wide else sorted(reach.teams)
    with TemporaryFile() as out:
        await call.services.reports.write(reach.tenant, period, teams, form, out, now)
        require_size(form.file_name, out.tell(), "format")
        out.seek(0)
        body = out.read()
    headers = file_headers((reach.tenant, team, period, form.file_name), looked_at=form.inline)
    return Answer(body, headers=headers, media_type=form.media_type)
