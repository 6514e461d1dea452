"""Calendar months in UTC, spelled `2026-11`: what statements are for and rows are booked into."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from shared.errors import InvalidRequest

_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")


def month_of(instant: datetime) -> str:
    """The month an instant lies in."""
    return f"{instant.astimezone(UTC):%Y-%m}"


def is_month(text: str) -> bool:
    """Whether a text spells a month."""
    return _MONTH.fullmatch(text) is not None


def month_span(month: str, param: str = "period") -> tuple[datetime, datetime]:
    """First instant of a month and of the month after. Raises InvalidRequest for what is no month."""
    match = _MONTH.fullmatch(month)
    if match is None:
        raise InvalidRequest(f"{param}: expected a month such as 2026-11, got {month[:40]!r}", param=param)
    year, number = int(match[1]), int(match[2])
    start = datetime(year, number, 1, tzinfo=UTC)
    return start, datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def month_before(month: str) -> str:
    """The month before: `2025-12` for `2026-01`."""
    start, _ = month_span(month)
    return f"{start.year - 1}-12" if start.month == 1 else f"{start.year}-{start.month - 1:02d}"


def month_after(month: str) -> str:
    """The month after: `2027-01` for `2026-12`."""
    return month_of(month_span(month)[1])
