"""What a command writes: tables for people, JSON for programs, progress for whoever watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

_COLUMNS_WITHOUT_TERMINAL = 400  # into a file or a pipe rich assumes 80, and would cut what people grep for
_DIRECTION = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they show a name as another
_CONTROL = {c: "\N{REPLACEMENT CHARACTER}" for c in (*range(32), *range(0x7F, 0xA0), *_DIRECTION) if c != 10}


class Advance(Protocol):
    """Tells how far a long work has come."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


def out() -> Console:
    """Standard output. Rich leaves colours out by itself where NO_COLOR is set or nobody looks."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _COLUMNS_WITHOUT_TERMINAL)


def say(text: str) -> None:
    """A line for a person, as it is."""
    out().print(plain(text), markup=False, soft_wrap=True)


def table(title: str, columns: Mapping[str, bool], rows: Sequence[Sequence[object]]) -> None:
    """A table; `columns` maps each heading to whether it is a number. None is shown as a dash."""
    shown = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, is_number in columns.items():
        shown.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        shown.add_row(*("-" if cell is None else escape(plain(str(cell))) for cell in row))
    out().print(shown)


def as_json(body: Any) -> None:
    """The body as JSON on standard output, keys in order."""
    text = msgspec.json.format(msgspec.json.encode(body, order="deterministic"), indent=2)
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.flush()


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """A bar on standard error while the work runs; nothing where that is no terminal."""
    console = Console(stderr=True)  # calls a log a terminal where FORCE_COLOR is set, as pipelines like to do
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(escape(title), total=None)

        def advance(done: int, total: int | None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=escape(f"{title} {plain(note)}".rstrip()))

        yield advance


def plain(text: str) -> str:
    """Without control and direction characters: no name in the ledger may steer the terminal of whoever reads it."""
    return text.translate(_CONTROL)
