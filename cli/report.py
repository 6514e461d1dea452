"""`tollkeeper report`: a tenant's statement for a month, on the screen or in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO

import typer

from cli.options import AsJson, Tenant
from cli.output import progress, say, table
from cli.run import run
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.months import month_of, month_span

_BINARY = ("parquet", "xlsx")


def report(
    tenant: Tenant = "default",
    period: Annotated[str | None, typer.Option(help="A month such as 2026-10; the running one when absent.")] = None,
    team: Annotated[list[str] | None, typer.Option(help="Only this team; give it again for more.")] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="json, csv (journal), focus, parquet, html, xlsx; absent: tables."),
    ] = None,
    focus_version: Annotated[str | None, typer.Option(help="1.4 or 1.2, of focus and parquet.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; standard output when absent.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show or write a statement. A month that is not over is a draft, and says so."""
    chosen = "json" if json and form is None else form
    if json and chosen != "json":
        raise InvalidRequest("--json: is --format json; leave one of them out", param="format")
    period = period or month_of(datetime.now(UTC))
    month_span(period)
    if chosen is None:
        if output is not None or focus_version is not None:
            raise InvalidRequest("--format: is required with --output and --focus-version", param="format")
        with progress("Building the statement"):
            _show(run(lambda services: _document(services, tenant, period, team)))
    elif output is None:
        _to_standard_output(tenant, period, team, chosen, focus_version)
    else:
        _to_file(tenant, period, team, chosen, focus_version, output)
        say(f"{output} is the {chosen} statement of {tenant} for {period}")


async def _document(services: Services, tenant: str, period: str, teams: Sequence[str] | None) -> dict[str, Any]:
    from shared.reports.files_json import document

    _require_tenant(services, tenant)
    return document(await services.reports.statement(tenant, period, teams, datetime.now(UTC)))


async def _write(
    services: Services,
    tenant: str,
    period: str,
    teams: Sequence[str] | None,
    form: str,
    version: str | None,
    out: BinaryIO,
) -> None:
    from shared.reports.formats import require_format

    _require_tenant(services, tenant)
    await services.reports.write(tenant, period, teams, require_format(form, version), out, datetime.now(UTC))


def _require_tenant(services: Services, tenant: str) -> None:
    from shared.budgets.request import known_tenant

    known_tenant(services.config.current, tenant)


def _to_standard_output(tenant: str, period: str, teams: list[str] | None, form: str, version: str | None) -> None:
    if form in _BINARY and sys.stdout.isatty():
        raise InvalidRequest(f"--output: is required, because {form} is nothing for a terminal", param="output")
    with TemporaryFile() as out:
        with progress("Building the statement"):
            run(lambda services: _write(services, tenant, period, teams, form, version, out))
        out.seek(0)
        while chunk := out.read(1 << 20):
            sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


def _to_file(tenant: str, period: str, teams: list[str] | None, form: str, version: str | None, output: Path) -> None:
    """The file appears whole or not at all."""
    half = output.with_name(f".{output.name}.part")
    try:
        with half.open("w+b") as out, progress("Building the statement"):
            run(lambda services: _write(services, tenant, period, teams, form, version, out))
        half.replace(output)
    except OSError as error:
        raise InvalidRequest(f"--output: {output}: {error.strerror}", param="output") from None
    finally:
        half.unlink(missing_ok=True)


def _show(statement: dict[str, Any]) -> None:
    currency = statement["currency"]
    say(
        f"{statement['tenant']} {statement['period']}, {statement['status']}, as of {statement['as_of']}: "
        f"{statement['amount_due']} {currency}"
    )
    for note in statement["notes"]:
        say(f"note: {note}")
    columns = {"team": False, "app": False, "model": False, "requests": True, "cost in USD": True}
    lines = [(line["team"], line["app"], line["model"], line["requests"], line["cost"]) for line in statement["lines"]]
    table("Usage", columns, lines)
    if statement["allocated"]:
        rows = [(line["team"], line["kind"], line["label"], line["amount"]) for line in statement["allocated"]]
        table("Allocated", {"team": False, "kind": False, "for": False, f"amount in {currency}": True}, rows)
    sums = [(team["team"], team["cost_centre"], team["cost"], team["amount_due"]) for team in statement["team_totals"]]
    table("Teams", {"team": False, "cost centre": False, "cost in USD": True, f"due in {currency}": True}, sums)
