"""Dead-letter doors: events that could not be billed, why, and sending them again after a fix."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from functions.auth import CHARGEBACK_ADMIN
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.errors import InvalidRequest
from shared.scopes import validate_tenant

bp = new_blueprint()

MAX_LISTED = 1000
DEFAULT_LISTED = 100
_CODE = re.compile(r"[a-z_]{1,64}")
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class ReplayRequest(msgspec.Struct):
    """The body of `POST /dead-letters/replay`."""

    ids: Annotated[list[_Id], msgspec.Meta(min_length=1, max_length=MAX_LISTED)]


@bp.function_name("dead_letters")
@bp.route(route="dead-letters", methods=["GET"])
@door(CHARGEBACK_ADMIN)
async def get_dead_letters(call: Call) -> Answer:
    """The newest dead letters with code, reason and place on the hub; `tenant`, `code` and `limit` narrow them."""
    tenant, code = call.query("tenant"), call.query("code")
    if tenant is not None:
        validate_tenant(tenant)
    if code is not None and not _CODE.fullmatch(code):
        raise InvalidRequest("code: expected an error code such as id_conflict", param="code")
    letters = await call.services.dead_letters.list(tenant, code, _limit(call))
    return Answer({"dead_letters": letters})


@bp.function_name("dead_letters_replay")
@bp.route(route="dead-letters/replay", methods=["POST"])
@door(CHARGEBACK_ADMIN)
async def post_dead_letters_replay(call: Call) -> Answer:
    """Put dead letters back on the hub byte for byte; however often this is asked, each is billed once at most."""
    report = await call.services.replay.run(call.json(ReplayRequest).ids, call.principal.identity())
    return Answer({"replayed": report.replayed, "unknown": report.unknown}, 202)


def _limit(call: Call) -> int:
    text = call.query("limit")
    if text is None:
        return DEFAULT_LISTED
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_LISTED):
        raise InvalidRequest(f"limit: expected a whole number from 1 to {MAX_LISTED}", param="limit")
    return int(text)
