"""`tollkeeper names`: what people are called. The ledger knows keys only, so erasing a name moves no sum."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson, Tenant, Yes
from cli.output import as_json, say, table
from cli.run import run
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.scopes import validate_scope_key

app = typer.Typer(no_args_is_help=True, help="Display names of users: list, set, erase.")

User = Annotated[str, typer.Argument(metavar="USER", help="The key of the scope, such as an object id.")]


@app.command("list")
def list_names(tenant: Tenant = "default", json: AsJson = False) -> None:
    """Show every display name of a tenant, who gave it and when."""
    found = run(lambda services: services.names.all(tenant))
    if json:
        users = [{"user": user, "name": n.name, "who": n.who, "at": n.at_utc} for user, n in sorted(found.items())]
        as_json({"tenant": tenant, "users": users})
        return
    rows = [(user, n.name, n.who, f"{n.at_utc:%Y-%m-%d %H:%M}") for user, n in sorted(found.items())]
    table(f"Names of {tenant}", dict.fromkeys(("user", "name", "given by", "at (UTC)"), False), rows)


@app.command("set")
def set_name(
    user: User,
    name: Annotated[str, typer.Argument(help="What statements and the dashboard show.")],
    tenant: Tenant = "default",
    json: AsJson = False,
) -> None:
    """Give a user a display name, or another one."""
    stated = validate_scope_key(user, "user")

    async def work(services: Services) -> tuple[str, str]:
        key = services.pseudonyms.key("user", stated)  # what the ledger has in place of an address
        return key, (await services.names.put(tenant, key, name, await services.operator())).name

    key, given = run(work)
    if json:
        as_json({"tenant": tenant, "user": key, "name": given})
    else:
        say(f"{key} is shown as {given}")


@app.command()
def erase(user: User, tenant: Tenant = "default", yes: Yes = False, json: AsJson = False) -> None:
    """Erase a user's display name for good. No sum changes: the ledger knows the key only."""
    key = validate_scope_key(user, "user")
    if not yes:
        if json:
            raise InvalidRequest("--yes: is required with --json, because nobody is asked", param="yes")
        typer.confirm(f"Erase the name of {key}?", abort=True, err=True)
    run(lambda services: services.names.erase(tenant, services.pseudonyms.key("user", key)))
    if json:
        as_json({"tenant": tenant, "user": key, "erased": True})
    else:
        say(f"the name of {key} is erased")
