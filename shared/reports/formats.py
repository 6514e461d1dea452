"""The forms a statement comes in. Every one takes its figures from the same statement and the same charges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from shared.errors import InvalidRequest
from shared.reports.charge import Charge
from shared.reports.files_focus import write_focus, write_focus_1_2
from shared.reports.files_html import write_html
from shared.reports.files_journal import write_journal
from shared.reports.files_json import write_json
from shared.reports.files_parquet import write_parquet, write_parquet_1_2
from shared.reports.files_xlsx import write_xlsx
from shared.reports.focus_columns import DEFAULT_VERSION, require_version
from shared.reports.statement import Statement

Write = Callable[[Statement, Iterator[Charge], BinaryIO], None]


class Format(msgspec.Struct, frozen=True):
    """One form. `write(statement, charges, out)` leaves the file open, and reads the charges once or not at all."""

    name: str
    file_name: str
    media_type: str
    write: Write
    inline: bool = False  # a browser may show it; others are for saving
    reads_charges: bool = False  # the others take all they show from the statement


_CSV = "text/csv; charset=utf-8"
_ALL = (
    Format("json", "statement.json", "application/json", write_json, inline=True),
    Format("csv", "journal.csv", _CSV, write_journal),
    Format("focus", "focus-1.4.csv", _CSV, write_focus, reads_charges=True),
    Format("focus-1.2", "focus-1.2.csv", _CSV, write_focus_1_2, reads_charges=True),
    Format("parquet", "focus-1.4.parquet", "application/vnd.apache.parquet", write_parquet, reads_charges=True),
    Format("parquet-1.2", "focus-1.2.parquet", "application/vnd.apache.parquet", write_parquet_1_2, reads_charges=True),
    Format("html", "statement.html", "text/html; charset=utf-8", write_html, inline=True),
    Format(
        "xlsx",
        "statement.xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        write_xlsx,
    ),
)
FORMATS = {form.name: form for form in _ALL}
ASKED = ("json", "csv", "focus", "parquet", "html", "xlsx")  # 1.2 is asked for by its version, beside the form


def require_format(wanted: str, focus_version: str | None = None) -> Format:
    """A form by name. Raises InvalidRequest `unsupported_format`, naming those there are."""
    if wanted not in ASKED:
        message = f"format: {wanted[:20]!r} is not available; expected {', '.join(ASKED[:-1])} or {ASKED[-1]}"
        raise InvalidRequest(message, code="unsupported_format", param="format")
    if focus_version is None or require_version(focus_version) == DEFAULT_VERSION:
        return FORMATS[wanted]
    if wanted not in ("focus", "parquet"):
        message = "focus_version: only the formats focus and parquet have a version"
        raise InvalidRequest(message, code="unsupported_format", param="focus_version")
    return FORMATS[f"{wanted}-{focus_version}"]
