"""The tokens of an expression's text, and places in it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Line and column in the expression's text, both from 1."""

    line: int
    column: int


class SourceProblem(Exception):
    """This text is refused before it is compiled."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


@dataclass(frozen=True)
class Token:
    """`kind` is one of name, number, text (strings and characters) and sign."""

    kind: str
    text: str
    offset: int


_SKIPPED = re.compile(r"\s+|//[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"@?[^\W\d]\w*")
_NUMBER = re.compile(r"(?:0[xX][\w]*|0[bB]\w*|\.?\d(?:[eE][+-]\d|[\w]|\.(?=\d))*)")
_PLAIN_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')
_VERBATIM_STRING = re.compile(r'@"(?:""|[^"])*"')
_CHARACTER = re.compile(r"'(?:\\[^\n]|[^'\\\n])[^'\n]*'")
_SIGN = re.compile(r"\?\?=?|\?\.|=>|==|!=|<=|>=|&&|\|\||\+\+|--|->|::|.", re.DOTALL)
_PAIRS = {")": "(", "]": "[", "}": "{"}


def tokenize(text: str) -> list[Token]:
    """The tokens of an expression, `@(...)` or `@{...}`, without its own brackets. Raises SourceProblem.

    What stands in the holes of an interpolated string is tokens too; the rest of the string is not.
    """
    if not re.fullmatch(r"@\(.*\)|@\{.*\}", text, re.DOTALL):
        raise SourceProblem(Position(1, 1), "an expression is @(...) or @{...}")
    tokens: list[Token] = []
    _scan(text, len("@("), len(text) - 1, tokens)
    _check_brackets(text, tokens)
    return tokens


def find_name(text: str, type_name: str, member: str | None) -> Position:
    """Where an expression most likely uses a type or member: the first token of that name, else its beginning."""
    wanted = [member.partition("(")[0].rpartition(".")[2]] if member else []
    wanted.append(re.split(r"[.+]", type_name)[-1].partition("`")[0])
    tokens = tokenize(text)
    for name in wanted:
        for token in tokens:
            if token.text == name:
                return position(text, token.offset)
    return Position(1, 1)


def position(text: str, offset: int) -> Position:
    """Line and column of an offset."""
    before = text[:offset]
    return Position(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _check_brackets(text: str, tokens: list[Token]) -> None:
    """Brackets that do not pair would let an expression end the method it is compiled into."""
    opened: list[Token] = []
    for token in tokens:
        if token.kind != "sign":
            continue
        if token.text in "([{":
            opened.append(token)
        elif token.text in _PAIRS and (not opened or opened.pop().text != _PAIRS[token.text]):
            raise SourceProblem(position(text, token.offset), f"{token.text} closes nothing")
    if opened:
        raise SourceProblem(position(text, opened[-1].offset), f"{opened[-1].text} is not closed")


def _scan(text: str, start: int, end: int, tokens: list[Token]) -> None:
    at = start
    while at < end:
        if skipped := _SKIPPED.match(text, at, end):
            at = skipped.end()
        elif text[at] == "$" or text.startswith('@$"', at):
            at = _scan_interpolated(text, at, end, tokens)
        else:
            token = _token(text, at, end)
            tokens.append(token)
            at += len(token.text)


def _token(text: str, at: int, end: int) -> Token:
    for kind, pattern in (
        ("text", _VERBATIM_STRING),
        ("text", _PLAIN_STRING),
        ("text", _CHARACTER),
        ("name", _NAME),
        ("number", _NUMBER),
        ("sign", _SIGN),
    ):
        if kind == "sign" and text[at] in "\"'":
            break
        if found := pattern.match(text, at, end):
            return Token(kind, found.group(), at)
    raise SourceProblem(position(text, at), f"{text[at]} is not closed")


def _scan_interpolated(text: str, start: int, end: int, tokens: list[Token]) -> int:
    """Reads $"..." or $@"..." and returns the offset after it."""
    opening = re.compile(r'\$@?"|@\$"').match(text, start, end)
    if opening is None:
        raise SourceProblem(position(text, start), f"unexpected {text[start]!r}")
    is_verbatim = "@" in opening.group()
    tokens.append(Token("text", opening.group(), start))
    at = opening.end()
    while at < end:
        if (
            text.startswith(("{{", "}}"), at)
            or (is_verbatim and text.startswith('""', at))
            or (text[at] == "\\" and not is_verbatim)
        ):
            at += 2
        elif text[at] == '"':
            return at + 1
        elif text[at] == "{":
            at = _scan_hole(text, at, end, tokens)
        else:
            at += 1
    raise SourceProblem(position(text, start), "the string is not closed")


def _scan_hole(text: str, start: int, end: int, tokens: list[Token]) -> int:
    depth, at = 0, start
    while at < end:
        if skipped := _SKIPPED.match(text, at, end):
            at = skipped.end()
        elif text[at] == "$":
            at = _scan_interpolated(text, at, end, tokens)
        elif text[at] == ":" and depth == 1:
            # A format, which is text: {1:N2}. A colon of ?: stands in brackets inside a hole.
            closing = text.find("}", at, end)
            if closing < 0:
                break
            tokens.append(Token("sign", "}", closing))
            return closing + 1
        else:
            token = _token(text, at, end)
            tokens.append(token)
            at += len(token.text)
            if token.kind == "sign" and token.text in "([{":
                depth += 1
            elif token.kind == "sign" and token.text in _PAIRS:
                depth -= 1
                if depth == 0:
                    return at
    raise SourceProblem(position(text, start), "{ is not closed")
