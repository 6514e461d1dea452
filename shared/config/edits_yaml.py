"""edits.yaml: changes of budgets made beside git, by whom and why. The program writes this file, people read it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shared.config.budgets_yaml import check_limit, read_thresholds
from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.model import Budget, BudgetEdit
from shared.config.yaml_lines import Value
from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.ppm import fraction_of_ppm

EDITS = "edits.yaml"
EDITED = ("limit", "warn", "degrade", "stop")
EDIT_FIELDS = ("budget", *EDITED, "who", "why", "at", "base")
_CHANGED_IN_GIT = "the entry changed in git after the edit was made"
_GONE_FROM_GIT = "git has no budget of this id any more"


def read_edits(document: Value | None, draft: Draft, *, keep: bool) -> None:
    """Put the edits over the budgets of the draft.

    An edit holds while the git entry is the one it was made on, with `keep` as long as there is one. An edit that does
    not hold is no problem of the configuration: git may go on without asking the dashboard.
    """
    places = {budget.id: number for number, budget in enumerate(draft.budgets)}
    for section in draft.entries(document, "edits", EDIT_FIELDS):
        budget_id = section.text("budget", required=True)
        who, why = section.text("who", required=True), section.text("why", required=True)
        at_utc, base = section.instant("at"), section.text("base", required=True)
        if budget_id is None or who is None or why is None or at_utc is None or base is None:
            continue
        if budget_id in draft.edits:
            section.problem("budget", f"{budget_id!r} is edited twice; keep one")
            continue
        edit = BudgetEdit(budget=budget_id, who=who, why=why, at_utc=at_utc, base=base)
        if budget_id not in places:
            draft.edits[budget_id] = msgspec.structs.replace(edit, superseded=_GONE_FROM_GIT)
            continue
        git = draft.budgets[places[budget_id]]
        if base != draft.entry_digests[budget_id] and not keep:  # its figures may not even fit the new entry
            draft.edits[budget_id] = msgspec.structs.replace(edit, git=git, superseded=_CHANGED_IN_GIT)
            continue
        edited, figures = edited_budget(section, git)
        draft.budgets[places[budget_id]] = edited
        draft.edits[budget_id] = msgspec.structs.replace(edit, git=git, **figures)


def edited_budget(section: Section, git: Budget) -> tuple[Budget, dict[str, int | None]]:
    """The budget with the section's figures, and those that are not git's. Records what is wrong with them."""
    absent = {"warn": git.warn_ppm, "degrade": git.degrade_ppm, "stop": git.stop_ppm}
    limit = section.amount_nano("limit") or git.limit_nano
    warn, degrade, stop = read_thresholds(section, absent, "as in git")
    check_limit(section, limit, stop)
    edited = msgspec.structs.replace(git, limit_nano=limit, warn_ppm=warn, degrade_ppm=degrade, stop_ppm=stop)
    names = ("limit_nano", "warn_ppm", "degrade_ppm", "stop_ppm")
    return edited, {n: None if getattr(edited, n) == getattr(git, n) else getattr(edited, n) for n in names}


def write_edits(edits: Iterable[BudgetEdit]) -> bytes:
    """The file that holds these edits; the same edits are the same bytes."""
    lines = [
        "# Written by the program: budgets changed beside git. Change them by the dashboard, the API, or in git.\n"
    ]
    lines.append("edits:\n")
    for edit in sorted(edits, key=lambda edit: edit.budget):
        figures = {
            "limit": None if edit.limit_nano is None else decimal_from_nano(edit.limit_nano),
            "warn": None if edit.warn_ppm is None else fraction_of_ppm(edit.warn_ppm),
            "degrade": None if edit.degrade_ppm is None else fraction_of_ppm(edit.degrade_ppm),
            "stop": None if edit.stop_ppm is None else fraction_of_ppm(edit.stop_ppm),
        }
        fields = {
            "budget": _quoted(edit.budget),
            **{name: text for name, text in figures.items() if text is not None},
            "who": _quoted(edit.who),
            "why": _quoted(edit.why),
            "at": _quoted(rfc3339(edit.at_utc)),
            "base": _quoted(edit.base),
        }
        lines += [f"  {'- ' if n == 0 else '  '}{name}: {text}\n" for n, (name, text) in enumerate(fields.items())]
    return "".join(lines).encode() if len(lines) > 2 else b""


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar. Whatever is not plainly printable is escaped: it could end the scalar or hide."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08X}"
