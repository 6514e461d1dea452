"""The re-rate door: rate calls again whose price was corrected, or that had none."""

from __future__ import annotations

from typing import Annotated

import msgspec

from functions.auth import CHARGEBACK_ADMIN
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from functions.summary import parse_instant
from shared.errors import InvalidRequest
from shared.months import month_span

bp = new_blueprint()

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Instant = Annotated[str, msgspec.Meta(max_length=64)]


class ReRateRequest(msgspec.Struct):
    """The body of `POST /re-rate`."""

    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    why: _Text  # stands in the ledger beside each row
    period: Annotated[str, msgspec.Meta(max_length=16)] | None = None  # a month; else `from` and `to`
    start: _Instant | None = msgspec.field(default=None, name="from")
    end: _Instant | None = msgspec.field(default=None, name="to")
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None  # all models when absent
    dry_run: bool = False


@bp.function_name("re_rate")
@bp.route(route="re-rate", methods=["POST"])
@door(CHARGEBACK_ADMIN)
async def post_re_rate(call: Call) -> Answer:
    """Rate a tenant's calls of a month or a span again by the prices in force; `dry_run` says what would change."""
    wanted = call.json(ReRateRequest)
    if wanted.period is not None:
        if wanted.start or wanted.end:
            raise InvalidRequest("period: cannot stand beside `from` and `to`", param="period")
        start, end = month_span(wanted.period)
    elif wanted.start and wanted.end:
        instants = ((wanted.start, "from"), (wanted.end, "to"))
        start, end = (parse_instant(text, name, month_span("2000-01")[0]) for text, name in instants)
    else:
        raise InvalidRequest("period: required, such as 2026-11, unless `from` and `to` are given", param="period")
    report = await call.services.re_rate.re_rate(
        wanted.tenant,
        start,
        end,
        call.principal.identity(),
        wanted.why,
        key=call.idempotency_key(),
        model=wanted.model,
        dry_run=wanted.dry_run,
    )
    return Answer(
        {"tenant": wanted.tenant, "from": start, "to": end, **report.as_json()}, 200 if wanted.dry_run else 202
    )
