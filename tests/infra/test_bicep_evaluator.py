"""The evaluator of Bicep: what tests conclude from it rests on what it makes of the language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.bicep import Resource, Runtime, evaluate
from tests.support.bicep_syntax import BicepError

STORAGE = "Microsoft.Storage/storageAccounts@2025-01-01"


def value(expression: str, tmp_path: Path, before: str = "") -> Any:
    """What an expression is, as a resource's property."""
    body = f"{{\n  name: 'r'\n  properties: {{ it: {expression} }}\n}}"
    return one(f"{before}\nresource r '{STORAGE}' = {body}", tmp_path)["properties"]["it"]


def one(source: str, tmp_path: Path, **parameters: Any) -> dict[str, Any]:
    return found(source, tmp_path, **parameters)[-1].body


def found(source: str, tmp_path: Path, **parameters: Any) -> list[Resource]:
    file = tmp_path / "main.bicep"
    file.write_text(source)
    return evaluate(file, parameters)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("null ?? { a: 1 }.a", 1),
        ("{ a: 1 }.?b ?? 2", 2),
        ("!false && 1 < 2", True),
        ("1 == 2 ? 'a' : 1 == 1 ? 'b' : 'c'", "b"),
        ("true\n    ? 'a'\n    : 'b'", "a"),
        ("'x${1 + 1}-${'y${true}'}'", "x2-ytrue"),
        ("'it\\'s \\${not} \\u{e9}'", "it's ${not} é"),
        ("'''\nas ${it} is'''", "as ${it} is"),
        ("[1, 2]", [1, 2]),
        ("[\n  1\n  ...[2, 3]\n]", [1, 2, 3]),
        ("{ a: 1, ...{ b: 2 } }", {"a": 1, "b": 2}),
        ("[for (x, i) in ['a', 'b']: '${x}${i}']", ["a0", "b1"]),
        ("map([1, 2], x => x * 2)", [2, 4]),
        ("map([{ a: 1 }], x => x.a)", [1]),
        ("reduce([1, 2, 3], 0, (sum, x) => sum + x)", 6),
        ("toObject([{ k: 'a', v: 1 }], x => x.k, x => x.v)", {"a": 1}),
        ("items({ b: 2, a: 1 })[0].key", "a"),
        ("union({ a: { b: 1 } }, { a: { c: 2 } })", {"a": {"b": 1, "c": 2}}),
        ("cidrSubnet('10.0.0.0/24', 26, 1)", "10.0.0.64/26"),
        ("double(4)", 8),
    ],
)
def test_expressions(expression: str, expected: Any, tmp_path: Path) -> None:
    """Operators bind as in the language; strings, loops, lambdas and functions give what they give there."""
    assert value(expression, tmp_path, "func double(x int) int => x * 2") == expected


def test_what_only_azure_knows_names_where_it_comes_from(tmp_path: Path) -> None:
    """An id is known before deployment, a property is not."""
    a = f"resource a '{STORAGE}' = {{\n  name: 'a'\n}}\n"
    tags = "{ i: a.id, k: a.listKeys().keys[0], p: a.properties.x }"
    tags = one(f"{a}resource b '{STORAGE}' = {{\n  name: 'b'\n  tags: {tags}\n}}", tmp_path)["tags"]
    assert tags["i"].endswith("/providers/Microsoft.Storage/storageAccounts/a")
    assert tags["p"] == Runtime("«Microsoft.Storage/storageAccounts:a#properties.x»")
    assert "listKeys()" in tags["k"]


def test_loops_conditions_nesting_and_modules(tmp_path: Path) -> None:
    """A resource stands in its parent, an untrue condition deploys nothing, a module deploys what it is told to."""
    inner = f"""
param names array
resource all '{STORAGE}' = [for name in names: {{ name: name }}]
output first string = all[0].id"""
    (tmp_path / "inner.bicep").write_text(inner)
    source = f"""
module inner 'inner.bicep' = {{
  name: 'inner'
  params: {{ names: ['x', 'y'] }}
}}
resource no '{STORAGE}' = if (1 > 2) {{
  name: 'no'
}}
resource outer '{STORAGE}' = {{
  name: 'outer'
  tags: {{ first: inner.outputs.first }}
  resource blobs 'blobServices' = {{
    name: 'default'
    resource containers 'containers' = [for c in ['c']: {{ name: c }}]
  }}
}}"""
    resources = found(source, tmp_path)
    assert [r.name for r in resources] == ["x", "y", "outer", "outer/default", "outer/default/c"]
    outer, container = resources[2], resources[4]
    assert outer.body["tags"]["first"] == resources[0].id
    assert resources[1].id in outer.needs  # a module is waited for as a whole
    assert resources[3].id in container.needs


def test_an_existing_resource_is_not_waited_for(tmp_path: Path) -> None:
    """Reading one gives its id and no order, which is the trap that dependsOn is for."""
    a = f"resource a '{STORAGE}' existing = {{\n  name: 'a'\n}}\n"
    [b] = found(f"{a}resource b '{STORAGE}' = {{\n  name: 'b'\n  tags: {{ i: a.id }}\n}}", tmp_path)
    assert b.needs == set()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("var a = b\nresource r '%s' = {\n  name: a\n}", "b is not declared"),
        ("param a string\nresource r '%s' = {\n  name: a\n}", "a has no value"),
        ("resource r '%s' = {\n  name: unheardOf()\n}", "line 2: unheardOf() is not understood here"),
        ("resource r '%s' = {\n  name: {}.a\n}", "line 2: KeyError"),
        ("assert a = true", "line 1: 'assert' is not understood here"),
        ("var a = 'b", "line 1: a string is not closed"),
        ("var a = 1 1", "line 1: unexpected 1"),
        ("resource r '%s' = {\n  name: fail('too small')\n}", "too small"),
        ("var a = b\nvar b = a\nresource r '%s' = {\n  name: a\n}", "is made of itself"),
    ],
)
def test_what_is_not_understood_is_said(source: str, complaint: str, tmp_path: Path) -> None:
    """With the line: a guess would let a test pass on nothing."""
    with pytest.raises(BicepError) as raised:
        found(source.replace("%s", STORAGE), tmp_path)
    assert complaint in str(raised.value)


def test_parameters_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A parameter renamed in the template must not be given under its old name and ignored."""
    with pytest.raises(BicepError, match="has no parameter old"):
        found("param new string = 'a'", tmp_path, old="b")
