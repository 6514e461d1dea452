"""Changing one budget beside git: who may be an admin with a form instead of a commit. The change is validated with the
whole configuration before anybody uses it, says who and why, and never overwrites somebody else's unseen."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared.config.edits_yaml import EDITED, EDITS, edited_budget, write_edits
from shared.config.fields import Section
from shared.config.history import Change, ChangeKind, changed_terms, terms_of
from shared.config.loader import config_version, load_config
from shared.config.model import Budget, BudgetEdit, Config
from shared.config.place import ConfigPlace
from shared.config.problems import Place, Problems
from shared.config.yaml_lines import Value
from shared.errors import ConfigInvalid, Conflict, InvalidRequest, NotFound
from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.ppm import fraction_of_ppm
from shared.pseudonyms import NO_PSEUDONYMS, Pseudonyms

log = logging.getLogger("tollkeeper.config")

MAX_WHY_CHARS = 500
_ATTEMPTS = 5


class ConfigEdits:
    """Edits budgets where the configuration is kept."""

    def __init__(
        self,
        open_place: Callable[[], AbstractAsyncContextManager[ConfigPlace]],
        refresh: Callable[[], Awaitable[object]],
        pseudonyms: Pseudonyms = NO_PSEUDONYMS,
    ) -> None:
        """`refresh` brings what was written into force in this process; others follow at their next poll.

        Callers know budgets by the ids that `pseudonyms` makes of those in the files.
        """
        self._open = open_place
        self._refresh = refresh
        self._pseudonyms = pseudonyms

    async def change(
        self, tenant: str, budget_id: str, figures: Mapping[str, str | None], *, version: str, who: str, why: str
    ) -> Config:
        """Give a budget these figures (`limit`, `warn`, `degrade`, `stop` as the files spell them; absent: as in git).

        `version` is the budget's as the caller saw it. Returns the configuration that is in force from now on. Raises
        InvalidRequest naming the field, NotFound `budget_unknown`, Conflict `edit_conflict`, StateUnavailable.
        """
        return await self._write(tenant, budget_id, figures, version, who, _reason(why))

    async def revert(self, tenant: str, budget_id: str, *, version: str, who: str, why: str) -> Config:
        """Back to what git says. Raises as `change`."""
        return await self._write(tenant, budget_id, None, version, who, _reason(why))

    async def history(self, budget_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest changes of a budget's figures, newest first, publications among them."""
        async with self._open() as place:
            steps = await place.steps()
        known_as = self._pseudonyms.budget_id
        found = [(step, filed) for step in steps for filed in step.budgets if known_as(filed) == budget_id]
        return [_step_view(step, filed) for step, filed in found[:limit]]

    async def _write(
        self, tenant: str, budget_id: str, figures: Mapping[str, str | None] | None, version: str, who: str, why: str
    ) -> Config:
        async with self._open() as place:
            for attempt in range(1, _ATTEMPTS + 1):
                held = await place.held()
                before = await asyncio.to_thread(load_config, held.files, place.root)  # a second for a thousand files
                budget = budget_of(before, tenant, self._filed(before, budget_id))
                if budget_version(before, budget.id) != version:
                    raise Conflict(
                        f"version: budget {budget_id!r} was changed since it was read; read it again and decide anew",
                        code="edit_conflict",
                        param="version",
                    )
                files = {**held.files, EDITS: write_edits(_edits_with(before, budget, figures, who, why))}
                if not files[EDITS]:
                    del files[EDITS]
                after = await asyncio.to_thread(_validated, files, place.root)
                changed = changed_terms(before, after)
                if not changed:
                    return self._pseudonyms.config(before)
                kind: ChangeKind = "edit" if budget.id in after.edits else "revert"
                new_version = config_version(files)
                change = Change(
                    sequence=held.sequence + 1,
                    at_utc=datetime.now(UTC),
                    kind=kind,
                    who=who,
                    why=why,
                    version=new_version,
                    budgets=changed,
                )
                try:
                    await place.replace(held, files, change)
                except Conflict:  # another budget, or this one: the next look tells
                    if attempt == _ATTEMPTS:
                        raise
                    continue
                log.info("budget_changed", extra={"tenant": tenant, "budget": budget_id, "kind": kind, "who": who})
                await self._refresh()
                return self._pseudonyms.config(after)
        raise AssertionError("unreachable")  # the last attempt returns or raises

    def _filed(self, config: Config, budget_id: str) -> str:
        """The id in the files of the budget that callers know by this one."""
        known_as = self._pseudonyms.budget_id
        return next((each.id for each in config.budgets if known_as(each.id) == budget_id), budget_id)


def budget_of(config: Config, tenant: str, budget_id: str) -> Budget:
    """The budget of that id that applies in the tenant. Raises NotFound `budget_unknown`."""
    for budget in config.budgets:
        if budget.id == budget_id and budget.tenant in (None, tenant):
            return budget
    raise NotFound(
        f"budget: tenant {tenant!r} has no budget {budget_id!r}; GET /budgets lists them",
        code="budget_unknown",
        param="budget",
    )


def budget_version(config: Config, budget_id: str) -> str:
    """Names the state of one budget: it moves when its git entry or its edit does, and with no other change."""
    edit = config.edits.get(budget_id)
    parts = [config.entry_digests.get(budget_id, "")]
    if edit is not None and edit.superseded is None:
        parts += [edit.who, edit.why, rfc3339(edit.at_utc)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def budget_definition(config: Config, budget: Budget, *, with_reason: bool = True) -> dict[str, Any]:
    """A budget's definition as the API shows it. Without `with_reason` it is not said who edited it and why."""
    edit = config.edits.get(budget.id)
    in_force = edit is not None and edit.superseded is None
    git = edit.git if edit is not None and edit.git is not None else budget
    figures, from_git = terms_of(budget), terms_of(git)
    cap = budget.rollover_cap_nano
    return {
        "id": budget.id,
        "tenant": budget.tenant,
        "scope": f"{budget.scope_type}:{budget.scope_key}",
        "period": budget.period,
        "timezone": budget.timezone,
        "currency": budget.currency,
        **msgspec.to_builtins(figures),
        "downgrade": [{"from": list(rule.sources), "to": rule.target} for rule in budget.downgrade],
        "disable_tools": list(budget.disable_tools),
        "on_stop": budget.on_stop,
        "rollover": budget.rollover,
        "rollover_cap": None if cap is None else decimal_from_nano(cap),
        "origin": "edit" if in_force else "git",
        "version": budget_version(config, budget.id),
        "edit": None if edit is None else edit_view(edit, with_reason=with_reason),
        "git": msgspec.to_builtins(from_git),
    }


def edit_view(edit: BudgetEdit, *, with_reason: bool = True) -> dict[str, Any]:
    """An edit as the API shows it."""
    thresholds = {"warn": edit.warn_ppm, "degrade": edit.degrade_ppm, "stop": edit.stop_ppm}
    return {
        "who": edit.who if with_reason else None,
        "why": edit.why if with_reason else None,
        "at": rfc3339(edit.at_utc),
        "in_force": edit.superseded is None,
        "superseded": edit.superseded,
        "limit": None if edit.limit_nano is None else decimal_from_nano(edit.limit_nano),
        **{name: None if ppm is None else fraction_of_ppm(ppm) for name, ppm in thresholds.items()},
    }


def _step_view(step: Change, budget_id: str) -> dict[str, Any]:
    before, after = step.budgets[budget_id]
    return {
        "sequence": step.sequence,
        "at": rfc3339(step.at_utc),
        "kind": step.kind,
        "who": step.who,
        "why": step.why,
        "version": step.version,
        "before": msgspec.to_builtins(before),
        "after": msgspec.to_builtins(after),
    }


def _edits_with(
    config: Config, budget: Budget, figures: Mapping[str, str | None] | None, who: str, why: str
) -> list[BudgetEdit]:
    """All edits that hold, with this budget's replaced; without it when nothing differs from git."""
    present = config.edits.get(budget.id)
    git = present.git if present is not None and present.git is not None else budget
    others = [each for each in config.edits.values() if each.budget != budget.id and each.superseded is None]
    if figures is None:
        return others
    differing = _figures(figures, git)
    if all(value is None for value in differing.values()):
        return others
    base = config.entry_digests[budget.id]
    edit = BudgetEdit(budget=budget.id, who=who, why=why, at_utc=datetime.now(UTC), base=base)
    return [*others, msgspec.structs.replace(edit, **differing)]


def _figures(figures: Mapping[str, str | None], git: Budget) -> dict[str, int | None]:
    """The figures that differ from git's, read as the files are. Raises InvalidRequest naming the first wrong one."""
    place, problems = Place("", 0, ""), Problems()
    given = {name: Value(place.inside(name, 0), text.strip()) for name, text in figures.items() if text is not None}
    _, differing = edited_budget(Section(Value(place, given), EDITED, problems), git)
    for field, message in problems.found:
        raise InvalidRequest(f"{field.path}: {message}", param=field.path)
    return differing


def _validated(files: Mapping[str, bytes], root: str) -> Config:
    try:
        return load_config(files, root)
    except ConfigInvalid as error:
        raise InvalidRequest(f"the configuration would be refused: {error.message}", param="body") from None


def _reason(why: str) -> str:
    """Why, in one line. Raises InvalidRequest."""
    line = " ".join(why.split())
    if not 0 < len(line) <= MAX_WHY_CHARS:
        raise InvalidRequest(f"why: say in 1 to {MAX_WHY_CHARS} characters why the budget changes", param="why")
    if any(unicodedata.category(character) == "Cc" for character in line):
        raise InvalidRequest("why: holds control characters; write plain text", param="why")
    return line
