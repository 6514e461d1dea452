"""`tollkeeper export`, `restore` and `re-rate`: the care of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, Tenant, Why
from cli.output import as_json, progress, say
from cli.run import run
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.money import decimal_from_nano
from shared.months import month_span

if TYPE_CHECKING:
    from shared.record.restore import RestoreProgress


def export(json: AsJson = False) -> None:
    """Add the ledger's settled days to the archive now, as the nightly timer does."""
    with progress("Exporting") as advance:

        async def work(services: Services) -> dict[str, Any]:
            done = 0

            def told(name: str, rows: int) -> None:
                nonlocal done
                done += 1
                advance(done, None, f"{name}, {rows} rows")

            return (await services.ledger_export.run(progress=told))._asdict()

        body = run(work)
    if json:
        as_json(body)
        return
    say(f"{body['rows']} rows in {body['parts']} new parts; {body['waiting_days']} days are not settled yet")
    say(f"newest manifest: {body['head']}")


def restore(
    verify: Annotated[bool, typer.Option("--verify", help="Check every part of the export; write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Into tables that hold rows: those there must equal the exported ones.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write the exported ledger into the empty tables of LEDGER_TABLE_PREFIX. Broken off, it goes on where it was."""
    if verify and force:
        raise InvalidRequest("--force: writes, and --verify does not; leave one out", param="force")
    with progress("Verifying" if verify else "Restoring") as advance:

        def told(at: RestoreProgress) -> None:
            advance(at.rows, at.total_rows, f"part {at.part} of {at.parts}")

        body = run(lambda services: _restore(services, told, verify=verify, force=force))
    if json:
        as_json(body)
        return
    sums = body["sums"]
    say(f"the export holds {sums['rows']} rows, cost {sums['cost']} USD, {sums['unpriced']} of them without a price")
    if not verify:
        say(f"{body['rows']} written, {body['present']} were there; tenants: {', '.join(body['tenants']) or 'none'}")
        say("the timers rebuild rollups and counters from here on")


async def _restore(services: Services, told: Any, *, verify: bool, force: bool) -> dict[str, Any]:
    if verify:
        sums, done = await services.restore.verify(progress=told), {}
    else:
        report = await services.restore.run(force=force, progress=told)
        sums, done = report.sums, {"rows": report.rows, "present": report.present, "tenants": report.tenants}
    amounts = {"cost": decimal_from_nano(sums.cost_nano_usd), "charge": decimal_from_nano(sums.charge_nano_usd)}
    return {**done, "sums": {"rows": sums.rows, "unpriced": sums.unpriced, **amounts}}


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

    async def work(services: Services) -> dict[str, Any]:
        who = await services.operator()
        report = await services.re_rate.re_rate(tenant, start_utc, end_utc, who, why, model=model, dry_run=dry_run)
        return report.as_json()

    with progress(f"Rating {period} of {tenant} again"):
        body = run(work)
    if json:
        as_json(body)
        return
    verb = "would change" if dry_run else "change"
    say(
        f"{body['calls']} calls looked at, {body['changed']} {verb}: cost {body['cost_difference']} USD, "
        f"budgets {body['charge_difference']} USD; {body['newly_priced']} newly priced, "
        f"{body['still_unpriced']} still without a price"
    )
