"""YAML with line numbers and untouched scalar text.

PyYAML's usual loading would turn `2.50` into a float, `on` into True and lose where either stood. Here nodes are only
composed: every scalar stays the text that was written, so money is exact and every problem names its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.config.problems import Place, Problems

MAX_FILE_BYTES = 4 * 1024 * 1024
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + t for t in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")}


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

    Duplicate keys, anchors and custom tags are problems: the first would let one of two limits win silently, the
    others buy nothing here and cost a reader's certainty about what a line means.
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
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        problems.add(_place_of(file, error), _sentence(error))
        return None
    finally:
        loader.dispose()
    return None if node is None else _Walk(problems).value(node, Place(file, node.start_mark.line + 1, ""))


class _Walk:
    """Turns composed nodes into Values."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._seen: set[int] = set()

    def value(self, node: Any, place: Place) -> Value:
        if id(node) in self._seen:  # an alias yields the same node again, possibly inside itself
            self._problems.add(place, "anchors and aliases (&, *) are not supported; write the value out, or quote it")
            return Value(place, None)
        self._seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            self._problems.add(place, f"the tag {node.tag!r} is not supported; quote a value that starts with '!'")
            return Value(place, None)
        if node.id == "mapping":
            return Value(place, self._mapping(node.value, place))
        if node.id == "sequence":
            items = [self.value(item, place.item(i, item.start_mark.line + 1)) for i, item in enumerate(node.value)]
            return Value(place, items)
        return Value(place, None if node.tag == _TAG + "null" else str(node.value).strip())

    def _mapping(self, pairs: list[tuple[Any, Any]], place: Place) -> dict[str, Value]:
        content: dict[str, Value] = {}
        for key, node in pairs:
            line = key.start_mark.line + 1
            if key.id != "scalar":
                self._problems.add(Place(place.file, line, place.path), "a field name must be plain text")
                continue
            field = place.inside(str(key.value), line)
            if str(key.value) in content:
                first = content[str(key.value)].place.line
                self._problems.add(field, f"is given twice (first in line {first}); keep one")
                continue
            content[str(key.value)] = self.value(node, field)
        return content


def _place_of(file: str, error: Any) -> Place:
    mark = getattr(error, "problem_mark", None)
    return Place(file, mark.line + 1 if mark else 0, "")


def _sentence(error: Any) -> str:
    """PyYAML's reason in one line, without its own file and line talk."""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    context = getattr(error, "context", None)
    return f"is not valid YAML: {reason}" + (f" ({context})" if context else "")
