"""`tollkeeper spend`: what the budgets' live counters show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.options import AsJson, Tenant
from cli.output import as_json, table
from cli.run import run
from shared.bootstrap import Services
from shared.errors import InvalidRequest, NotFound


def spend(
    scope: Annotated[
        str, typer.Argument(metavar="[TYPE[:KEY]]", help="Scopes of a type (`team`), or one of them (`team:search`).")
    ] = "",
    tenant: Tenant = "default",
    state: Annotated[str | None, typer.Option(help="Only active, warned, degraded or stopped budgets.")] = None,
    json: AsJson = False,
) -> None:
    """Show spent, held and left of every budget in its open period; of one scope also where it is heading."""
    kind, colon, key = scope.partition(":")
    if colon and state:
        raise InvalidRequest("--state: has no meaning for one scope; leave it out", param="state")
    rows = run(lambda services: _read(services, tenant, kind, key if colon else None, state))
    if json:
        as_json({"tenant": tenant, "budgets": rows})
        return
    names = ["scope", "budget", "period", "spent", "held", "left", "limit", "state", "resets"]
    columns = {name: name in ("spent", "held", "left", "limit") for name in names}
    if colon:
        columns |= {"USD per hour": True, "at the end": True}
    table(f"Budgets of {tenant} in USD", columns, [_cells(row, outlook=bool(colon)) for row in rows])


async def _read(services: Services, tenant: str, kind: str, key: str | None, state: str | None) -> list[dict[str, Any]]:
    if key is None:
        return await services.spend.list(tenant, kind or None, state)
    rows = await services.budget_outlook.of_scope(tenant, kind, key, datetime.now(UTC))
    if not rows:
        raise NotFound(f"scope: no budget of tenant {tenant!r} covers {kind}:{key}", param="scope")
    return rows


def _cells(row: dict[str, Any], *, outlook: bool) -> list[object]:
    cells = [row[name] for name in ("scope", "id", "period", "spent", "reserved", "remaining", "limit", "state")]
    cells.append(row["resets_at"])
    if outlook:
        projection = row["projection"]
        cells += [row["rate"], projection and f"{projection['value']} ({projection['low']} to {projection['high']})"]
    return cells
