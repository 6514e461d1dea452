"""`tollkeeper export`, `restore` and `re-rate`: the care of the ledger."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from cli.options import AsJson, Tenant, Why
from cli.output import as_json, say
from cli.run import run
from shared.bootstrap import Services
from shared.ledger.rerate import RerateReport
from shared.months import month_span


def re_rate(
    period: Annotated[str, typer.Option(help="The month whose calls are rated again, such as 2026-11.")],
    why: Why,
    tenant: Tenant = "default",
    model: Annotated[str | None, typer.Option(help="Only calls of this model.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Rate calls again at the prices in force: those without a price, and those whose price was corrected."""
    start_utc, end_utc = month_span(period)

    async def work(services: Services) -> RerateReport:
        who = await services.operator()
        return await services.re_rate.re_rate(
            tenant, start_utc, end_utc, who, why, key=uuid.uuid4().hex, model=model, dry_run=dry_run
        )

    body = run(work).as_json()
    if json:
        as_json(body)
        return
    verb = "would change" if dry_run else "change"
    say(
        f"{body['calls']} calls looked at, {body['changed']} {verb}: cost {body['cost_difference']} USD, "
        f"budgets {body['charge_difference']} USD; {body['newly_priced']} newly priced, "
        f"{body['still_unpriced']} still without a price"
    )
