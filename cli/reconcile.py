"""`tollkeeper reconcile`: the Azure invoice against the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.options import AsJson
from cli.output import as_json, progress, say, table
from cli.run import run
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.months import month_span


def reconcile(
    period: Annotated[str, typer.Argument(metavar="MONTH", help="A month such as 2026-10.")],
    published: Annotated[
        bool, typer.Option("--published", help="Only show what was compared last; compare nothing.")
    ] = False,
    tenant: Annotated[str | None, typer.Option(help="With --published: the accounts that are this tenant's.")] = None,
    json: AsJson = False,
) -> None:
    """Compare a month of the invoice's exports with the ledger, publish the variance, and open corrections above the
    tolerance once the month is final."""
    if tenant is not None and not published:
        raise InvalidRequest("--tenant: a comparison is of all accounts; add --published to see one's", param="tenant")
    month_span(period)

    async def work(services: Services) -> dict[str, Any]:
        if published:
            return await services.reconciliation.latest(tenant, period)
        return await services.reconciliation.run(period, datetime.now(UTC))

    with progress(f"Comparing {period}"):
        body = run(work)
    if json:
        as_json(body)
    else:
        _show(body)


def _show(body: dict[str, Any]) -> None:
    totals = body["totals"]
    percent = totals["variance_percent"]
    say(
        f"{body['period']}, {body['status']}: invoice {totals['invoice']} USD, ledger {totals['ledger']}, "
        f"corrected {totals['corrected']}, variance {totals['variance']}" + (f" ({percent} %)" if percent else "")
    )
    for text in [*body.get("problems", ()), *body.get("notes", ())]:
        say(f"note: {text}")
    names = {"account": False, "meter": False, "invoice": True, "ledger": True, "corrected": True, "variance": True}
    columns = {**names, "%": True, "verdict": False}
    keys = (*names, "variance_percent", "verdict")
    table("Meters in USD", columns, [[meter[key] for key in keys] for meter in body["meters"]])
    for each in body["unmatched"]:
        say(f"unmatched: {each['account']} {each['meter']}: {each['amount']} USD in {each['rows']} rows")
    for each in body["corrections"]:
        say(f"correction: {each['tenant']}/{each['team'] or '-'} {each['amount']} USD: {each['why']}")
