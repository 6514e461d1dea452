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
    if colon:
        _show_outlook(tenant, scope, rows)
        return
    columns = {
        "scope": False,
        "budget": False,
        "period": False,
        **dict.fromkeys(("spent", "held", "left", "limit"), True),
    }
    names = ("scope", "id", "period", "spent", "reserved", "remaining", "limit", "state", "resets_at")
    table(
        f"Budgets of {tenant} in USD",
        {**columns, "state": False, "resets": False},
        [[row[name] for name in names] for row in rows],
    )


def _show_outlook(tenant: str, scope: str, rows: list[dict[str, Any]]) -> None:
    columns = {"budget": False, "period": False, **dict.fromkeys(("spent", "left", "limit"), True)}
    table(
        f"{scope} of {tenant} in USD",
        {**columns, "state": False, "per hour": True, "at the end": True, "from": True, "to": True},
        [
            [
                *(row[name] for name in ("id", "period", "spent", "remaining", "limit", "state", "rate")),
                *((row["projection"] or {}).get(name) for name in ("value", "low", "high")),
            ]
            for row in rows
        ],
    )


async def _read(services: Services, tenant: str, kind: str, key: str | None, state: str | None) -> list[dict[str, Any]]:
    if key is None:
        return await services.spend.list(tenant, kind or None, state)
    stands = services.pseudonyms.key(kind, key)  # in the ledger in place of an address
    rows = await services.budget_outlook.of_scope(tenant, kind, stands, datetime.now(UTC))
    if not rows:
        raise NotFound(f"scope: no budget of tenant {tenant!r} covers {kind}:{key}", param="scope")
    return rows
