"""Collects what is wrong in the configuration files, so that one look names everything there is to fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from shared.errors import ConfigInvalid


class Place(NamedTuple):
    """Where a value stands: relative file name, line (1-based; 0 for the file as a whole), and its path of fields."""

    file: str
    line: int
    path: str

    def inside(self, field: str, line: int) -> Place:
        """The place of a field of this mapping."""
        return Place(self.file, line, f"{self.path}.{field}" if self.path else field)

    def item(self, index: int, line: int) -> Place:
        """The place of an item of this list."""
        return Place(self.file, line, f"{self.path}[{index}]")


class Problems:
    """A list of problems. Rules add to it and go on; the loader refuses the whole configuration at the end."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, str]] = []

    def add(self, place: Place, message: str) -> None:
        """Record that the value at `place` is wrong; `message` says what would be right."""
        self._found.append((place, message))

    @property
    def found(self) -> list[tuple[Place, str]]:
        """All problems so far."""
        return list(self._found)

    def raise_if_any(self, root: str) -> None:
        """Raise ConfigInvalid with one `root/file:line: field: message` per problem, in reading order."""
        if not self._found:
            return
        lines = []
        for place, message in sorted(set(self._found)):
            where = f"{root}/{place.file}" + (f":{place.line}" if place.line else "")
            lines.append(": ".join(part for part in (where, place.path, message) if part))
        raise ConfigInvalid("\n".join(lines))


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'limit'?`, or the known names when nothing is close."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 20 else ""
