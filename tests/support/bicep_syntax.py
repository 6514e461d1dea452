"""Bicep source as a tree: declarations and expressions, with the language's own precedence.

No Bicep compiler is to be had from PyPI, npm or Debian, and the published tree-sitter grammar binds `a ?? b.c` as
`(a ?? b).c`. What is not understood here is an error with its line, never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_SKIPPED = re.compile(r"(?:[ \t\r]+|//[^\n]*|/\*.*?\*/|#disable-[^\n]*)+", re.DOTALL)
_TOKEN = re.compile(
    r"(?P<newline>\n\s*)|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<mark>\.\.\.|=>|\?\?|\?\.|\.\?|\[\?|::|==|!=|=~|!~|<=|>=|&&|\|\||[-+*/%<>!?:.,=(){}\[\]@|])"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", "$": "$"}
_BINARY = (
    ("??",),
    ("||",),
    ("&&",),
    ("==", "!=", "=~", "!~"),
    ("<", "<=", ">", ">="),
    ("+", "-"),
    ("*", "/", "%"),
)


class BicepError(Exception):
    """The source is not Bicep, or says something that is not understood here."""


@dataclass(frozen=True)
class Token:
    kind: str  # newline, number, name, mark, string, end
    value: Any
    line: int


@dataclass(frozen=True)
class Node:
    """An expression: its kind, its parts in the order in which they are written, and its line."""

    kind: str
    parts: tuple[Any, ...]
    line: int


@dataclass
class Declaration:
    """`param`, `var`, `output`, `resource`, `module`, `func`, or `using` of a parameter file."""

    kind: str
    name: str
    line: int
    value: Node | None = None
    target: str = ""  # type@version of a resource, path of a module
    existing: bool = False
    arguments: tuple[str, ...] = ()  # of a function
    secure: bool = False
    nested: list[Declaration] = field(default_factory=list)


def parse(source: str) -> list[Declaration]:
    """Every declaration of a .bicep or .bicepparam file."""
    return _Parser(_tokens(source, 0, 1, until_brace=False)[0]).file()


def _tokens(source: str, at: int, line: int, *, until_brace: bool) -> tuple[list[Token], int, int]:
    """Tokens from `at`, to the end or to the brace that closes an interpolation; where that is, and its line."""
    tokens: list[Token] = []
    depth = 0
    while True:
        if skipped := _SKIPPED.match(source, at):
            line += skipped.group().count("\n")
            at = skipped.end()
        if at >= len(source):
            if until_brace:
                raise BicepError(f"line {line}: an interpolation is not closed")
            return [*tokens, Token("end", None, line)], at, line
        if source[at] == "'":
            token, at, line = _string(source, at, line)
            tokens.append(token)
            continue
        found = _TOKEN.match(source, at)
        if found is None:
            raise BicepError(f"line {line}: cannot read {source[at : at + 20]!r}")
        text, kind = found.group(), str(found.lastgroup)
        if kind == "mark":
            depth += (text == "{") - (text == "}")
            if depth < 0 and until_brace:
                return [*tokens, Token("end", None, line)], found.end(), line
        tokens.append(Token(kind, int(text) if kind == "number" else text, line))
        line += text.count("\n")
        at = found.end()


def _string(source: str, at: int, line: int) -> tuple[Token, int, int]:
    """A string literal as a list of texts and token lists (one for each interpolation)."""
    start = line
    if source.startswith("'''", at):
        end = source.index("'''", at + 3)
        text = source[at + 3 : end]
        return Token("string", [text.removeprefix("\r").removeprefix("\n")], start), end + 3, line + text.count("\n")
    parts: list[Any] = [""]
    at += 1
    while True:
        if at >= len(source) or source[at] == "\n":
            raise BicepError(f"line {start}: a string is not closed")
        if source[at] == "'":
            return Token("string", parts, start), at + 1, line
        if source.startswith("${", at):
            inner, at, line = _tokens(source, at + 2, line, until_brace=True)
            parts += [inner, ""]
        elif source[at] == "\\":
            if source[at + 1] == "u":
                end = source.index("}", at)
                parts[-1] += chr(int(source[at + 3 : end], 16))
                at = end + 1
            else:
                parts[-1] += _ESCAPES[source[at + 1]]
                at += 2
        else:
            parts[-1] += source[at]
            at += 1


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    # -- tokens ------------------------------------------------------------------------------------------------------
    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _is(self, *marks: str) -> bool:
        return self._next.kind in ("mark", "name") and self._next.value in marks

    def _accept(self, *marks: str) -> Token | None:
        return self._take() if self._is(*marks) else None

    def _expect(self, mark: str) -> Token:
        if not self._is(mark):
            raise BicepError(f"line {self._next.line}: expected {mark!r}, found {self._next.value!r}")
        return self._take()

    def _name(self) -> str:
        if self._next.kind != "name":
            raise BicepError(f"line {self._next.line}: expected a name, found {self._next.value!r}")
        return str(self._take().value)

    def _newlines(self) -> None:
        while self._next.kind == "newline":
            self._take()

    def _accept_on_next_line(self, mark: str) -> bool:
        """A mark that may stand at the beginning of a line, as those of a ternary do."""
        at = self._at
        self._newlines()
        if self._accept(mark):
            self._newlines()
            return True
        self._at = at
        return False

    # -- declarations ------------------------------------------------------------------------------------------------
    def file(self) -> list[Declaration]:
        found = []
        self._newlines()
        while self._next.kind != "end":
            declaration = self._declaration()
            if declaration is not None:
                found.append(declaration)
            if self._next.kind not in ("newline", "end"):
                raise BicepError(f"line {self._next.line}: unexpected {self._next.value!r}")
            self._newlines()
        return found

    def _declaration(self) -> Declaration | None:
        secure = False
        while self._accept("@"):
            secure |= "secure" in str(self._expression())
            self._newlines()
        line, word = self._next.line, self._name()
        if word in ("targetScope", "metadata", "type"):
            self._skip_statement()
            return None
        if word == "using":
            return Declaration("using", "", line, target=self._plain_string())
        declaration = Declaration(word, self._name(), line, secure=secure)
        match word:
            case "param" | "output":
                if self._type():
                    declaration.value = Node("literal", (None,), line)
                if self._accept("="):
                    declaration.value = self._expression()
            case "var":
                if not self._is("="):
                    self._type()
                self._expect("=")
                declaration.value = self._expression()
            case "resource" | "module":
                declaration.target = self._plain_string()
                declaration.existing = self._accept("existing") is not None
                self._expect("=")
                declaration.value = self._body(declaration)
            case "func":
                self._expect("(")
                declaration.arguments = tuple(self._list(")", self._typed_argument))
                self._type()
                self._expect("=>")
                declaration.value = self._expression()
            case _:
                raise BicepError(f"line {line}: {word!r} is not understood here")
        return declaration

    def _typed_argument(self) -> str:
        name = self._name()
        self._type()
        return name

    def _skip_statement(self) -> None:
        depth = 0
        while self._next.kind != "end" and (depth or self._next.kind != "newline"):
            depth += self._is("{", "[", "(") - self._is("}", "]", ")")
            self._take()

    def _type(self) -> bool:
        """Whether null is allowed. Otherwise types decide nothing here and are read over, to `=`, `=>` or an end."""
        depth, start = 0, self._at
        while self._next.kind != "end":
            if depth == 0 and (self._next.kind == "newline" or self._is("=", "=>", ",", ")")):
                break
            depth += self._is("{", "[", "(") - self._is("}", "]", ")")
            self._take()
        return self._at > start and self._tokens[self._at - 1].value == "?"

    def _plain_string(self) -> str:
        token = self._take()
        if token.kind != "string" or len(token.value) != 1:
            raise BicepError(f"line {token.line}: expected a plain string")
        return str(token.value[0])

    def _body(self, owner: Declaration) -> Node:
        """The value of a resource or module: an object, under a condition, or of each element of a loop."""
        if self._is("["):
            return self._loop(lambda: self._body(owner))
        if word := self._accept("if"):
            condition = self._primary()
            return Node("if", (condition, self._body(owner)), word.line)
        return self._object(owner)

    # -- expressions -------------------------------------------------------------------------------------------------
    def expression_to_end(self) -> Node:
        node = self._expression()
        self._newlines()
        if self._next.kind != "end":
            raise BicepError(f"line {self._next.line}: unexpected {self._next.value!r}")
        return node

    def _expression(self) -> Node:
        condition = self._binary(0)
        if not self._accept_on_next_line("?"):
            return condition
        yes = self._expression()
        if not self._accept_on_next_line(":"):
            raise BicepError(f"line {self._next.line}: expected ':' of a condition")
        return Node("ternary", (condition, yes, self._expression()), condition.line)

    def _binary(self, level: int) -> Node:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while operator := self._accept(*_BINARY[level]):
            self._newlines()
            left = Node("binary", (operator.value, left, self._binary(level + 1)), operator.line)
        return left

    def _unary(self) -> Node:
        if operator := self._accept("!", "-"):
            return Node("unary", (operator.value, self._unary()), operator.line)
        return self._postfix()

    def _postfix(self) -> Node:
        node = self._primary()
        while mark := self._accept(".", ".?", "::", "[", "[?", "!"):
            match mark.value:
                case "." | ".?" | "::":
                    name = self._name()
                    if mark.value == "." and self._accept("("):
                        node = Node("method", (node, name, *self._list(")", self._expression)), mark.line)
                    else:
                        kind = {".": "member", ".?": "safe-member", "::": "nested"}[mark.value]
                        node = Node(kind, (node, Node("text", (name,), mark.line)), mark.line)
                case "[" | "[?":
                    index = self._expression()
                    self._expect("]")
                    node = Node("member" if mark.value == "[" else "safe-member", (node, index), mark.line)
        return node

    def _primary(self) -> Node:
        token = self._next
        if token.kind == "number":
            return Node("literal", (self._take().value,), token.line)
        if token.kind == "string":
            parts = [p if isinstance(p, str) else _Parser(p).expression_to_end() for p in self._take().value]
            return Node("string", tuple(parts), token.line)
        if self._is("{"):
            return self._object(None)
        if self._is("["):
            return self._array()
        if self._is("("):
            return self._parenthesis()
        name = self._name()
        if name in ("true", "false", "null"):
            return Node("literal", ({"true": True, "false": False, "null": None}[name],), token.line)
        if self._accept("=>"):
            return Node("lambda", ((name,), self._expression()), token.line)
        if self._accept("("):
            return Node("call", (name, *self._list(")", self._expression)), token.line)
        return Node("name", (name,), token.line)

    def _parenthesis(self) -> Node:
        line, start = self._expect("(").line, self._at
        names = [token.value for token in self._tokens[start:] if token.kind in ("name", "mark")]
        arrow = next((i for i, name in enumerate(names) if name == ")"), 0)
        if names[arrow + 1 : arrow + 2] == ["=>"] and all(
            n == "," or n.isidentifier() for n in names[:arrow] if isinstance(n, str)
        ):
            arguments = tuple(self._list(")", self._name))
            self._expect("=>")
            return Node("lambda", (arguments, self._expression()), line)
        self._newlines()
        inner = self._expression()
        self._newlines()
        self._expect(")")
        return inner

    def _list(self, end: str, element: Callable[[], Any]) -> list[Any]:
        """Elements up to `end`, separated by commas, lines, or both."""
        found = []
        self._newlines()
        while not self._accept(end):
            found.append(element())
            if not self._is(end) and self._next.kind != "newline":
                self._expect(",")
            self._newlines()
        return found

    def _array(self) -> Node:
        if self._tokens[self._at + 1].value == "for":
            return self._loop(self._expression)
        line = self._expect("[").line
        return Node("array", tuple(self._list("]", self._element)), line)

    def _element(self) -> Node:
        if mark := self._accept("..."):
            return Node("spread", (self._expression(),), mark.line)
        return self._expression()

    def _loop(self, body: Callable[[], Node]) -> Node:
        line = self._expect("[").line
        self._expect("for")
        names = self._list(")", self._name) if self._accept("(") else [self._name()]
        self._expect("in")
        over = self._expression()
        self._expect(":")
        self._newlines()
        node = Node("for", (tuple(names), over, body()), line)
        self._newlines()
        self._expect("]")
        return node

    def _object(self, owner: Declaration | None) -> Node:
        """An object; in a resource's own body also the resources that are declared inside of it."""
        line = self._expect("{").line
        members: list[Any] = []
        self._newlines()
        while not self._accept("}"):
            following = self._tokens[self._at + 1]
            if owner is not None and (self._is("@") or (self._is("resource") and following.kind == "name")):
                inner = self._declaration()
                assert inner is not None
                owner.nested.append(inner)
            else:
                members.append(self._member())
            if not self._is("}") and self._next.kind != "newline":
                self._expect(",")
            self._newlines()
        return Node("object", tuple(members), line)

    def _member(self) -> tuple[Node, Node]:
        line = self._next.line
        if mark := self._accept("..."):
            return Node("spread", (), mark.line), self._expression()
        key = self._primary() if self._next.kind == "string" else Node("text", (self._name(),), line)
        self._expect(":")
        self._newlines()
        return key, self._expression()
