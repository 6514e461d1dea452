"""Which calls the tour makes, and the keys it makes them with."""

import hashlib

import pytest

from local.options import gateway_keys, read_config, read_options, team_keys
from local.tour_script import MOST_SPENDER_CALLS, Progress, Script, smallest_budget, spender_of
from shared.config.model import Budget, Config, Model, Team
from shared.errors import ConfigInvalid
from shared.money import nano_from_decimal


def team(name: str, *subscriptions: str) -> Team:
    return Team(id=name, tenant="default", subscriptions=frozenset(subscriptions))


def budget(scope_key: str, limit: str, **fields) -> Budget:
    fields = {"scope_type": "team", "period": "month", "timezone": "UTC", "tenant": None, **fields}
    return Budget(id=scope_key, scope_key=scope_key, limit_nano=nano_from_decimal(limit), **fields)


def config(*budgets: Budget, teams=("search", "support", "research", "web")) -> Config:
    models = {
        "gpt-4o": Model(id="gpt-4o", capabilities=frozenset({"chat"})),
        "gpt-4o-mini": Model(id="gpt-4o-mini", capabilities=frozenset({"chat"})),
        "embed": Model(id="embed", capabilities=frozenset({"embeddings"})),
    }
    return Config("1", {}, {name: team(name, f"{name}-prod") for name in teams}, budgets, models)


def test_every_team_with_a_subscription_has_a_key():
    """The gateway is given digests, never the keys; a team without a subscription gets none."""
    some = Config("1", {}, {"a": team("a", "z-sub", "a-sub"), "b": team("b")}, (), {})
    assert team_keys(some) == {"a": "local-a"}
    assert gateway_keys(some) == {hashlib.sha256(b"local-a").hexdigest(): "a-sub"}


def test_the_tightest_refusing_budget_decides_who_is_stopped():
    """A budget that only alerts, or of another team, or in another currency, stops nobody."""
    some = config(
        budget("*", "500"),
        budget("web", "3"),
        budget("web", "1", on_stop="allow"),
        budget("support", "2", currency="EUR"),
        teams=("support", "web"),
    )
    assert smallest_budget(some, "web").limit_nano == nano_from_decimal("3")
    assert smallest_budget(some, "support").limit_nano == nano_from_decimal("500")
    assert spender_of(some, ["support", "web"]) == "web"
    assert spender_of(config(), ["support", "search"]) == "search"
    assert spender_of(config(), []) is None


def test_three_teams_call_and_one_calls_most():
    """The spender calls until it is refused; then the others call once more, to show that they go on."""
    script, progress, steps = Script(config(budget("search", "0.05"))), Progress(), []
    for step in script.steps(progress):
        steps.append(step)
        progress.refused = len(steps) > 20 and step.team == "search"
    by_team = {name: sum(step.team == name for step in steps) for name in ("search", "support", "research", "web")}
    assert by_team["search"] > by_team["support"] > 0
    assert by_team["research"] > 0
    assert by_team["web"] == 0
    assert {step.team for step in steps[-2:]} == {"support", "research"}
    assert {step.kind for step in steps} == {"chat", "stream", "tool", "embed"}


def test_answers_are_sized_so_that_a_few_dozen_calls_spend_the_budget():
    """At 10 USD per million, 5 % of 0.05 USD is 250 tokens; cheaper models write longer answers near the end."""
    script = Script(config(budget("search", "0.05")))
    first = next(script.steps(Progress()))
    assert (first.model, first.output_tokens) == ("gpt-4o", 250)
    near_the_end = next(script.steps(Progress(state="degraded", output_pico_usd=600_000)))
    assert near_the_end.output_tokens > first.output_tokens


def test_a_budget_too_large_for_a_tour_ends_it_anyway():
    """Nobody waits for a million dollars to be spent."""
    script = Script(config(budget("search", "1000000")))
    own = [step for step in script.steps(Progress()) if step.team == "search"]
    assert len(own) == MOST_SPENDER_CALLS


def test_a_configuration_without_teams_or_models_has_no_tour():
    """An empty configuration serves; it has nothing to play."""
    assert list(Script(config(teams=())).steps(Progress())) == []
    assert list(Script(Config("1", {}, {"a": team("a", "s")}, (), {})).steps(Progress())) == []


def test_options_come_from_the_environment():
    """Ports, configuration and the two switches; the defaults are those of the contract."""
    plain = read_options({})
    assert (plain.functions_port, plain.gateway_port, plain.tour, plain.once) == (7071, 8080, True, False)
    chosen = read_options({"GATEWAY_PORT": "18080", "TOUR": "0", "ONCE": "1"})
    assert (chosen.gateway_port, chosen.tour, chosen.once) == (18080, False, True)
    assert plain.logs != chosen.logs


@pytest.mark.parametrize("env", [{"GATEWAY_PORT": "http"}, {"FUNCTIONS_PORT": "70000"}, {"GATEWAY_PORT": "7071"}])
def test_a_wrong_port_names_its_variable(env):
    """The message starts with the variable to change."""
    with pytest.raises(ConfigInvalid, match="_PORT: "):
        read_options(env)


def test_the_shipped_configuration_is_valid_and_stops_search():
    """The configuration in the repository lets the tour show warn, degrade and stop."""
    shipped = read_config(read_options({}))
    script = Script(shipped)
    assert script.spender == "search"
    assert script.budget.limit_nano <= nano_from_decimal("1")
    assert len(script.others) == 2
