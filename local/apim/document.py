"""Policy XML as nodes that know their file and line, with named values filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from local.apim.errors import PolicyError

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_FRAGMENT_BYTES = 512 * 1024
MAX_NAMED_VALUE_CHARACTERS = 4096

_NAMED_VALUE = re.compile(r"\{\{([A-Za-z0-9._-]+)\}\}")
_EXPRESSION_STARTS = ("@(", "@{")


@dataclass(eq=False)
class Value:
    """An attribute's value or an element's text: literal text, or an expression that is evaluated per call."""

    text: str
    where: str  # file:line: element attribute
    expression_id: int | None = None  # its place among the document's expressions, once they are compiled

    @property
    def is_expression(self) -> bool:
        """True for `@(...)` and `@{...}`."""
        return self.text.startswith(_EXPRESSION_STARTS)


@dataclass(eq=False)
class Node:
    """One element. Compared by identity: two equal elements are two places in the policy."""

    name: str
    file: str
    line: int
    column: int
    attributes: dict[str, Value] = field(default_factory=dict)
    text: Value | None = None
    children: list[Node] = field(default_factory=list)
    path: str = ""  # as LastError.Path gives it: choose[1]/when[2]

    @property
    def where(self) -> str:
        """`file:line: <name>`, for messages."""
        return f"{self.file}:{self.line}: <{self.name}>"

    @property
    def key(self) -> str:
        """What identifies the place in coverage figures of several runs."""
        return f"{self.file}:{self.line}:{self.column}:{self.name}"

    def child(self, name: str) -> Node | None:
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> list[Node]:
        """The children of that name."""
        return [child for child in self.children if child.name == name]

    def walk(self) -> Iterator[Node]:
        """This element and all below it, in document order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def values(self) -> Iterator[tuple[str, Value]]:
        """(what it is, value) of every attribute and of the text."""
        yield from self.attributes.items()
        if self.text is not None:
            yield "text", self.text


class NamedValues:
    """The named values of a service."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """Raises PolicyError for a value longer than API Management stores."""
        for name, value in values.items():
            if len(value) > MAX_NAMED_VALUE_CHARACTERS:
                raise PolicyError(f"named value {name}", f"has {len(value)} characters; the limit is 4,096")
        self._values = dict(values)

    def fill(self, text: str, where: str) -> str:
        """The text with every {{name}} replaced. Raises PolicyError for a name without a value."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name not in self._values:
                raise PolicyError(where, f"{{{{{name}}}}} is not a named value")
            return self._values[name]

        return _NAMED_VALUE.sub(value, text)


def read_document(path: Path, label: str, named_values: NamedValues, *, limit_bytes: int = MAX_DOCUMENT_BYTES) -> Node:
    """The root element of a policy file; `label` stands for the file in messages. Raises PolicyError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolicyError(label, f"cannot be read: {error.strerror}") from None
    if len(content) > limit_bytes:
        raise PolicyError(label, f"has {len(content)} bytes; the limit is {limit_bytes // 1024} KiB")
    root = _Reader(label, named_values).read(content)
    _number(root, "")
    return root


class _Reader:
    """Builds nodes while expat reads, because the line of an element is known only then."""

    def __init__(self, label: str, named_values: NamedValues) -> None:
        self._label = label
        self._named_values = named_values
        self._open: list[Node] = []
        self._texts: list[list[tuple[int, str]]] = []  # per open element: (line, piece of text)
        self._root: Node | None = None
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = False
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, content: bytes) -> Node:
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            raise PolicyError(f"{self._label}:{error.lineno}", f"is not XML: {expat.ErrorString(error.code)}") from None
        assert self._root is not None
        return self._root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        node = Node(name, self._label, self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber)
        for attribute, text in attributes.items():
            where = f"{node.where} {attribute}"
            node.attributes[attribute] = Value(self._fill(text, where), where)
        if self._open:
            self._open[-1].children.append(node)
        else:
            self._root = node
        self._open.append(node)
        self._texts.append([])

    def _end(self, name: str) -> None:
        node, pieces = self._open.pop(), self._texts.pop()
        line = next((line for line, piece in pieces if piece.strip()), None)
        if line is None:
            return
        where = f"{self._label}:{line}: <{node.name}>"
        text = self._fill("".join(piece for _, piece in pieces), where)
        if node.children:
            raise PolicyError(where, f"has text beside its child elements: {text.strip()[:60]!r}")
        node.text = Value(text, where)

    def _characters(self, text: str) -> None:
        if not self._texts:
            return
        self._texts[-1].append((self._parser.CurrentLineNumber, text))

    def _doctype(self, *_: object) -> None:
        raise PolicyError(f"{self._label}:{self._parser.CurrentLineNumber}", "a document type is not allowed")

    def _fill(self, text: str, where: str) -> str:
        """With named values filled in. Space around an expression is layout; in plain text every space counts."""
        filled = self._named_values.fill(text, where)
        stripped = filled.strip()
        if stripped.startswith(_EXPRESSION_STARTS):
            if not stripped.endswith(")" if stripped[1] == "(" else "}"):
                raise PolicyError(where, "an expression must be the whole value")
            return stripped
        if any(start in filled for start in _EXPRESSION_STARTS):
            raise PolicyError(where, "an expression must be the whole value")
        return filled


def _number(node: Node, path: str) -> None:
    counts: dict[str, int] = {}
    for child in node.children:
        counts[child.name] = counts.get(child.name, 0) + 1
        child.path = f"{path}{child.name}[{counts[child.name]}]"
        _number(child, f"{child.path}/")
