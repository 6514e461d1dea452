"""The doors of display names: what reports show for a user, and erasing it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.scopes import validate_scope_key

bp = new_blueprint()


class NameRequest(msgspec.Struct):
    """The body of `PUT /names/users/{key}`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


@bp.function_name("names")
@bp.route(route="names/users", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_names(call: Call) -> Answer:
    """What to show for the users whose counters the caller may see."""
    reach = call.reach()
    names = await call.services.names.all(reach.tenant)
    users = [{"user": user, "name": found.name} for user, found in sorted(names.items()) if reach.covers("user", user)]
    return Answer({"tenant": reach.tenant, "users": users})


@bp.function_name("names_put")
@bp.route(route="names/users/{*user}", methods=["PUT"])  # a catch-all: keys may hold slashes
@door(CHARGEBACK_ADMIN)
async def put_name(call: Call) -> Answer:
    """Give a user a display name, or another one."""
    tenant, user = call.reach().tenant, _user(call)
    said = await call.services.names.put(tenant, user, call.json(NameRequest).name, call.principal.identity())
    return Answer({"tenant": tenant, "user": user, "name": said.name, "who": said.who, "at": said.at_utc})


@bp.function_name("names_delete")
@bp.route(route="names/users/{*user}", methods=["DELETE"])
@door(CHARGEBACK_ADMIN)
async def delete_name(call: Call) -> Answer:
    """Erase a user's display name. No sum changes."""
    await call.services.names.erase(call.reach().tenant, _user(call))
    return Answer(status=204)


def _user(call: Call) -> str:
    """The key that the ledger has, whether the request names it or the address it stands for."""
    key = validate_scope_key(call.request.route_params.get("user", ""), "user")
    return call.services.pseudonyms.key("user", key)
