"""`tollkeeper budgets`: the budgets of git against those in force."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.options import AsJson, Yes
from cli.output import as_json, say, table
from cli.run import EXIT_CHANGES, run
from shared.config.edits import edit_view
from shared.config.history import BudgetDifference, Difference, budget_fields
from shared.config.publish import Plan, checked, told
from shared.errors import InvalidRequest

app = typer.Typer(no_args_is_help=True, help="Compare the budgets of git with those in force, and publish them.")

Directory = Annotated[str, typer.Argument(metavar="DIR", help="The configuration files, such as config/.")]


@app.command()
def validate(directory: Directory, json: AsJson = False) -> None:
    """Check the files as a whole. Every problem is named with its file, line and field."""
    config = checked(directory)
    counts = {name: len(getattr(config, name)) for name in ("tenants", "teams", "budgets", "models")}
    if json:
        as_json({"valid": True, "version": config.version, **counts})
        return
    say(f"{directory} is valid: {', '.join(f'{n} {name}' for name, n in counts.items())} ({config.version[:12]})")


@app.command()
def plan(
    directory: Directory,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 when there are changes.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show what publishing DIR would change: budgets, files, and edits of the dashboard that would end."""
    found = run(lambda services: services.publication.plan(directory), configured=False)
    _show(found, json=json)
    if detailed_exitcode and found.planned.difference:
        raise typer.Exit(EXIT_CHANGES)


@app.command()
def apply(
    directory: Directory,
    yes: Yes = False,
    why: Annotated[str, typer.Option(help="The reason that the history keeps.")] = "",
    json: AsJson = False,
) -> None:
    """Publish DIR, after showing the plan and asking. Nothing happens when somebody else writes meanwhile."""
    found = run(lambda services: services.publication.plan(directory), configured=False)
    if not found.planned.difference:
        _answer(found, applied=False, version=found.seen, json=json)
        return
    if not yes:
        if json:
            raise InvalidRequest("--yes: is required with --json, because nobody is asked", param="yes")
        _show(found, json=False)
        typer.confirm("Publish this?", abort=True, err=True)
    reason = why or f"published from {directory}"
    done = run(lambda services: _apply(services, directory, reason, found.seen), configured=False)
    _answer(found, applied=True, version=done, json=json)


async def _apply(services: Any, directory: str, why: str, seen: str) -> str:
    done = await services.publication.apply(directory, who=await services.operator(), why=why, seen=seen)
    return str(done.version)


def _answer(found: Plan, *, applied: bool, version: str, json: bool) -> None:
    if json:
        as_json({**_plan_body(found), "applied": applied, "version": version})
    elif applied:
        say(f"{found.place} is at version {version[:12]}; workers follow within 30 seconds")
        for edit in found.planned.difference.discarded:
            say(f"discarded, because git wins: {told(edit)}")
    else:
        say(f"{found.place} is at version {version[:12]} already; nothing to do")


def _show(found: Plan, *, json: bool) -> None:
    if json:
        as_json(_plan_body(found))
        return
    difference = found.planned.difference
    if not difference:
        say(f"No changes: {found.place} is what the files say (version {found.seen[:12]}).")
        return
    rows = [row for each in difference.budgets for row in _rows(each)]
    if rows:
        table("Budgets", {"": False, "budget": False, "field": False, "in force": True, "git": True}, rows)
    for name, what in difference.files.items():
        say(f"file {what}: {name}")
    for edit in difference.discarded:
        say(f"would be discarded, because git wins: {told(edit)}")
    for edit in difference.kept:
        say(f"stays, as billing.yaml says: {told(edit)}")
    say(_summary(difference))


def _rows(each: BudgetDifference) -> list[tuple[str, str, str, str, str]]:
    """Terraform's signs: + added, - removed, ~ changed."""
    if each.before is None or each.after is None:
        there = each.after or each.before
        assert there is not None  # noqa: S101 - a difference has at least one side
        limit = f"{budget_fields(there)['limit']} {there.currency}"
        what = f"{there.scope_type}:{there.scope_key} per {there.period}"
        return [("+", each.id, what, "", limit) if each.before is None else ("-", each.id, what, limit, "")]
    return [("~", each.id, name, was, becomes) for name, (was, becomes) in each.fields.items()]


def _summary(difference: Difference) -> str:
    added = sum(each.before is None for each in difference.budgets)
    removed = sum(each.after is None for each in difference.budgets)
    changed = len(difference.budgets) - added - removed
    return f"{added} to add, {changed} to change, {removed} to remove; {len(difference.discarded)} edits to discard"


def _plan_body(found: Plan) -> dict[str, Any]:
    difference = found.planned.difference
    return {
        "place": found.place,
        "in_force": found.seen or None,
        "changes": bool(difference),
        "budgets": [_budget_body(each) for each in difference.budgets],
        "files": difference.files,
        "discarded_edits": [{"budget": edit.budget, **edit_view(edit)} for edit in difference.discarded],
        "kept_edits": [{"budget": edit.budget, **edit_view(edit)} for edit in difference.kept],
    }


def _budget_body(each: BudgetDifference) -> dict[str, Any]:
    action = "add" if each.before is None else "remove" if each.after is None else "change"
    before, after = (None if budget is None else budget_fields(budget) for budget in (each.before, each.after))
    return {"id": each.id, "action": action, "fields": sorted(each.fields), "before": before, "after": after}
