"""`tollkeeper replay`: events that could not be billed go back onto the hub, after what stopped them was fixed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.options import AsJson
from cli.output import Advance, as_json, progress, say, table
from cli.run import EXIT_REFUSED, run
from shared.bootstrap import Services
from shared.errors import InvalidRequest

_AT_ONCE = 100
_MOST = 100_000


def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters by id.")] = None,
    code: Annotated[str | None, typer.Option(help="Those with this code, such as tenant_unknown.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Those of one tenant.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be replayed.")] = False,
    json: AsJson = False,
) -> None:
    """Put dead letters back onto the hub, byte for byte. Each is billed once at most, however often this is done."""
    chosen = ids or []
    if bool(chosen) == bool(code or tenant or every):
        raise InvalidRequest("ids: name dead letters, or choose them by --code, --tenant or --all", param="ids")
    if dry_run:
        if chosen:
            raise InvalidRequest("--dry-run: lists by --code, --tenant or --all, not by id", param="dry_run")
        _list(run(lambda services: services.dead_letters.list(tenant, code, _MOST), configured=False), json=json)
        return
    with progress("Replaying") as advance:
        done = run(lambda services: _replay(services, chosen, tenant, code, advance))
    if json:
        as_json(done)
    else:
        say(f"{done['replayed']} replayed")
        for letter in done["unknown"]:
            say(f"unknown: {letter}")
    if done["unknown"]:
        raise typer.Exit(EXIT_REFUSED)


async def _replay(
    services: Services, ids: list[str], tenant: str | None, code: str | None, advance: Advance
) -> dict[str, Any]:
    if not ids:
        ids = [letter["id"] for letter in await services.dead_letters.list(tenant, code, _MOST)]
    who, replayed = await services.operator(), 0
    unknown: list[str] = []
    for start in range(0, len(ids), _AT_ONCE):
        report = await services.replay.run(ids[start : start + _AT_ONCE], who)
        replayed += report.replayed
        unknown += report.unknown
        advance(min(start + _AT_ONCE, len(ids)), len(ids))
    return {"replayed": replayed, "unknown": unknown}


def _list(letters: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        as_json({"dead_letters": letters})
        return
    columns = dict.fromkeys(("id", "code", "tenant", "message"), False)
    rows = [[letter.get(name) for name in columns] for letter in letters]
    table(f"{len(letters)} dead letters", columns, rows)
