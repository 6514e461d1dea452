"""An expression's tokens, and what is refused by them: no compiler is needed for these."""

from __future__ import annotations

import pytest

from local.apim.expressions.source import Position, SourceProblem, find_name, tokenize
from local.apim.expressions.syntax import check_constants, check_syntax


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("@(a.B(1))", ["a", ".", "B", "(", "1", ")"]),
        ("@{ return x?.Y ?? 0x_F; }", ["return", "x", "?.", "Y", "??", "0x_F", ";"]),
        (r"""@("a\"b" + @"c""\" + '\'' + 'd')""", [r'"a\"b"', "+", r'@"c""\"', "+", r"'\''", "+", "'d'"]),
        ("@(1 // is null\n + /* 1_0 */ 1.5e-3)", ["1", "+", "1.5e-3"]),
        ('@($"{{x}} {a + "}"} {b:N2}" + c)', ['$"', "{", "a", "+", '"}"', "}", "{", "b", "}", "+", "c"]),
        ('@($@"C:\\{a}""" + b)', ['$@"', "{", "a", "}", "+", "b"]),
        ('@($"{(a ? $"{b}" : "c")}")', ['$"', "{", "(", "a", "?", '$"', "{", "b", "}", ":", '"c"', ")", "}"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    """Texts and comments hide what they contain; the holes of an interpolated string do not."""
    assert [token.text for token in tokenize(text)] == tokens


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("@(1", Position(1, 1)),
        ("@(f(1)))", Position(1, 7)),
        ("@{\n return (1;\n}", Position(2, 9)),
        ('@($"{a")', Position(1, 7)),  # what follows the hole's a begins another string
        ('@("a)', Position(1, 3)),
    ],
)
def test_what_does_not_close_is_refused_with_its_place(text: str, place: Position) -> None:
    """Else an expression could end the method that it is compiled into, and begin another."""
    with pytest.raises(SourceProblem) as raised:
        tokenize(text)
    assert raised.value.position == place


def test_the_place_of_a_member_is_its_first_use() -> None:
    """Findings in compiled code know names only; a member is looked for before its type, and the beginning is the last
    resort."""
    text = "@{\n  var t = DateTime.UtcNow;\n  return DateTime.ParseExact(s, f, null);\n}"
    assert find_name(text, "System.DateTime", "ParseExact") == Position(3, 19)
    assert find_name(text, "System.String", "System.DateTime.UtcNow(Int32)") == Position(2, 20)
    assert find_name(text, "System.Xml.Linq.XNode", "Parse") == Position(1, 1)


def test_constants_of_other_types_are_found_however_they_are_written() -> None:
    """By simple or full name; a member that happens to have the type's name is none of them."""
    allow_list = {"usings": ["System"], "types": {"System.Int32": "all", "System.Known": ["Good"]}}
    others = {"System.DayOfWeek": [], "System.Known": ["Good"], "Other.Int32": []}

    def is_refused(text: str) -> bool:
        try:
            check_constants(text, tokenize(text), others, allow_list)
        except SourceProblem:
            return True
        return False

    assert is_refused("@(DayOfWeek.Monday)")
    assert is_refused("@(System.DayOfWeek.Monday)")
    assert is_refused("@(global::System.DayOfWeek.Monday)")
    assert is_refused("@(Known.Bad)")
    assert not is_refused("@(Known.Good)")
    assert not is_refused("@(now.DayOfWeek.ToString())")
    assert not is_refused("@(Int32.MaxValue)")
    assert not is_refused('@("DayOfWeek.Monday")')


@pytest.mark.parametrize(
    "text",
    [
        "@{ if (a(1)) { return f(x); } else if (b) { return new X(1) { A = 2 }; } return g(y); }",
        "@{ foreach (var x in f(y)) { } while (g(z)) { } using (h(w)) { } catch_(v); return 1; }",
        "@(list.Select(x => f(x)).Where(y => (bool)g(y)).Aggregate((a, b) => a + b))",
        "@{ switch (f(x)) { case 1: return 1; case A.B: return 2; case 'c': return 3; default: return 4; } }",
        '@(x is string s ? s : "is null")',
        "@(0xFF_FF + 0b11_11)",
    ],
)
def test_ordinary_c_sharp_is_left_to_the_compiler(text: str) -> None:
    """Statements that look a little like local functions or patterns are none."""
    check_syntax(text, tokenize(text))
