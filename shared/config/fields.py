"""Typed reading of one YAML mapping: each method returns the value or records a problem and returns a default."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from shared.config.problems import Place, Problems, did_you_mean
from shared.config.yaml_lines import Value
from shared.money import nano_from_decimal
from shared.ppm import PPM_PER_PERCENT

_NUMBER = re.compile(r"[+-]?[0-9][0-9_]*(\.[0-9]+)?")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


class Section:
    """One mapping of a file. `known` are its fields: any other is a typo and would be silently ignored, so refused."""

    def __init__(self, value: Value, known: tuple[str, ...], problems: Problems) -> None:
        self.place = value.place
        self._problems = problems
        self._fields: dict[str, Value] = {}
        self._readable = isinstance(value.content, dict)
        if not isinstance(value.content, dict):
            problems.add(value.place, f"expected the fields {', '.join(known)}; got {value.kind()}")
            return
        for name, field in value.content.items():
            if name in known:
                self._fields[name] = field
            else:
                problems.add(field.place, f"unknown field{did_you_mean(name, known)}")

    def place_of(self, name: str) -> Place:
        """Where the field stands, or where it would."""
        field = self._fields.get(name)
        return field.place if field else self.place.inside(name, self.place.line)

    def problem(self, name: str, message: str) -> None:
        """Record a problem of one field; when there are no fields at all, that was said already."""
        if self._readable:
            self._problems.add(self.place_of(name), message)

    def has(self, name: str) -> bool:
        """Whether the field is given and not empty."""
        return name in self._fields and self._fields[name].content is not None

    def digest(self, *beside: str | None) -> str:
        """SHA-256 over the fields as written and what is given beside them; order, layout and comments do not count."""
        content = {name: _plain(field) for name, field in self._fields.items()}
        text = json.dumps([content, *beside], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def text(self, name: str, *, required: bool = False) -> str | None:
        """The text as written."""
        if not self.has(name):
            if required:
                self.problem(name, "is required")
            return None
        return self._scalar(self._fields[name])

    def choice(self, name: str, options: tuple[str, ...], default: str | None = None) -> str:
        """One of the options; required when there is no default. The first option stands in after a problem."""
        text = self.text(name, required=default is None)
        if text is None:
            return default or options[0]
        if text not in options:
            self.problem(name, f"{text!r} is none of {', '.join(options)}")
            return default or options[0]
        return text

    def flag(self, name: str) -> bool:
        """true or false, false when absent."""
        text = (self.text(name) or "false").lower()
        if text not in _TRUE + _FALSE:
            self.problem(name, f"{text!r} is neither true nor false")
        return text in _TRUE

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number in the range; None when absent or wrong."""
        text = self.text(name)
        if text is None:
            return None
        if re.fullmatch(r"[0-9][0-9_]{0,17}", text) and low <= int(text) <= high:
            return int(text)
        self.problem(name, f"expected a whole number from {low} to {high}, got {text!r}")
        return None

    def decimal(self, name: str, *, required: bool = False) -> Decimal | None:
        """An exact decimal, straight from the text: no float in between."""
        text = self.text(name, required=required)
        if text is None:
            return None
        if _NUMBER.fullmatch(text):
            return Decimal(text)
        self.problem(name, f"expected a plain number such as 500.00, without thousands separators; got {text!r}")
        return None

    def percent_ppm(self, name: str, most: int, *, required: bool = False) -> int | None:
        """A percentage from 0 to `most` in parts per million; None when absent or wrong."""
        percent = self.decimal(name, required=required)
        if percent is None:
            return None
        ppm = percent * PPM_PER_PERCENT
        if ppm != int(ppm) or not 0 <= percent <= most:
            self.problem(name, f"expected 0 to {most} with at most four decimals, such as 12.5; got {percent}")
            return None
        return int(ppm)

    def amount_nano(self, name: str, *, required: bool = False) -> int | None:
        """A positive money amount in nano units of its currency."""
        amount = self.decimal(name, required=required)
        if amount is None:
            return None
        try:
            nano = nano_from_decimal(amount)
        except ValueError as error:
            self.problem(name, str(error).replace(repr(amount), str(amount)))
            return None
        if nano <= 0:
            self.problem(name, f"must be above 0, got {amount}; to let nothing pass use the smallest, 0.000000001")
            return None
        return nano

    def instant(self, name: str) -> datetime | None:
        """A required date (midnight UTC) or a date and time with its offset, as aware UTC."""
        text = self.text(name, required=True)
        if text is None:
            return None
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            parsed = None
        if parsed is not None and len(text) == len("2026-01-31"):
            return parsed.replace(tzinfo=UTC)
        if parsed is None or parsed.tzinfo is None:
            self.problem(name, f"expected a date such as 2026-01-31, or 2026-01-31T08:00:00Z; got {text!r}")
            return None
        return parsed.astimezone(UTC)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, empty when absent; a repeated one is a problem."""
        texts: list[str] = []
        for item in self.items(name):
            text = self._scalar(item)
            if text in texts:
                self._problems.add(item.place, f"{text!r} is listed twice")
            elif text:
                texts.append(text)
        return tuple(texts)

    def text_or_texts(self, name: str) -> tuple[str, ...]:
        """One text or a list of them."""
        field = self._fields.get(name)
        if field is not None and isinstance(field.content, str):
            return (field.content,)
        return self.texts(name)

    def items(self, name: str) -> list[Value]:
        """The items of a list, empty when absent."""
        field = self._fields.get(name)
        if field is None or field.content is None:
            return []
        if isinstance(field.content, list):
            return field.content
        self.problem(name, f"expected a list, got {field.kind()}")
        return []

    def mapping(self, name: str) -> Iterator[tuple[str, Value]]:
        """The pairs of a mapping whose names are data, empty when absent."""
        field = self._fields.get(name)
        if field is None or field.content is None:
            return
        if isinstance(field.content, dict):
            yield from field.content.items()
        else:
            self.problem(name, f"expected a mapping such as {{input: 2.50}}, got {field.kind()}")

    def item_text(self, item: Value) -> str | None:
        """The text of one of `items`."""
        return self._scalar(item)

    def item_section(self, item: Value, known: tuple[str, ...]) -> Section:
        """One of `items` that is a mapping with known fields."""
        return Section(item, known, self._problems)

    def section(self, name: str, known: tuple[str, ...]) -> Section | None:
        """A nested mapping with known fields; None when absent."""
        return Section(self._fields[name], known, self._problems) if self.has(name) else None

    def sections(self, name: str, known: tuple[str, ...]) -> list[Section]:
        """A list of mappings with known fields."""
        return [Section(item, known, self._problems) for item in self.items(name)]

    def _scalar(self, value: Value) -> str | None:
        if isinstance(value.content, str) and value.content:
            return value.content
        self._problems.add(value.place, f"expected text, got {value.kind()}")
        return None


def _plain(value: Value) -> Any:
    """A value without its place."""
    if isinstance(value.content, dict):
        return {name: _plain(field) for name, field in value.content.items()}
    if isinstance(value.content, list):
        return [_plain(item) for item in value.content]
    return value.content
