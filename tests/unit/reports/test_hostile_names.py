"""Whoever names an app, a model or a team must not be able to run, hide or repaint anything in a statement's files."""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zipfile
from html.parser import HTMLParser

import openpyxl
import pytest

from shared.reports.charge import Charge
from shared.reports.names import cell_text, shortened, visible
from shared.reports.statement import Statement
from tests.support.read_files import csv_rows, parquet_rows, written
from tests.support.statements import HOSTILE_NAMES, every_charge, renamed, statement_of

STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # emoji of several signs
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@pytest.fixture(scope="module")
def hostile() -> tuple[Statement, list[Charge]]:
    """One team per hostile name, which is also its app, model, provider, deployment and cost centre."""
    charges = [
        charge
        for name in HOSTILE_NAMES
        for charge in renamed(
            every_charge(name), app=name, model=name, provider=name, deployment=name, cost_centre=name, region=name
        )
    ]
    statement, charges = statement_of(charges, issuer="=1+1<b>", notes=("<script>alert(1)</script>",))
    return statement, charges


def steers(text: str) -> bool:
    """Whether a display would obey a character of the text instead of showing it."""
    return any(unicodedata.category(c) in STEERING and c not in JOINERS for c in text)


@pytest.mark.parametrize("name", ["csv", "focus", "focus-1.2"])
def test_no_csv_cell_begins_like_a_formula(hostile: tuple[Statement, list[Charge]], name: str) -> None:
    """What begins with = + - @, a tab or a line break is a number; names keep to one line and show what they hide."""
    rows = csv_rows(written(name, *hostile))
    assert len(rows) >= len(HOSTILE_NAMES) * 10
    for row in rows:
        for cell in row.values():
            text = cell.lstrip(" \u00a0")
            assert not text.startswith(FORMULA) or re.fullmatch(r"-[0-9.]+", cell), cell
            assert not steers(cell), cell
    team = "team" if name == "csv" else "SubAccountId"
    assert '\'=HYPERLINK("https://evil.example","pay")' in {row[team] for row in rows}
    assert "abc<U+202E>gnp.exe" in {row[team] for row in rows}


def test_parquet_and_json_keep_names_as_they_are(hostile: tuple[Statement, list[Charge]]) -> None:
    """Formats for programs run nothing and must join with other data, so there a name is the name."""
    teams = {row["SubAccountId"] for row in parquet_rows(written("parquet", *hostile))}
    assert teams == set(HOSTILE_NAMES)
    assert {line["team"] for line in json.loads(written("json", *hostile))["lines"]} == set(HOSTILE_NAMES)


def test_a_workbook_holds_texts_and_numbers_only(hostile: tuple[Statement, list[Charge]]) -> None:
    """No cell is a formula or a link, no text is cut off silently, and a risky one stays text when it is edited."""
    body = written("xlsx", *hostile)
    parts = zipfile.ZipFile(io.BytesIO(body))
    assert not [
        name
        for name in parts.namelist()
        if "external" in name.lower()
        or (name.endswith(".rels") and b"http" in re.sub(rb'(Type|xmlns)="[^"]*"', b"", parts.read(name)))
    ]
    sheets = [parts.read(name) for name in parts.namelist() if name.startswith("xl/worksheets/sheet")]
    assert len(sheets) == 6
    assert not [sheet for sheet in sheets if b"<f>" in sheet or b"<f " in sheet or b"hyperlink" in sheet]
    quoted = openpyxl.load_workbook(io.BytesIO(body))["By team"]
    cells = {str(row[0].value): row[0] for row in quoted.iter_rows(min_row=2)}
    assert set(cells) == {visible(name) for name in HOSTILE_NAMES}
    assert {cell.data_type for cell in cells.values()} == {"s"}
    assert cells["+1+1"].quotePrefix
    assert not cells["x" * 5000].quotePrefix


class Page(HTMLParser):
    """What a browser would make of the page: its elements, their attributes, its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        assert not [value for name, value in attrs if name in ("href", "src", "action") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_names_and_obeys_none(hostile: tuple[Statement, list[Charge]]) -> None:
    """No script, link, image or handler comes out of a name, templates in it are not filled, and it asks nothing of
    the network: its policy forbids all but its own style."""
    body = written("html", *hostile).decode()
    page = Page()
    page.feed(body)
    assert page.tags.isdisjoint({"script", "img", "a", "iframe", "object", "link", "form", "base", "foreignobject"})
    assert not [name for name in page.attributes if name.startswith("on") or name == "srcdoc"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in body
    assert "<script>alert(1)</script>" in page.text  # the note, shown
    assert "://" not in re.sub(r"https://evil\.example(/click)?", "", body)
    assert not steers(body.replace("\n", ""))
    assert len(body.encode()) < 100_000


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_each_hostile_name_is_defused(name: str) -> None:
    """The cell text starts harmlessly and on one line; the shortened name fits a table."""
    text = cell_text(name)
    assert not text.startswith(FORMULA)
    assert not steers(text)
    assert len(shortened(name)) <= 80


def test_ordinary_names_stay_as_they_are() -> None:
    """Other scripts, emoji and punctuation are no attack."""
    for name in ("search", "Zoë & Søn", "检索", "बिल", "a-b=c", "\U0001f469\u200d\U0001f4bb", "مرحبا"):
        assert cell_text(name) == name
