"""The FOCUS file as CSV: UTF-8, LF, empty cells for nulls, rows streamed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from io import StringIO
from typing import BinaryIO

from shared.instants import rfc3339
from shared.reports.charge import Charge
from shared.reports.exact import plain
from shared.reports.focus_columns import COLUMNS, DEFAULT_VERSION, FocusVersion
from shared.reports.focus_rows import Cell, FocusRows
from shared.reports.names import cell_text
from shared.reports.statement import Statement

_ROWS_PER_WRITE = 500


def write_focus(
    statement: Statement, charges: Iterator[Charge], out: BinaryIO, version: FocusVersion = DEFAULT_VERSION
) -> None:
    """One row per charge. Memory does not grow with their number."""
    columns = COLUMNS[version]
    place = {column: position for position, column in enumerate(columns)}
    rows = FocusRows(statement)
    same = [_spelled(rows.constant.get(column)) for column in columns]
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    waiting = 1
    for charge in charges:
        cells = same.copy()
        for column, cell in rows.varying(charge).items():
            if cell is not None and column in place:
                cells[place[column]] = _spelled(cell)
        writer.writerow(cells)
        waiting += 1
        if waiting >= _ROWS_PER_WRITE:
            waiting = _flush(buffer, out)
    _flush(buffer, out)


def write_focus_1_2(statement: Statement, charges: Iterator[Charge], out: BinaryIO) -> None:
    """The same rows in the columns of FOCUS 1.2."""
    write_focus(statement, charges, out, "1.2")


def _spelled(cell: Cell) -> str:
    if isinstance(cell, Decimal):
        return plain(cell)
    if isinstance(cell, str):
        return cell_text(cell)
    return "" if cell is None else _instant(cell)


@lru_cache(maxsize=1024)
def _instant(at_utc: datetime) -> str:
    return rfc3339(at_utc, "seconds")


def _flush(buffer: StringIO, out: BinaryIO) -> int:
    out.write(buffer.getvalue().encode())
    buffer.seek(0)
    buffer.truncate()
    return 0
