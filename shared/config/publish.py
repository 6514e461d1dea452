"""Publishing a whole configuration from git: what it would change, and doing it. Git replaces the edits made beside it,
unless the configuration says `dashboard_edits: keep`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import msgspec

from shared.config.edits_yaml import EDITS, write_edits
from shared.config.history import Change, Difference, budget_differences, changed_terms, file_differences
from shared.config.loader import config_version, load_config
from shared.config.model import BudgetEdit, Config
from shared.config.place import ConfigPlace, Held
from shared.config.source import DirectorySource
from shared.errors import ConfigInvalid, Conflict
from shared.money import decimal_from_nano

_ATTEMPTS = 5


class Planned(msgspec.Struct, frozen=True):
    """What publishing some files would make of what is held."""

    files: Mapping[str, bytes]
    before: Config | None  # None: nothing is published, or nothing this program can read
    after: Config
    difference: Difference


class Plan(msgspec.Struct, frozen=True):
    """A publication that nobody has done yet, and the version it was compared with."""

    place: str
    seen: str  # empty: nothing is published there
    planned: Planned


class Published(msgspec.Struct, frozen=True):
    """What was done. `version` is current now; without a difference it was before."""

    version: str
    difference: Difference


def plan_publication(held: Held, files: Mapping[str, bytes], root: str = "config") -> Planned:
    """Compare the files of git with what is held. Raises ConfigInvalid for files that would be refused.

    An edits.yaml among them is a laptop's own and is left out: edits come from where they are in force.
    """
    from_git = {name: body for name, body in files.items() if name != EDITS}
    git = load_config(from_git, root)
    before = _readable(held)
    in_force = [] if before is None else [edit for edit in before.edits.values() if edit.superseded is None]
    keeps = git.billing.dashboard_edits == "keep"
    kept = tuple(edit for edit in in_force if keeps and edit.budget in git.entry_digests)
    discarded = tuple(edit for edit in in_force if edit not in kept)
    after_files = from_git | ({EDITS: write_edits(kept)} if kept else {})
    after = load_config(after_files, root) if kept else git
    difference = Difference(
        budgets=budget_differences(before, after),
        files=file_differences(held.files, after_files),
        discarded=discarded,
        kept=kept,
    )
    return Planned(after_files, before, after, difference)


async def publish(
    files: Mapping[str, bytes], place: ConfigPlace, *, who: str, why: str, seen: str | None = None, root: str = "config"
) -> Published:
    """Validate the files and make them current. `seen`: only while the version that is there is still this one.

    Raises ConfigInvalid for a configuration that would be refused, Conflict `config_moved` when somebody else wrote,
    and the storage's own errors. A publisher that dies half-way changes nothing.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        held = await place.held()
        if seen is not None and held.version != seen:
            raise Conflict(f"{place.root}: is no longer at version {seen[:12]}; look at it again", code="config_moved")
        planned = plan_publication(held, files, root)
        version = config_version(planned.files)
        if version == held.version:
            return Published(version, planned.difference)
        change = Change(
            sequence=held.sequence + 1,
            at_utc=datetime.now(UTC),
            kind="publish",
            who=who,
            why=why,
            version=version,
            budgets=changed_terms(planned.before, planned.after),
        )
        try:
            await place.replace(held, planned.files, change)
        except Conflict:
            if attempt == _ATTEMPTS:
                raise
            continue
        return Published(version, planned.difference)
    raise AssertionError("unreachable")  # the last attempt returns or raises


def checked(directory: str) -> Config:
    """What the files of a directory mean. Raises ConfigInvalid."""
    return load_config(DirectorySource(directory).read(), directory)


class Publication:
    """Plans and does publications of a directory of git, for commands."""

    def __init__(self, open_place: Callable[[], AbstractAsyncContextManager[ConfigPlace]]) -> None:
        self._open = open_place

    async def plan(self, directory: str) -> Plan:
        """What publishing the directory would change. Raises ConfigInvalid for one that would be refused."""
        files = DirectorySource(directory).read()
        async with self._open() as place:
            held = await place.held()
            return Plan(place.root, held.version, plan_publication(held, files, directory))

    async def apply(self, directory: str, *, who: str, why: str, seen: str | None = None) -> Published:
        """Publish the directory, with `seen` only over that version. Raises as `publish`."""
        files = DirectorySource(directory).read()
        async with self._open() as place:
            return await publish(files, place, who=who, why=why, seen=seen, root=directory)


def told(edit: BudgetEdit) -> str:
    """One sentence on an edit, for whoever discards it."""
    limit = "" if edit.limit_nano is None else f" to {decimal_from_nano(edit.limit_nano)}"
    return f"budget {edit.budget}{limit}, by {edit.who} at {edit.at_utc:%Y-%m-%d %H:%M} UTC: {edit.why}"


def _readable(held: Held) -> Config | None:
    try:
        return load_config(held.files) if held.version else None
    except ConfigInvalid:
        return None  # of an older program, or damaged: publishing is what repairs it
