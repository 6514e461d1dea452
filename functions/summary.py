"""The summary door: sums of usage over any stretch of time, by any cross product of dimensions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ, require_role
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from functions.reach import Reach
from shared.errors import InvalidRequest
from shared.months import month_of, month_span
from shared.scopes import SCOPE_TYPE

bp = new_blueprint()

ALL_TENANTS = "*"
MAX_GROUPS = 8
MAX_SPAN = timedelta(days=400)
_OWN_PARAMETERS = ("tenant", "from", "to", "group_by")


@bp.function_name("usage_summary")
@bp.route(route="usage/summary", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_usage_summary(call: Call) -> Answer:
    """Requests, tokens, cost and its measured share, per group. Any other parameter filters: `team=search`.

    `tenant=*` sums over all tenants, for admins; `group_by=tenant,...` then tells them apart.
    """
    of_all = call.query("tenant") == ALL_TENANTS
    if of_all:
        require_role(call.principal, (CHARGEBACK_ADMIN,))
    reach = Reach(ALL_TENANTS, tenant_wide=True) if of_all else call.reach()
    now = datetime.now(UTC)
    start = parse_instant(call.query("from"), "from", month_span(month_of(now))[0])
    end = parse_instant(call.query("to"), "to", now)
    if start >= end or end - start > MAX_SPAN:
        raise InvalidRequest(f"to: expected an instant after `from`, at most {MAX_SPAN.days} days", param="to")
    group_by = _dimensions(call.query("group_by") or "team")
    tenant = None if of_all else reach.tenant
    rows = await call.services.summaries.summarize(tenant, start, end, group_by, _filters(call, reach))
    span = {"from": start, "to": end}
    return Answer({"tenant": reach.tenant, **span, "group_by": group_by, "currency": "USD", "rows": rows})


def parse_instant(text: str | None, param: str, default: datetime) -> datetime:
    """An RFC 3339 instant, or a date that means its first moment in UTC. Raises InvalidRequest."""
    if text is None:
        return default
    try:
        instant = datetime.fromisoformat(text.replace(" ", "+"))  # a `+` of an offset arrives as a space
    except ValueError:
        expected = "expected a date or an RFC 3339 instant such as 2026-11-01T00:00:00Z"
        raise InvalidRequest(f"{param}: {expected}, got {text[:40]!r}", param=param) from None
    if not 2000 <= instant.year <= 2100:
        raise InvalidRequest(f"{param}: expected a year from 2000 to 2100", param=param)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def values_of(text: str) -> list[str]:
    """What stands between the commas. A comma of a value itself has a backslash before it, and so has a backslash."""
    return [re.sub(r"\\([\\,])", r"\1", value) for value in re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL)]


def _dimensions(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not 0 < len(names) <= MAX_GROUPS:
        raise InvalidRequest(f"group_by: expected 1 to {MAX_GROUPS} names", param="group_by")
    for name in names:
        if not SCOPE_TYPE.fullmatch(name):
            raise InvalidRequest(f"group_by: {name[:40]!r} is no dimension and no scope type", param="group_by")
    return names


def _filters(call: Call, reach: Reach) -> dict[str, list[str]]:
    """Dimension -> values to keep. A reader of own teams is held to them, and refused for naming another."""
    filters: dict[str, list[str]] = {}
    for name, value in call.request.params.items():
        if name in _OWN_PARAMETERS or not value:
            continue
        if not SCOPE_TYPE.fullmatch(name):
            raise InvalidRequest(f"{name[:40]}: is no parameter, dimension or scope type", param=name[:40])
        filters[name] = values_of(value)
    if not reach.tenant_wide:
        for team in filters.get("team", ()):
            reach.require("team", team)
        filters.setdefault("team", sorted(reach.teams))
    return filters
