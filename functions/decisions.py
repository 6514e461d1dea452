"""The decisions door: what budgets decided of late, newest first."""

from __future__ import annotations

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.errors import InvalidRequest

bp = new_blueprint()

DEFAULT_LIMIT = 100
MAX_LIMIT = 500


@bp.function_name("decisions")
@bp.route(route="decisions", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_decisions(call: Call) -> Answer:
    """Refusals, downgrades and warnings of the tenant, with a sample of what passed; of the caller's teams only."""
    reach = call.reach()
    limit = _limit(call.query("limit"))
    teams = None if reach.tenant_wide else reach.teams
    found = await call.services.recent_decisions.newest(reach.tenant, limit, teams, reach.covers)
    return Answer({"tenant": reach.tenant, "decisions": found})


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidRequest(f"limit: expected a whole number from 1 to {MAX_LIMIT}, got {text[:40]!r}", param="limit")
