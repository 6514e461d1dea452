"""Ways of writing C# that are refused before anything is compiled, each with the reason.

Some are newer than the C# 7 of API Management; some are good C# 7 that mono's compiler lacks, so that a policy which
uses them could not be executed here; one is read by mono's compiler as another number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local.apim.expressions.source import SourceProblem, Token, position

_NOT_IN_MONO = "C# 7 has this, but mono's compiler, which executes policies here, does not"
_NOT_IN_C_SHARP_7 = "API Management compiles C# 7, which does not have this"

# Words that can stand before a name and a bracket without declaring a function: `return f(x)`, `new Regex(x)`.
_NO_RETURN_TYPES = frozenset(
    ("return", "new", "await", "throw", "in", "is", "as", "else", "case", "when", "out", "ref")
)
_STATEMENT_ENDS = frozenset(("{", "}", ";"))


def check_syntax(text: str, tokens: Sequence[Token]) -> None:
    """Raises SourceProblem at the first token that begins something which is refused."""
    for index, token in enumerate(tokens):
        for finds, message in _RULES:
            if finds(tokens, index):
                raise SourceProblem(position(text, token.offset), message)


def check_constants(
    text: str, tokens: Sequence[Token], other_types: Mapping[str, Sequence[str]], allow_list: Mapping[str, Any]
) -> None:
    """Raises SourceProblem for a constant of a type that is not allowed, like DayOfWeek.Monday.

    `other_types` gives the allowed constants by the full name of a type. Compiled code holds only their numbers, so
    this is the one rule of the allow-list that is looked for in the source.
    """
    for index, token in enumerate(tokens):
        if token.kind != "name" or _text(tokens, index - 1) in (".", "?."):
            continue
        chain = _chain(tokens, index)
        for length in range(1, len(chain)):
            name, member = ".".join(chain[:length]), chain[length]
            full_names = (name, *(f"{using}.{name}" for using in allow_list["usings"]))
            if any(allow_list["types"].get(full) == "all" for full in full_names):
                break  # of several types of one name, the compiler knows which is meant
            found = next((full for full in full_names if full in other_types), None)
            if found and member not in other_types[found]:
                allowed = f"the constant {member} of {found}" if other_types[found] else f"the type {found}"
                message = f"{allowed} is not allowed in policy expressions"
                raise SourceProblem(position(text, token.offset), message)


def _chain(tokens: Sequence[Token], index: int) -> list[str]:
    names = [tokens[index].text.lstrip("@")]
    while _text(tokens, index + 1) in (".", "::") and _kind(tokens, index + 2) == "name":
        names.append(tokens[index + 2].text.lstrip("@"))
        index += 2
    return names[1:] if names[0] == "global" else names


def _text(tokens: Sequence[Token], index: int) -> str:
    return tokens[index].text if 0 <= index < len(tokens) else ""


def _kind(tokens: Sequence[Token], index: int) -> str:
    return tokens[index].kind if 0 <= index < len(tokens) else ""


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """The index of the bracket that closes the one at `opening`; the number of tokens when there is none."""
    depth = 0
    for index in range(opening, len(tokens)):
        if tokens[index].kind == "sign" and tokens[index].text in "([{":
            depth += 1
        elif tokens[index].kind == "sign" and tokens[index].text in ")]}":
            depth -= 1
            if depth == 0:
                return index
    return len(tokens)


def _is_misread_number(tokens: Sequence[Token], index: int) -> bool:
    token = tokens[index]
    return token.kind == "number" and "_" in token.text and not re.match(r"0[xXbB]", token.text)


def _is_number_of_c_sharp_7_2(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].kind == "number" and bool(re.match(r"0[xXbB]_", tokens[index].text))


def _is_directive_or_escape(tokens: Sequence[Token], index: int) -> bool:
    """`#line` would move the places that errors name, and a name written \\u0041 would not be recognized."""
    return tokens[index].kind == "sign" and tokens[index].text in ("#", "\\")


def _is_constant_pattern(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].text == "is" and (
        _text(tokens, index + 1) in ("null", "true", "false", "var", "-")
        or _kind(tokens, index + 1) in ("number", "text")
    )


def _is_type_pattern(tokens: Sequence[Token], index: int) -> bool:
    if tokens[index].text != "case":
        return False
    colon = next((at for at in range(index, len(tokens)) if tokens[at].text == ":"), len(tokens))
    names = [token for token in tokens[index + 1 : colon] if token.kind == "name"]
    has_when = any(token.text == "when" for token in names)
    return has_when or (_kind(tokens, colon - 1) == "name" and _kind(tokens, colon - 2) == "name")


def _is_local_function(tokens: Sequence[Token], index: int) -> bool:
    """`int f(int x) {` or `=>`, at the beginning of a statement."""
    if _text(tokens, index + 1) != "(" or tokens[index].kind != "name" or tokens[index].text in _NO_RETURN_TYPES:
        return False
    before = tokens[index - 1] if index else None
    if before is None or before.text in _NO_RETURN_TYPES:
        return False
    if before.kind != "name" and before.text not in (">", "]", "?", ")"):
        return False
    if _text(tokens, _closing(tokens, index + 1) + 1) not in ("{", "=>"):
        return False
    start = index - 1
    while start > 0 and tokens[start - 1].text not in _STATEMENT_ENDS:
        start -= 1
    return tokens[start].kind == "name" and not any(token.text in ("=", "(", "return") for token in tokens[start:index])


def _is_switch_expression(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].text == "switch" and _text(tokens, index + 1) == "{"


def _is_new_pattern(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].text == "is" and _text(tokens, index + 1) in ("not", "{", "<", ">", "<=", ">=", "(")


def _is_using_declaration(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].text == "using" and _text(tokens, index + 1) != "("


def _is_range_or_index(tokens: Sequence[Token], index: int) -> bool:
    is_range = tokens[index].text == "." and _text(tokens, index + 1) == "."
    is_index = tokens[index].text == "[" and _text(tokens, index + 1) == "^"
    return is_range or is_index


def _is_target_typed_new(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].text == "new" and _text(tokens, index + 1) == "("


def _is_raw_string(tokens: Sequence[Token], index: int) -> bool:
    """Three quotes are an empty string and the beginning of another, with nothing between them."""
    return (
        tokens[index].text == '""'
        and _kind(tokens, index + 1) == "text"
        and tokens[index + 1].offset == tokens[index].offset + len('""')
    )


def _is_null_assignment(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].text == "??="


def _is_verbatim_in_new_order(tokens: Sequence[Token], index: int) -> bool:
    return tokens[index].kind == "text" and tokens[index].text.startswith('@$"')


def _is_split_with_options(tokens: Sequence[Token], index: int) -> bool:
    return (
        tokens[index].text == "Split"
        and _text(tokens, index + 2).startswith("'")
        and _text(tokens, index + 3) == ","
        and "StringSplitOptions" in [token.text for token in tokens[index + 4 : index + 9]]
    )


_RULES: tuple[tuple[Callable[[Sequence[Token], int], bool], str], ...] = (
    (_is_misread_number, "mono's compiler reads this as another number; write it without underscores"),
    (_is_directive_or_escape, "directives and escaped names have no place in an expression"),
    (_is_constant_pattern, f"{_NOT_IN_MONO}; compare with == instead"),
    (_is_type_pattern, f"{_NOT_IN_MONO}; write if (x is Type name) instead of a pattern in case"),
    (_is_local_function, f"{_NOT_IN_MONO}; write the function's body where it is used, or a lambda given to LINQ"),
    (_is_number_of_c_sharp_7_2, _NOT_IN_C_SHARP_7),
    (_is_switch_expression, _NOT_IN_C_SHARP_7),
    (_is_new_pattern, _NOT_IN_C_SHARP_7),
    (_is_using_declaration, _NOT_IN_C_SHARP_7),
    (_is_range_or_index, _NOT_IN_C_SHARP_7),
    (_is_target_typed_new, _NOT_IN_C_SHARP_7),
    (_is_raw_string, _NOT_IN_C_SHARP_7),
    (_is_null_assignment, _NOT_IN_C_SHARP_7),
    (_is_verbatim_in_new_order, _NOT_IN_C_SHARP_7),
    (_is_split_with_options, "String.Split(Char,StringSplitOptions) does not exist in .NET Framework"),
)
