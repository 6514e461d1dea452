"""Statement doors: which months were published, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.downloads import file_headers, require_size
from functions.http import Answer, Call, door
from functions.reach import Reach
from shared.errors import Forbidden

if TYPE_CHECKING:
    from shared.reports.manifest import Manifest

bp = new_blueprint()


@bp.function_name("statement_list")
@bp.route(route="statements", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_statements(call: Call) -> Answer:
    """The published months, newest first, each with the amounts and files that the caller may see."""
    reach = call.reach()
    manifests = await call.services.published.all(reach.tenant)
    return Answer({"tenant": reach.tenant, "periods": [_period(manifest, reach) for manifest in manifests]})


@bp.function_name("statement_file")
@bp.route(route="statements/{period}/{file}", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_statement_file(call: Call) -> Answer:
    """One file of a month as it was published: a team's with `team`, else the tenant's."""
    reach, team = call.reach(), call.query("team")
    if team is not None:
        reach.require("team", team)
    elif not reach.tenant_wide:
        raise Forbidden(
            "the file of the whole tenant is for its finance people; name your team", code="scope_not_allowed"
        )
    period, name = (call.request.route_params.get(each, "") for each in ("period", "file"))
    file, chunks = await call.services.published.open(reach.tenant, period, name, team)
    require_size(name, file.bytes, "file")
    body = b"".join([chunk async for chunk in chunks])
    looked_at = file.media_type.startswith("text/html")
    headers = file_headers((reach.tenant, team, period, name), looked_at=looked_at) | {"ETag": f'"{file.sha256}"'}
    return Answer(body, headers=headers, media_type=file.media_type)


def _period(manifest: Manifest, reach: Reach) -> dict[str, Any]:
    def seen(team: str | None) -> bool:
        return reach.tenant_wide or (team is not None and team in reach.teams)

    return {
        "period": manifest.period,
        "number": manifest.number,
        "status": manifest.status,
        "as_of": manifest.as_of,
        "currency": manifest.currency,
        "total": manifest.total if reach.tenant_wide else None,
        "notes": list(manifest.notes) if reach.tenant_wide else [],  # they may speak of other teams
        "teams": [{"team": each.team, "total": each.total} for each in manifest.teams if seen(each.team)],
        "files": [_without_path(file) for file in manifest.files if seen(file.team)],
    }


def _without_path(file: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(file).items() if name != "path"}
