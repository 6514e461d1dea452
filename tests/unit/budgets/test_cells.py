"""Cell ids: unique, parsed back exactly, and refused when they are no cell ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.budgets.cells import CellFamily, cell_at, parse_cell
from shared.budgets.periods import period_at

NOW_S = 1_795_255_200
HOSTILE = ["*", "a|b", "a:b", "{acme}", "%7C", "ä€😀", " ", "a b", "/../x", "'\"", "|day|UTC|0", "team:x|day|UTC|0"]


def cell_of(key: str, scope_type: str = "user", kind: str = "month", zone: str = "Europe/Amsterdam"):
    return cell_at(CellFamily(scope_type, kind, zone), key, period_at(kind, zone, NOW_S))


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_come_back_unchanged(key):
    """Whatever a caller names itself, the id is parsed back to the same scope and holds no separator or brace."""
    cell = cell_of(key)
    assert parse_cell(cell.id) == cell
    assert cell.id.count("|") == 3
    assert "{" not in cell.id
    assert cell.scope == f"user:{key}"


@given(st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable()), st.text(min_size=1, max_size=60))
@settings(max_examples=300, deadline=None)
def test_two_keys_never_share_a_cell(one, other):
    """If two keys made one id, one caller would spend the other's budget."""
    other = other.encode("utf-8", "ignore").decode() or "x"
    assert (cell_of(one).id == cell_of(other).id) == (one == other)


def test_zones_and_kinds_keep_cells_apart():
    """A day in Amsterdam and a day in Kolkata are two counters, and so are a day and a month."""
    ids = {cell_of("ada", kind=kind, zone=zone).id for kind in ("day", "month") for zone in ("UTC", "Asia/Kolkata")}
    assert len(ids) == 4


def test_a_cell_without_an_end_has_its_own_id():
    """A total starts at 0 and is parsed back like any other."""
    cell = cell_of("ada", kind="total")
    assert cell.id == "user:ada|total|Europe/Amsterdam|0"
    assert parse_cell(cell.id) == cell


@pytest.mark.parametrize(
    "text",
    [
        "",
        "team:x",
        "team:x|fortnight|UTC|0",
        "team:x|day|UTC|1",
        "team:x|day|UTC|zero",
        "team:x|day|Nowhere/Zone|0",
        "team:x|day|Europe|0",
        "team:x|day|../../etc/passwd|0",
        "team:x|day|UTC|999999999999999999999999999999",
        "team:x|day|UTC|253402214400",
        "team:a b|day|UTC|0",
        "|||",
    ],
)
def test_what_is_no_cell_id_is_a_value_error(text):
    """A grant may name any cell; one that cannot exist is refused, because another error would stop its partition."""
    with pytest.raises(ValueError, match=r".*"):
        parse_cell(text)
