"""`tollkeeper close`: a month becomes final."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from cli.options import AsJson, Tenant, Yes
from cli.output import as_json, progress, say
from cli.run import run
from shared.bootstrap import Services
from shared.errors import InvalidRequest


def close(
    period: Annotated[str, typer.Argument(metavar="MONTH", help="A month that is over, such as 2026-10.")],
    tenant: Tenant = "default",
    force: Annotated[
        bool,
        typer.Option("--force", help="Close although ingest is behind; what is late is on the next statement."),
    ] = False,
    yes: Yes = False,
    json: AsJson = False,
) -> None:
    """Close a month and publish its final statement. Takes some two minutes, may be repeated, and cannot be undone."""
    if not yes:
        if json:
            raise InvalidRequest("--yes: is required with --json, because nobody is asked", param="yes")
        typer.confirm(f"Close {period} of {tenant} for good?", abort=True, err=True)

    async def work(services: Services) -> Any:
        return await services.close_months.close(tenant, period, await services.operator(), force=force)

    with progress(f"Closing {period} of {tenant}"):
        manifest = run(work)
    if json:
        as_json(msgspec.to_builtins(manifest))
        return
    say(
        f"{tenant} {period} is {manifest.status}: {manifest.total} {manifest.currency}, statement {manifest.number}, "
        f"{len(manifest.files)} files in {tenant}/{period}/{manifest.digest}"
    )
