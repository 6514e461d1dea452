"""Which learned estimates a call may use, and which scopes may teach."""

from __future__ import annotations

import pytest

from shared.budgets.estimates import learning_levels


def levels(asserted=frozenset({"session"}), model="gpt-4o", **scopes: str) -> list[str]:
    return [name.split("|")[0] for name in learning_levels("acme", scopes, asserted, model)]


def test_the_most_specific_trusted_scope_comes_first():
    """agent before app before user, then the team, then the tenant."""
    assert levels(agent="a", app="b", user="c", team="t") == ["agent:a", "team:t", "tenant:acme"]
    assert levels(app="b", user="c", team="t") == ["app:b", "team:t", "tenant:acme"]
    assert levels(user="c", team="t") == ["user:c", "team:t", "tenant:acme"]


def test_asserted_scopes_never_teach():
    """A client that invents agents could reset what was learned, or train it down before a burst."""
    asserted = frozenset({"agent", "session"})
    assert levels(asserted, agent="new", session="s", user="c", team="t") == ["user:c", "team:t", "tenant:acme"]


def test_an_asserted_team_teaches_only_the_tenant():
    """Even a team counts only when identity names it."""
    assert levels(frozenset({"team"}), team="t") == ["tenant:acme"]


def test_there_is_always_the_tenant():
    """Without a single trusted scope the tenant's experience is what is left."""
    assert levels(session="s") == ["tenant:acme"]


@pytest.mark.parametrize("model", ["gpt-4o", "a|b", "ft:gpt-4o:acme::x", "{x}", "ä"])
def test_models_are_learned_apart_and_safely_named(model):
    """The name is a Redis key: exactly one separator, whatever the model is called."""
    [name] = learning_levels("acme", {}, frozenset(), model)
    assert name.count("|") == 1
    assert "{" not in name


def test_never_more_levels_than_the_script_reads():
    """check.lua reads three per model."""
    assert len(levels(agent="a", app="b", user="c", team="t", org="o")) == 3
