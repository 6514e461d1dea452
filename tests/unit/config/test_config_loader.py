"""Loading the configuration: exact values, and every mistake named with file, line and field."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.loader import config_version, load_config
from shared.config.model import Config, DowngradeRule
from shared.errors import ConfigInvalid

TENANTS = b"tenants:\n  - id: default\n  - id: contoso\n    client_asserted_scopes: [session]\n"
MODELS = b"models:\n  - id: gpt-4o\n  - id: gpt-4o-mini\n"


def files(**texts: str) -> dict[str, bytes]:
    """Files by stem; `team_x` stands for teams/x.yaml."""
    named = {"tenants.yaml": TENANTS, "models.yaml": MODELS}
    for stem, text in texts.items():
        name = f"teams/{stem.removeprefix('team_')}.yaml" if stem.startswith("team_") else f"{stem}.yaml"
        named[name] = dedent(text).encode()
    return named


def load(**texts: str) -> Config:
    return load_config(files(**texts))


def problems_of(**texts: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as refused:
        load(**texts)
    return refused.value.message.splitlines()


def budget_problems(entry: str) -> list[str]:
    """Problems of one flow-style budget entry in line 2 of budgets.yaml."""
    return problems_of(budgets=f"budgets:\n  - {{{entry}}}\n")


def test_a_full_budget_reads_exactly() -> None:
    """Every field of the contract arrives, money as exact integers."""
    config = load(
        budgets="""
        budgets:
          - scope: team:*            # type:key or type:*
            period: month
            limit: 500.10
            warn: 0.8
            degrade: 0.85
            stop: 1.25
            downgrade:
              - {from: [gpt-4o, "gpt-4.1*"], to: gpt-4o-mini}
              - {from: o4-mini, to: cheapest}
            disable_tools: [web_search]
            on_stop: downgrade
            timezone: Europe/Amsterdam
            rollover: true
            rollover_cap: 100
        """
    )
    (budget,) = config.budgets
    assert budget.id == "*/team:*/month/Europe/Amsterdam"
    assert budget.limit_nano == 500 * 10**9 + 10**8
    assert (budget.warn_ppm, budget.degrade_ppm, budget.stop_ppm) == (800_000, 850_000, 1_250_000)
    assert budget.downgrade == (
        DowngradeRule(sources=("gpt-4o", "gpt-4.1*"), target="gpt-4o-mini"),
        DowngradeRule(sources=("o4-mini",), target="cheapest"),
    )
    assert budget.rollover_cap_nano == 100 * 10**9
    assert (budget.tenant, budget.on_stop, budget.disable_tools) == (None, "downgrade", ("web_search",))


@given(st.decimals(min_value="0.000000001", max_value="1000000", places=9))
def test_limits_survive_to_the_nano(limit: object) -> None:
    """No float ever touches a limit: every nano-dollar written is kept."""
    config = load(budgets=f"budgets: [{{scope: 'team:a', period: day, limit: {limit:f}}}]")
    assert config.budgets[0].limit_nano == int(limit * 10**9)  # type: ignore[operator]


def test_a_team_budget_belongs_to_the_team_and_its_tenant() -> None:
    """In a team's file neither scope nor tenant need repeating."""
    config = load(team_search="{team: search, tenant: contoso, budgets: [{period: month, limit: 5}]}")
    (budget,) = config.budgets
    assert (budget.tenant, budget.scope_type, budget.scope_key) == ("contoso", "team", "search")
    assert budget.id == "contoso/team:search/month/UTC"


def test_repeated_default_ids_are_numbered() -> None:
    """Two budgets on the same scope and period stay two budgets."""
    config = load(
        budgets="budgets: [{scope: 'team:a', period: day, limit: 1}, {scope: 'team:a', period: day, limit: 2}]"
    )
    assert [b.id for b in config.budgets] == ["*/team:a/day/UTC", "*/team:a/day/UTC#2"]


def test_enforcement_on_is_text_not_a_boolean() -> None:
    """YAML 1.1 would read `on` as true; here it stays what was written."""
    config = load(
        tenants="tenants: [{id: default, enforcement: on}, {id: lab, enforcement: off, exhausted_status: 429}]"
    )
    assert config.tenants["default"].enforcement == "on"
    assert (config.tenants["lab"].enforcement, config.tenants["lab"].exhausted_status) == ("off", 429)


def test_prices_and_rates_are_dated_and_exact() -> None:
    """A date means midnight UTC; an offset is converted; prices are pico-USD per token."""
    config = load(
        prices="""
        prices:
          - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10}}
          - {model: gpt-4o, tenant: contoso, effective_from: "2026-02-01T01:00:00+01:00", usd_per_million: {input: 2}}
        """,
        rates="rates: [{currency: EUR, effective_from: 2026-01-01, usd_per_unit: 1.0843}]",
    )
    assert config.prices[0].effective_from == datetime(2026, 1, 1, tzinfo=UTC)
    assert config.prices[0].unit_pico == {"input": 2_500_000, "cached_input": 1_250_000, "output": 10_000_000}
    assert config.prices[1].effective_from == datetime(2026, 2, 1, tzinfo=UTC)
    assert config.rates[0].usd_per_unit_nano == 1_084_300_000


def test_discounts_are_exact_parts_of_the_list_price() -> None:
    """12.5 % is 125,000 parts per million; what an entry does not name it holds for."""
    config = load(
        prices="""
        discounts:
          - {percent: 12.5, provider: azure-openai, effective_from: 2026-01-01}
          - {percent: "0", model: gpt-4o*, tenant: contoso, effective_from: 2026-02-01}
        """
    )
    first, second = config.discounts
    assert (first.off_ppm, first.provider, first.model) == (125_000, "azure-openai", None)
    assert (second.off_ppm, second.model, second.tenant) == (0, "gpt-4o*", "contoso")
    assert config.prices == ()


def test_guid_case_does_not_matter() -> None:
    """Entra ID writes GUIDs in lower case, people paste them either way."""
    config = load(team_a="{team: a, identities: {apps: [ABCDEF01-0000-4000-8000-00000000000A], products: [Pro]}}")
    assert config.teams["a"].apps == {"abcdef01-0000-4000-8000-00000000000a"}
    assert config.teams["a"].products == {"Pro"}


def test_a_problem_names_file_line_and_field() -> None:
    """The one line a person needs: where, which field, what is wrong, what would be right."""
    assert problems_of(
        budgets="""\
        budgets:
          - scope: team:*
            period: month
            limit: 1,000.00
        """
    ) == [
        "config/budgets.yaml:4: budgets[0].limit: expected a plain number such as 500.00, "
        "without thousands separators; got '1,000.00'"
    ]


def test_all_problems_are_reported_at_once() -> None:
    """Problems in several files and fields come back together, in reading order."""
    lines = problems_of(
        budgets="budgets:\n  - scope: team\n    period: fortnight\n    limit: -1\n",
        models="models:\n  - id: gpt-4o\n    context_tokens: many\n",
        team_a="team: a\ntenant: nobody\n",
    )
    assert [line.split(": ")[:2] for line in lines] == [
        ["config/budgets.yaml:2", "budgets[0].scope"],
        ["config/budgets.yaml:3", "budgets[0].period"],
        ["config/budgets.yaml:4", "budgets[0].limit"],
        ["config/models.yaml:3", "models[0].context_tokens"],
        ["config/teams/a.yaml:2", "tenant"],
    ]


BUDGET = "scope: 'team:a', period: month, limit: 5"


@pytest.mark.parametrize(
    ("entry", "field", "says"),
    [
        ("scope: 'team:a', period: month", "limit", "is required"),
        ("period: month, limit: 5", "scope", "is required"),
        ("scope: 'team:a', limit: 5", "period", "is required"),
        ("scope: 'team:a', period: month, limit: 0", "limit", "above 0"),
        ("scope: 'team:a', period: month, limit: 0.0000000001", "limit", "nine decimals"),
        ("scope: 'team:a', period: month, limit: 9300000000", "limit", "largest amount"),
        ("scope: 'team:a', period: month, limit: 9000000000, stop: 2", "limit", "largest amount"),
        ("scope: 'team:a', period: month, limit: 1e3", "limit", "plain number"),
        ("scope: 'team:a', period: month, limit: .nan", "limit", "plain number"),
        ("scope: 'team:a', period: month, limit: [5]", "limit", "got a list"),
        ("scope: 'team:', period: month, limit: 5", "scope", "1 to 256 bytes"),
        ("scope: 'team:a*', period: month, limit: 5", "scope", "lone *"),
        ("scope: 'Team:a', period: month, limit: 5", "scope", "type:key"),
        (f"{BUDGET}, warn: 80", "warn", "fraction of the limit such as 0.8"),
        (f"{BUDGET}, warn: 0.1234567", "warn", "six decimals"),
        (f"{BUDGET}, warn: 0.95", "warn", "warn (0.95) is above degrade (0.9, the default)"),
        (f"{BUDGET}, stop: 0.5", "stop", "degrade (0.9, the default) is above stop (0.5)"),
        (f"{BUDGET}, timezone: Europe/Amsterdm", "timezone", "did you mean 'Europe/Amsterdam'"),
        (f"{BUDGET}, timezone: Europe", "timezone", "not an IANA time zone"),
        (f"{BUDGET}, timezone: ../../etc/passwd", "timezone", "not an IANA time zone"),
        (f"{BUDGET}, downgrade: [{{from: gpt-4o, to: gpt-4o-mni}}]", "downgrade[0].to", "did you mean 'gpt-4o-mini'"),
        (f"{BUDGET}, downgrade: [{{from: ['gpt-[4'], to: cheapest}}]", "downgrade[0].from", "not a pattern"),
        (f"{BUDGET}, downgrade: [{{to: cheapest}}]", "downgrade[0].from", "is required"),
        (f"{BUDGET}, on_stop: downgrade", "on_stop", "at least one downgrade rule"),
        (f"{BUDGET}, on_stop: explode", "on_stop", "none of refuse, downgrade, allow"),
        (f"{BUDGET}, rollover: maybe", "rollover", "neither true nor false"),
        (f"{BUDGET}, rollover_cap: 5", "rollover_cap", "without rollover"),
        ("scope: 'team:a', period: total, limit: 5, rollover: true", "rollover", "never ends"),
        ("scope: 'session:*', period: total, limit: 5", "period", "callers name themselves"),
        (f"{BUDGET}, currency: EUR", "currency", "no exchange rate"),
        (f"{BUDGET}, currency: euro", "currency", "three-letter"),
        (f"{BUDGET}, tenant: contso", "tenant", "did you mean 'contoso'"),
        (f"{BUDGET}, limt: 5", "limt", "did you mean 'limit'"),
        (f"{BUDGET}, limit: 6", "limit", "given twice"),
    ],
)
def test_a_wrong_budget_is_refused(entry: str, field: str, says: str) -> None:
    """Each mistake is named under its own field, with what would be right."""
    (line,) = budget_problems(entry)
    assert line.startswith(f"config/budgets.yaml:2: budgets[0].{field}: "), line
    assert says in line


@pytest.mark.parametrize(
    ("texts", "where", "says"),
    [
        ({"tenants": "tenants: [{id: default}, {id: default}]"}, "tenants.yaml:1: tenants[1].id", "twice"),
        ({"tenants": "tenants: [{id: 'a/b'}]"}, "tenants.yaml:1: tenants[0].id", "letters, digits"),
        ({"tenants": "tenants: [{id: a, client_asserted_scopes: [team]}]"}, "tenants.yaml:1", "validated identity"),
        ({"tenants": "tenants: [{id: a, cache_seconds: 600}]"}, "tenants.yaml:1: tenants[0].cache_seconds", "0 to 60"),
        ({"tenants": "tenants: [{id: a, currency: EUR}]"}, "tenants.yaml:1: tenants[0].currency", "exchange rate"),
        ({"tenants": "tenants: [{id: a, guard_usd_per_million: {input: 1}}]"}, "tenants.yaml:1", "output: is required"),
        ({"models": "models: [{id: a}, {id: a}]"}, "models.yaml:1: models[1].id", "twice"),
        (
            {"models": "models: [{id: a, deployment_type: gobal}]"},
            "models.yaml:1: models[0].deployment_type",
            "none of",
        ),
        ({"models": "models: [{id: a, fallbacks: [b]}]"}, "models.yaml:1: models[0].fallbacks", "'b' is not listed"),
        ({"models": "models: [{id: a, fallbacks: [a]}]"}, "models.yaml:1: models[0].fallbacks", "its own fallback"),
        (
            {"models": "models: [{id: a, deployments: [x]}, {id: b, deployments: [x]}]"},
            "models.yaml:1: models[1].deployments",
            "a deployment of 'a'",
        ),
        (
            {"prices": "prices: [{model: a, effective_from: 2026-01-01T00:00:00, usd_per_million: {input: 1}}]"},
            "prices.yaml:1: prices[0].effective_from",
            "2026-01-31T08:00:00Z",
        ),
        (
            {"prices": "prices: [{model: a, effective_from: 2026-01-01, usd_per_million: {inptu: 1}}]"},
            "prices.yaml:1: prices[0].usd_per_million.inptu",
            "did you mean 'input'",
        ),
        (
            {"prices": "prices: [{model: a, effective_from: 2026-01-01, usd_per_million: {input: -1}}]"},
            "prices.yaml:1: prices[0].usd_per_million.input",
            "between 0",
        ),
        (
            {"prices": "prices:\n" + "  - {model: a, effective_from: 2026-01-01, usd_per_million: {input: 1}}\n" * 2},
            "prices.yaml:3: prices[1].effective_from",
            "keep one",
        ),
        (
            {"prices": "discounts:\n  - {percent: 101, effective_from: 2026-01-01}"},
            "prices.yaml:2: discounts[0].percent",
            "0 to 100",
        ),
        (
            {"prices": "discounts: [{percent: 12.50001, effective_from: 2026-01-01}]"},
            "prices.yaml:1: discounts[0].percent",
            "at most four decimals",
        ),
        ({"prices": "discounts: [{percent: 5}]"}, "prices.yaml:1: discounts[0].effective_from", "is required"),
        (
            {"prices": "discounts: [{percent: 5, effective_from: 2026-01-01, tenant: contsoo}]"},
            "prices.yaml:1: discounts[0].tenant",
            "is not listed",
        ),
        (
            {"prices": "discounts:\n" + "  - {percent: 5, model: gpt-*, effective_from: 2026-01-01}\n" * 2},
            "prices.yaml:3: discounts[1].effective_from",
            "keep one",
        ),
        ({"prices": "discount: []"}, "prices.yaml:1: discount", "did you mean 'discounts'"),
        ({"alerts": "routes: [{channel: webhook, target: HOOK}]"}, "alerts.yaml:1: routes[0].kinds", "is required"),
        ({"budget": "budgets: []"}, "budget.yaml", "did you mean 'budgets.yaml'"),
        ({"budgets": "budgets: &all [*all]"}, "budgets.yaml:1: budgets[0]", "anchors"),
        ({"budgets": "budgets: !!python/object:os.system [x]"}, "budgets.yaml:1: budgets", "tag"),
        ({"budgets": "budgets: {a: 1}"}, "budgets.yaml:1: budgets", "expected a list"),
        ({"budgets": "budgets: !secret x"}, "budgets.yaml:1: budgets", "tag"),
        ({"budgets": "budgets:\n  - scope: 'team:a\n"}, "budgets.yaml:3", "not valid YAML"),
        ({"budgets": "budgets: []\nbudgets: []"}, "budgets.yaml:2: budgets", "given twice"),
        ({"budgets": "budgets: []\n---\nbudgets: []"}, "budgets.yaml:2", "second document"),
        ({"budgets": "budgets: []\n? [a, b]\n: c\n"}, "budgets.yaml:2", "plain text"),
        ({"budgets": "budgets: " + "[" * 50_000 + "]" * 50_000}, "budgets.yaml:1", "levels deep"),
        ({"budgets": "- scope"}, "budgets.yaml:1", "expected the fields budgets"),
        ({"team_a": "team: '*'"}, "teams/a.yaml:1: team", "no '*'"),
        ({"team_a": "team: a\norg: '*'"}, "teams/a.yaml:2: org", "no '*'"),
        ({"team_a": "team: a", "team_b": "team: a"}, "teams/b.yaml:1: team", "has a file already"),
        (
            {"team_a": "{team: a, budgets: [{period: day, limit: 1, tenant: contoso}]}"},
            "teams/a.yaml:1",
            "leave it out",
        ),
        (
            {
                "team_a": "{team: a, identities: {subscriptions: [shared]}}",
                "team_b": "team: b\nidentities:\n  subscriptions: [shared]\n",
            },
            "teams/b.yaml:3: identities.subscriptions",
            "claimed by team 'a'",
        ),
        (
            {"team_a": "team: a\nbudgets:\n  - {id: x, period: day, limit: 1}\n  - {id: x, period: month, limit: 1}\n"},
            "teams/a.yaml:4: budgets[1].id",
            "another budget's id",
        ),
    ],
)
def test_a_wrong_file_is_refused(texts: dict[str, str], where: str, says: str) -> None:
    """Mistakes across files are named where they stand."""
    lines = problems_of(**texts)
    assert any(line.startswith(f"config/{where}") and says in line for line in lines), lines


def test_not_utf8_and_missing_tenants_are_refused() -> None:
    """Bytes that are no text name their line; without tenants nobody could call."""
    with pytest.raises(ConfigInvalid, match=r"budgets.yaml:2: is not UTF-8(.|\n)*tenants.yaml: is missing"):
        load_config({"budgets.yaml": b"# fine\n# \xff\n"})


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_load_or_are_refused_as_invalid_config(body: bytes) -> None:
    """Hostile files end in ConfigInvalid, never in another exception."""
    with contextlib.suppress(ConfigInvalid):
        load_config({"tenants.yaml": TENANTS, "budgets.yaml": body, "teams/x.yaml": body})


def test_the_version_is_a_digest_of_names_and_contents() -> None:
    """Equal files are equal versions; a moved byte is another version."""
    assert load().version == config_version(files())
    assert config_version({"a": b"bc"}) != config_version({"ab": b"c"})
