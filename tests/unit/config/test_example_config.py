"""The configuration that ships: it loads, and has what `make run` and a first reader expect."""

from __future__ import annotations

from pathlib import Path

from shared.config.loader import load_config

CONFIG = Path(__file__).parents[3] / "config"


def test_the_example_configuration_loads() -> None:
    """Three teams of the default tenant, found by subscription, the first with a budget small enough to spend."""
    files = {str(p.relative_to(CONFIG)): p.read_bytes() for p in CONFIG.rglob("*.yaml")}
    config = load_config(files)
    assert set(config.tenants) == {"default", "contoso"}
    assert {team.id: (team.tenant, *team.subscriptions) for team in config.teams.values()} == {
        "search": ("default", "search-prod"),
        "support": ("default", "support-prod"),
        "research": ("default", "research-prod"),
    }
    (search,) = [b for b in config.budgets if b.scope_key == "search"]
    assert search.limit_nano < 10**9
    assert search.downgrade[0].target == "gpt-4o-mini"
