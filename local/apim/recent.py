"""Lists of what happened, for tests and for people; they forget the oldest, for a gateway may run for days."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, TypeVar

MOST_KEPT = 10_000

T = TypeVar("T")


class Recent(list[T]):
    """A list of the newest entries."""

    def append(self, item: T) -> None:
        """Add one."""
        super().append(item)
        del self[:-MOST_KEPT]

    def __iadd__(self, items: Iterable[T]) -> Self:  # type: ignore[override, misc]
        """Add several."""
        super().__iadd__(items)
        del self[:-MOST_KEPT]
        return self
