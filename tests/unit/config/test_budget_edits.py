"""Edits of budgets beside git: what holds, what git supersedes, and what never reaches the file."""

from __future__ import annotations

import pytest

from shared.config.edits_yaml import EDITS, write_edits
from shared.config.loader import load_config
from shared.config.model import BudgetEdit, Config
from shared.config.named_values import named_values_digest
from shared.errors import ConfigInvalid

GIT = {
    "tenants.yaml": b"tenants: [{id: default}]",
    "budgets.yaml": b"budgets:\n  - {id: all, scope: 'team:*', period: month, limit: 500, stop: 1.2}\n",
    "teams/search.yaml": b"team: search\nbudgets: [{id: own, period: day, limit: 7.50}]\n",
}


def edited(files: dict[str, bytes], budget: str, figures: str, base: str | None = None) -> Config:
    """The configuration with one edit, made on the git entry as it is unless `base` says otherwise."""
    base = base or load_config(files).entry_digests[budget]
    entry = f'{{budget: {budget}, {figures}, who: ada, why: "quarter end", at: 2026-11-21T10:00:00Z, base: {base}}}'
    return load_config({**files, EDITS: f"edits: [{entry}]".encode()})


def budget_figures(config: Config, budget_id: str) -> tuple[int, int, int, int]:
    (budget,) = [each for each in config.budgets if each.id == budget_id]
    return budget.limit_nano, budget.warn_ppm, budget.degrade_ppm, budget.stop_ppm


def test_an_edit_replaces_only_the_figures_it_names() -> None:
    """The rest stays git's, in budgets.yaml as in a team's file."""
    config = edited(GIT, "all", "limit: 600.10, warn: 0.5")
    assert budget_figures(config, "all") == (600_100_000_000, 500_000, 900_000, 1_200_000)
    assert budget_figures(edited(GIT, "own", "stop: 2"), "own") == (7_500_000_000, 800_000, 900_000, 2_000_000)
    assert config.edits["all"].superseded is None
    assert config.edits["all"].git is not None
    assert config.edits["all"].git.limit_nano == 500 * 10**9


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("budgets.yaml", b"budgets: [{id: all, scope: 'team:*', period: month, limit: 450, stop: 1.2}]"),
        ("budgets.yaml", b"budgets: [{id: all, scope: 'team:*', period: month, limit: 500, stop: 0.9}]"),
    ],
)
def test_git_wins_over_an_edit_of_an_entry_it_changed(name: str, body: bytes) -> None:
    """Also where the edit's figures no longer fit the new entry: git may go on without asking the dashboard."""
    base = load_config(GIT).entry_digests["all"]
    config = edited({**GIT, name: body}, "all", "limit: 600, warn: 0.95, degrade: 1.0", base)
    assert budget_figures(config, "all") == budget_figures(load_config({**GIT, name: body}), "all")
    assert config.edits["all"].superseded == "the entry changed in git after the edit was made"


def test_comments_order_and_neighbours_do_not_supersede_an_edit() -> None:
    """A reformatted file means the same; only the fields of the entry itself count."""
    base = load_config(GIT).entry_digests["all"]
    reordered = b"""
budgets:
  - {id: new, scope: 'user:*', period: day, limit: 1}
  - limit: 500        # as agreed
    stop: 1.2
    id: all
    period: month
    scope: team:*
"""
    assert (
        budget_figures(edited({**GIT, "budgets.yaml": reordered}, "all", "limit: 600", base), "all")[0] == 600 * 10**9
    )


def test_keep_lets_an_edit_outlive_a_change_in_git() -> None:
    """Where billing.yaml says so, what the admin typed holds over git's new figure, and git's others come through."""
    base = load_config(GIT).entry_digests["all"]
    files = {
        **GIT,
        "budgets.yaml": b"budgets: [{id: all, scope: 'team:*', period: month, limit: 450, warn: 0.7}]",
        "billing.yaml": b"dashboard_edits: keep",
    }
    config = edited(files, "all", "limit: 600", base)
    assert budget_figures(config, "all") == (600 * 10**9, 700_000, 900_000, 1_000_000)


def test_an_edit_of_a_budget_that_is_gone_is_told_and_harmless() -> None:
    """Removing a budget in git must not need the dashboard's consent."""
    config = edited(GIT, "all", "limit: 600")
    gone = {**GIT, "budgets.yaml": b"budgets: []", EDITS: write_edits(config.edits.values())}
    assert load_config(gone).edits["all"].superseded == "git has no budget of this id any more"


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        ("limit: 0", r"edits\[0\].limit: must be above 0"),
        ("limit: 1e3", r"edits\[0\].limit: expected a plain number"),
        ("warn: 0.95", r"warn \(0.95\) is above degrade \(0.9, as in git\)"),
        ("limit: 9223372036, stop: 1.2", "beyond the largest amount"),
        ("limt: 5", "unknown field; did you mean 'limit'"),
    ],
)
def test_an_edit_is_held_to_the_rules_of_the_files(figures: str, problem: str) -> None:
    """A hand-written edit cannot open what a budget entry could not."""
    with pytest.raises(ConfigInvalid, match=problem):
        edited(GIT, "all", figures)


def test_one_budget_has_one_edit() -> None:
    """Two would let the order of lines decide on money."""
    one = b"  - {budget: all, limit: 1, who: a, why: b, at: 2026-01-01, base: c}\n"
    with pytest.raises(ConfigInvalid, match="'all' is edited twice"):
        load_config({**GIT, EDITS: b"edits:\n" + one + one})


@pytest.mark.parametrize(
    "text", ['"quoted" \\ back', "a: b # c", "- x\x85y", "\U0001f600 \u202e evil", "{x}", "null", "'"]
)
def test_whatever_a_person_writes_comes_back_as_written(text: str) -> None:
    """The reason is free text: it neither ends its scalar nor starts another field."""
    config = edited(GIT, "all", "limit: 600")
    edit: BudgetEdit = config.edits["all"]
    written = write_edits([BudgetEdit(**{**{f: getattr(edit, f) for f in edit.__struct_fields__}, "why": text})])
    again = load_config({**GIT, EDITS: written}).edits["all"]
    assert (again.why, again.limit_nano, again.at_utc) == (text, 600 * 10**9, edit.at_utc)


def test_edits_leave_the_named_values_of_the_gateway_alone() -> None:
    """Terraform refuses stale ones; an edit on the dashboard must not stop a deployment."""
    assert named_values_digest({**GIT, EDITS: b"edits: []"}) == named_values_digest(GIT)
