"""The dashboard's doors: the page itself, which holds no figures, and who is looking at it."""

from __future__ import annotations

from typing import Any

import azure.functions as func

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ, ENTRA
from functions.blueprints import new_blueprint
from functions.dashboard_page.page import dashboard_page
from functions.http import Answer, Call, door, page
from functions.reach import Reach, reaches

bp = new_blueprint()

_HERE = "/api/v1/dashboard"
_SIGN_OUT = f"/.auth/logout?post_logout_redirect_uri={_HERE}"


@bp.function_name("dashboard")
@bp.route(route="dashboard", methods=["GET"])
@page
def get_dashboard(req: func.HttpRequest) -> Answer:
    """The page for anybody, the same for everybody: all figures come from the other doors, which ask who calls."""
    found = dashboard_page()
    headers = {**found.headers, "ETag": found.etag}
    if found.etag in req.headers.get("if-none-match", ""):
        return Answer(None, 304, headers)
    if "gzip" in req.headers.get("accept-encoding", ""):
        return Answer(found.zipped, headers={**headers, "Content-Encoding": "gzip"}, media_type="text/html")
    return Answer(found.html, headers=headers, media_type="text/html")


@bp.function_name("me")
@bp.route(route="me", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_me(call: Call) -> Answer:
    """The caller, their roles, and the tenants and teams they may read."""
    settings, who = call.services.settings, call.principal
    return Answer(
        {
            "id": who.identity(),
            "name": who.name,
            "roles": sorted(who.roles),
            "admin": who.has_any((CHARGEBACK_ADMIN,)),
            "environment": settings.environment,
            "sign_out": None if settings.environment == "development" else _SIGN_OUT,
            "sign_in": f"/.auth/login/{ENTRA}?post_login_redirect_uri={_HERE}",
            "tenants": [_tenant(each) for each in reaches(who, call.services.config.current)],
        }
    )


def _tenant(reach: Reach) -> dict[str, Any]:
    return {"id": reach.tenant, "tenant_wide": reach.tenant_wide, "teams": sorted(reach.teams)}
