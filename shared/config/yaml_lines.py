"""YAML with line numbers and untouched scalar text.

PyYAML's usual loading would turn `2.50` into a float, `on` into True and lose where either stood. Here only its events
are read: every scalar stays the text that was written, so money is exact and every problem names its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.config.problems import Place, Problems

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 16  # the deepest configuration has six levels; unlimited nesting could exhaust the stack
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Value:
    """A YAML value and where it stands: a mapping of Values, a list of Values, scalar text, or None for empty."""

    place: Place
    content: dict[str, Value] | list[Value] | str | None

    def kind(self) -> str:
        """What a person would call it, for messages."""
        if self.content is None:
            return "nothing"
        return {dict: "a mapping", list: "a list"}.get(type(self.content), f"{self.content!r}")


def parse_yaml(file: str, body: bytes, problems: Problems) -> Value | None:
    """The document of one file; None when it is empty or cannot be read (then a problem says why).

    Duplicate keys, anchors and tags are problems: the first would let one of two limits win silently, the others buy
    nothing here and cost a reader's certainty about what a line means.
    """
    import yaml

    if len(body) > MAX_FILE_BYTES:
        problems.add(Place(file, 0, ""), f"is larger than {MAX_FILE_BYTES} bytes")
        return None
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add(Place(file, body.count(b"\n", 0, error.start) + 1, ""), "is not UTF-8 text")
        return None
    try:
        return _Reader(yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), problems).document(file)
    except yaml.YAMLError as error:
        problems.add(_place_of(file, error), _sentence(error))
    except _TooDeepError as error:
        problems.add(error.place, f"is nested more than {MAX_DEPTH} levels deep")
    return None


class _TooDeepError(Exception):
    """Nesting that no configuration has."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


class _Reader:
    """Builds Values from PyYAML's events, which come in document order."""

    def __init__(self, events: Iterator[Any], problems: Problems) -> None:
        self._events = events
        self._problems = problems

    def document(self, file: str) -> Value | None:
        """The file's only document."""
        next(self._events)  # the stream's start
        if not _is(next(self._events), "DocumentStart"):
            return None
        first = next(self._events)
        value = self._value(first, Place(file, _line(first), ""), depth=1)
        next(self._events)  # the document's end
        after = next(self._events)
        if _is(after, "DocumentStart"):
            self._problems.add(Place(file, _line(after), ""), "a second document starts here; one file is one document")
        return None if value.content is None else value

    def _value(self, event: Any, place: Place, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise _TooDeepError(place)
        if event.anchor is not None:  # also an alias, which is an event of its own
            self._problems.add(place, "anchors and aliases (&, *) are not supported; write the value out, or quote it")
        if getattr(event, "tag", None) not in (None, "!"):  # "!" is how a quoted scalar says that it is text
            self._problems.add(place, f"the tag {event.tag!r} is not supported; quote a value that starts with '!'")
        if _is(event, "MappingStart"):
            return Value(place, self._mapping(place, depth))
        if _is(event, "SequenceStart"):
            return Value(place, self._sequence(place, depth))
        if _is(event, "Alias") or (not event.style and event.value in _NULLS):
            return Value(place, None)
        return Value(place, str(event.value).strip())

    def _mapping(self, place: Place, depth: int) -> dict[str, Value]:
        content: dict[str, Value] = {}
        while not _is(key := next(self._events), "MappingEnd"):
            if not _is(key, "Scalar"):
                self._problems.add(Place(place.file, _line(key), place.path), "a field name must be plain text")
                self._value(key, place, depth + 1)
                self._value(next(self._events), place, depth + 1)
                continue
            field = place.inside(key.value, _line(key))
            value = self._value(next(self._events), field, depth + 1)
            if key.value in content:
                first = content[key.value].place.line
                self._problems.add(field, f"is given twice (first in line {first}); keep one")
            else:
                content[key.value] = value
        return content

    def _sequence(self, place: Place, depth: int) -> list[Value]:
        items: list[Value] = []
        while not _is(event := next(self._events), "SequenceEnd"):
            items.append(self._value(event, place.item(len(items), _line(event)), depth + 1))
        return items


def _is(event: Any, kind: str) -> bool:
    """Whether the event is of PyYAML's class of that name, which is not imported before a file is read."""
    return type(event).__name__ == kind + "Event"


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _place_of(file: str, error: Any) -> Place:
    mark = getattr(error, "problem_mark", None)
    return Place(file, mark.line + 1 if mark else 0, "")


def _sentence(error: Any) -> str:
    """PyYAML's reason in one line, without its own file and line talk."""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    context = getattr(error, "context", None)
    return f"is not valid YAML: {reason}" + (f" ({context})" if context else "")
