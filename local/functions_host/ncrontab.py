"""NCRONTAB schedules: six fields, of which the first is seconds, read in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_FIELDS = ("second", "minute", "hour", "day", "month", "weekday")
_RANGES = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_SEARCH_DAYS = 366 * 9  # a 29 February on a given weekday can be eight years away


@dataclass(frozen=True, slots=True)
class Schedule:
    """The moments a timer fires: those whose every field is in its set (day and weekday both, as NCRONTAB says)."""

    text: str
    allowed: dict[str, frozenset[int]]

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read `second minute hour day month weekday`; with five fields the second is 0. Raises ValueError."""
        parts = text.split()
        if len(parts) == len(_FIELDS) - 1:
            parts.insert(0, "0")
        if len(parts) != len(_FIELDS):
            raise ValueError(f"schedule {text!r} has {len(parts)} fields instead of six")
        return cls(text, {name: _values(name, part, text) for name, part in zip(_FIELDS, parts, strict=True)})

    def next_after(self, moment: datetime) -> datetime:
        """First moment after `moment` (aware) on the schedule, in UTC. Raises ValueError when there is none."""
        start = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        day = start.replace(hour=0, minute=0, second=0)
        for _ in range(_SEARCH_DAYS):
            if self._fires_on(day):
                found = self._first_time(day, max(start, day))
                if found:
                    return found
            day += timedelta(days=1)
        raise ValueError(f"schedule {self.text!r} never fires")

    def _fires_on(self, day: datetime) -> bool:
        allowed = self.allowed
        weekday = day.isoweekday() % 7
        return day.month in allowed["month"] and day.day in allowed["day"] and weekday in allowed["weekday"]

    def _first_time(self, day: datetime, earliest: datetime) -> datetime | None:
        allowed = self.allowed
        for hour in sorted(allowed["hour"]):
            for minute in sorted(allowed["minute"]):
                if (hour, minute) < (earliest.hour, earliest.minute):
                    continue
                for second in sorted(allowed["second"]):
                    candidate = day.replace(hour=hour, minute=minute, second=second)
                    if candidate >= earliest:
                        return candidate
        return None


def _values(name: str, field: str, text: str) -> frozenset[int]:
    low, high = _RANGES[name]
    values: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = _number(name, first, text)
            end = _number(name, last, text) if last else (high if step else start)
        if not (low <= start <= end <= high) or (step and not (step.isdigit() and int(step) > 0)):
            raise ValueError(f"schedule {text!r}: {item!r} is not a valid {name}")
        values.update(range(start, end + 1, int(step or 1)))
    return frozenset(values)


def _number(name: str, word: str, text: str) -> int:
    if word.isdigit():
        return int(word)
    if name == "month" and word.lower()[:3] in _MONTHS:
        return _MONTHS.index(word.lower()[:3]) + 1
    if name == "weekday" and word.lower()[:3] in _WEEKDAYS:
        return _WEEKDAYS.index(word.lower()[:3])
    raise ValueError(f"schedule {text!r}: {word!r} is not a valid {name}")
