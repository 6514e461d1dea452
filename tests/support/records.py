"""The product's own log records: what workbook and alerts read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(records: Iterable[logging.LogRecord], message: str) -> list[dict[str, Any]]:
    """The fields of every record of that name, in order."""
    return [
        {name: value for name, value in vars(record).items() if name not in STANDARD}
        for record in records
        if record.getMessage() == message and record.name.startswith("tollkeeper.")
    ]
