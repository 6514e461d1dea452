"""Outlook doors: where the month of a tenant and its teams is heading, and which days were unusual."""

from __future__ import annotations

from datetime import UTC, datetime

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from functions.reach import Reach
from shared.errors import InvalidRequest
from shared.scopes import validate_scope_key

bp = new_blueprint()

DEFAULT_DAYS, MAX_DAYS = 14, 31


@bp.function_name("forecast")
@bp.route(route="forecast", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_forecast(call: Call) -> Answer:
    """The running month of the tenant and of each team, or of one team, with range and method."""
    reach = call.reach()
    return Answer(await call.services.forecasts.month(reach.tenant, _teams(call, reach), datetime.now(UTC)))


@bp.function_name("anomalies")
@bp.route(route="anomalies", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_anomalies(call: Call) -> Answer:
    """Days of the last two weeks on which the tenant, a team or a model of a team cost far more than usual."""
    reach = call.reach()
    teams, days = _teams(call, reach), _days(call.query("days"))
    found = await call.services.anomalies.find(reach.tenant, teams, days, datetime.now(UTC))
    return Answer({"tenant": reach.tenant, "days": days, "currency": "USD", "anomalies": [a.body() for a in found]})


def _teams(call: Call, reach: Reach) -> list[str] | None:
    """The teams asked for, else those the caller may see; None: the whole tenant."""
    team = call.query("team")
    if team is None:
        return None if reach.tenant_wide else sorted(reach.teams)
    reach.require("team", validate_scope_key(team, "team"))
    return [team]


def _days(text: str | None) -> int:
    if text is None:
        return DEFAULT_DAYS
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= MAX_DAYS):
        raise InvalidRequest(f"days: expected a whole number from 1 to {MAX_DAYS}, got {text[:20]!r}", param="days")
    return int(text)
