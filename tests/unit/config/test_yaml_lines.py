"""Reading YAML: text stays as written, lines are known, with or without PyYAML's C parser."""

from __future__ import annotations

import pytest
import yaml

from shared.config.problems import Problems
from shared.config.yaml_lines import parse_yaml


@pytest.fixture(params=["c", "python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's C parser, and the one used where it is not built."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


def read(text: str) -> dict[str, object]:
    problems = Problems()
    value = parse_yaml("x.yaml", text.encode(), problems)
    problems.raise_if_any("config")
    assert value is not None
    assert isinstance(value.content, dict)
    return {name: field.content for name, field in value.content.items()}


def test_scalars_stay_the_text_that_was_written() -> None:
    """No float, boolean, octal or timestamp is made of anything; only a plain empty value is nothing."""
    assert read("a: 2.50\nb: on\nc: 0123\nd: 2026-01-01\ne: ' x '\nf: 1e3\ng: 'no'") == {
        "a": "2.50",
        "b": "on",
        "c": "0123",
        "d": "2026-01-01",
        "e": "x",
        "f": "1e3",
        "g": "no",
    }
    assert read("a:\nb: ~\nc: null\nd: ''\ne: 'null'") == {"a": None, "b": None, "c": None, "d": "", "e": "null"}


def test_places_are_lines_and_paths() -> None:
    """A value knows its line and its way from the top."""
    value = parse_yaml("x.yaml", b"\xef\xbb\xbf# comment\nlist:\n  - a: 1\n    b: 2\n", Problems())
    assert value is not None
    item = value.content["list"].content[0]  # type: ignore[call-overload, index, union-attr]
    assert item.content["b"].place == ("x.yaml", 4, "list[0].b")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_nothing(text: str) -> None:
    """Empty files are no mistake: a section may be commented out as a whole."""
    problems = Problems()
    value = parse_yaml("x.yaml", text.encode(), problems)
    problems.raise_if_any("config")
    assert value is None
