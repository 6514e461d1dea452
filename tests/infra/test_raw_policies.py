"""The policies that Terraform deploys are the files that the tests execute, read by API Management's rule.

The files are XML. Terraform sends rawxml, in which an expression stands unescaped: it begins at `@(` or `@{` and ends
at the bracket that closes it, as C# counts brackets. Escaping what stands between must give the file again.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.terraform_values import evaluate

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "apim-policies"
SECTIONS = ("inbound", "backend", "outbound", "on-error")
FILES = {path.stem: path.read_text() for path in sorted(POLICIES.glob("fragments/*.xml"))} | {
    "openai": f"<policies>{''.join((POLICIES / f'{name}-policy.xml').read_text() for name in SECTIONS)}</policies>"
}
# A comment, a string, a character, or anything else, one at a time: brackets count in the last only.
_CSHARP = re.compile(r'/\*.*?\*/|//[^\n]*|@"(?:[^"]|"")*"|"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'|.", re.DOTALL)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`local.raw_policies`, which a test of Terraform's own finds in the plan."""
    folder = tmp_path_factory.mktemp("policies")
    (folder / "infra" / "terraform").mkdir(parents=True)
    shutil.copy(ROOT / "infra" / "terraform" / "locals.policies.tf", folder / "infra" / "terraform")
    shutil.copytree(POLICIES, folder / "apim-policies")
    return evaluate("local.raw_policies", folder / "infra" / "terraform")


def end_of_expression(text: str, start: int) -> int:
    """The index after the bracket that closes the one at `start` + 1."""
    depth = 0
    for part in _CSHARP.finditer(text, start + 1):
        depth += (part[0] in "({") - (part[0] in ")}")
        if depth == 0:
            return part.end()
    raise AssertionError(f"an expression does not end: {text[start : start + 60]}")


def read_raw(text: str) -> str:
    """The XML that rawxml means."""
    pieces, done = [], 0
    for comment_or_start in re.finditer(r"<!--.*?-->|@[({]", text, re.DOTALL):
        start = comment_or_start.start()
        if start < done or comment_or_start[0].startswith("<"):
            continue
        end = end_of_expression(text, start)
        in_attribute = text[start - 1] == '"'
        assert text[end] == '"' if in_attribute else text[end] == "<", text[start - 20 : end + 1]
        pieces += [text[done:start], html.escape(text[start:end], quote=in_attribute)]
        done = end
    return "".join([*pieces, text[done:]])


def meaning(xml: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Every element with attributes and text, as an XML reader gives them: line breaks in attributes are blanks."""
    for element in ElementTree.fromstring(xml).iter():
        yield element.tag, dict(element.attrib), (element.text or "").strip()


@pytest.mark.parametrize("name", FILES)
def test_what_is_deployed_is_what_is_executed(name: str, deployed: dict[str, str]) -> None:
    """Element by element and attribute by attribute: no character of an expression is lost, added or read otherwise."""
    assert list(meaning(read_raw(deployed[name]))) == list(meaning(FILES[name]))


def test_nothing_else_is_deployed(deployed: dict[str, str]) -> None:
    """A fragment without its file would be one that no test has seen."""
    assert set(deployed) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_rawxml_has_nothing_to_escape_outside_of_expressions(name: str) -> None:
    """There an entity would be read as it stands, or taken for an expression's: write it in an expression instead."""
    without = re.sub(r"<!--.*?-->", "", FILES[name], flags=re.DOTALL)
    for element in ElementTree.fromstring(without).iter():
        for text in (*element.attrib.values(), (element.text or "").strip()):
            assert text.startswith(("@(", "@{")) or not re.search(r"[<>&\"'@]", text), text
