"""The chargeback door: a tenant's statement for one month."""

from __future__ import annotations

from datetime import UTC, datetime
from tempfile import TemporaryFile

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.months import month_of, month_span
from shared.reports.formats import require_format

bp = new_blueprint()


@bp.function_name("chargeback_report")
@bp.route(route="chargeback/report", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_chargeback_report(call: Call) -> Answer:
    """The statement in one of its forms; of the caller's own teams unless they read the whole tenant."""
    reach = call.reach()
    now = datetime.now(UTC)
    form = require_format(call.query("format") or "json", call.query("focus_version"))
    period = call.query("period") or month_of(now)
    month_span(period)
    teams = None if reach.tenant_wide else sorted(reach.teams)
    with TemporaryFile() as out:
        await call.services.reports.write(reach.tenant, period, teams, form, out, now)
        out.seek(0)
        body = out.read()
    name = f"{reach.tenant}-{period}-{form.file_name}"
    headers = {} if form.inline else {"Content-Disposition": f'attachment; filename="{name}"'}
    return Answer(body, headers=headers, media_type=form.media_type)
