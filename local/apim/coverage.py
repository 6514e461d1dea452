"""Which elements, expressions and branches of the policies were executed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """How much of a policy ran: `missing` names each place that did not, as `file:line: what`."""

    covered: int
    total: int
    missing: list[str]

    @property
    def percent(self) -> float:
        """100.0 only when nothing is missing; rounded down, so that 99.96 is not called complete."""
        return 100.0 if not self.total else int(1000 * self.covered / self.total) / 10

    def __str__(self) -> str:
        lines = [f"policy coverage {self.percent} % ({self.covered} of {self.total})", *self.missing]
        return "\n".join(lines)


@dataclass
class Coverage:
    """What there is to execute, and how often each was. A place in a fragment counts once, wherever it is included."""

    places: dict[str, str] = field(default_factory=dict)  # key -> file:line: what, in document order
    hits: dict[str, int] = field(default_factory=dict)

    def expect(self, key: str, shown: str) -> None:
        """Declare a place."""
        self.places.setdefault(key, shown)

    def hit(self, key: str) -> None:
        """It was executed."""
        self.hits[key] = self.hits.get(key, 0) + 1

    def report(self) -> Report:
        """The figures so far."""
        missing = [shown for key, shown in self.places.items() if key not in self.hits]
        return Report(len(self.places) - len(missing), len(self.places), missing)

    def as_dict(self) -> dict[str, Any]:
        """For a file that other runs' figures are merged with."""
        return {"places": self.places, "hits": self.hits}

    def write(self, path: Path) -> None:
        """Put the figures into a file of their own."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict()))

    def add(self, other: Mapping[str, Any]) -> None:
        """Take in another run's figures."""
        for key, shown in other["places"].items():
            self.places.setdefault(key, shown)
        for key, count in other["hits"].items():
            self.hits[key] = self.hits.get(key, 0) + count


def merge(runs: Iterable[Path]) -> Coverage:
    """The figures of several runs together."""
    merged = Coverage()
    for path in runs:
        merged.add(json.loads(path.read_text()))
    return merged
