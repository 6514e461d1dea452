"""billing.yaml: exact values, and every mistake named with file, line and field."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import dedent

import pytest

from shared.config.billing import Percent, Pool, PoolTerm, SharedCost, SharedTerm, percent_at
from shared.config.loader import load_config
from shared.config.model import Config
from shared.errors import ConfigInvalid

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FILES = {
    "tenants.yaml": b"tenants:\n  - id: default\n  - id: contoso\n",
    "models.yaml": b"models:\n  - id: gpt-4o\n",
    "teams/search.yaml": b"team: search\ntenant: contoso\n",
}


def load(billing: str) -> Config:
    return load_config({**FILES, "billing.yaml": dedent(billing).encode()})


def test_every_field_reads_exactly() -> None:
    """Percentages, money and weights arrive as integers, dated entries in the order of their dates."""
    billing = load(
        """
        issuer: ACME Platform
        close_day: 5
        markup: [{percent: 2.5, effective_from: 2026-01-01}]
        tax: [{percent: 21, effective_from: 2026-01-01, label: VAT, tenant: contoso}]
        pools:
          - id: ptu-weu
            tenant: contoso
            label: PTU
            kind: ptu
            deployments: [gpt-4o-ptu]
            terms:
              - {effective_from: "2026-03-01T06:00:00Z", units: 0}
              - {effective_from: 2026-01-01, units: 50, usd_per_unit_hour: 1.10}
            tokens_per_minute_per_unit: 2500
            weights: {output: 4.125, cached_input: 0}
            model_weights: [{model: gpt-4o, weights: {output: 3}}]
            idle: owner
            owner: search
        shared:
          - id: gateway
            tenant: contoso
            by: cost
            terms: [{effective_from: 2026-01-01, usd_per_month: 850.10}]
            include: [search]
            exclude: [(unassigned)]
        dashboard_edits: keep
        """
    ).billing
    assert (billing.issuer, billing.close_day, billing.dashboard_edits) == ("ACME Platform", 5, "keep")
    assert billing.markup == (Percent(25_000, JANUARY, "Platform fee"),)
    assert billing.tax == (Percent(210_000, JANUARY, "VAT", "contoso"),)
    assert billing.pools == (
        Pool(
            id="ptu-weu",
            tenant="contoso",
            label="PTU",
            kind="ptu",
            deployments=frozenset({"gpt-4o-ptu"}),
            terms=(
                PoolTerm(JANUARY, 50, usd_per_unit_hour_nano=1_100_000_000),
                PoolTerm(datetime(2026, 3, 1, 6, tzinfo=UTC), 0),
            ),
            weights={"output": 4_125, "cached_input": 0},
            model_weights={"gpt-4o": {"output": 3_000}},
            tokens_per_minute_per_unit=2500,
            idle="owner",
            owner="search",
        ),
    )
    assert billing.shared == (
        SharedCost(
            id="gateway",
            tenant="contoso",
            label="gateway",
            by="cost",
            terms=(SharedTerm(JANUARY, 850_100_000_000),),
            include=frozenset({"search"}),
            exclude=frozenset({"(unassigned)"}),
        ),
    )
    pool = billing.pools[0]
    assert [pool.weight("gpt-4o", kind) for kind in ("output", "cached_input", "input")] == [3_000, 0, 1_000]
    assert pool.weight("gpt-4o-mini", "output") == 4_125


def test_without_the_file_usage_is_billed_as_it_is() -> None:
    """No markup, no tax, nothing shared."""
    billing = load_config(FILES).billing
    assert (billing.markup, billing.tax, billing.pools, billing.shared) == ((), (), (), ())


def test_a_percentage_of_the_tenant_beats_one_for_all() -> None:
    """The newest of the tenant's own that is in force; zero ends it; others take the general one."""
    june = datetime(2026, 6, 1, tzinfo=UTC)
    entries = (
        Percent(10_000, JANUARY, "all"),
        Percent(20_000, JANUARY, "own", "contoso"),
        Percent(0, june, "own", "contoso"),
    )
    assert percent_at(entries, "contoso", JANUARY) == entries[1]
    assert percent_at(entries, "contoso", june) is None
    assert percent_at(entries, "fabrikam", june) == entries[0]
    assert percent_at(entries, "fabrikam", datetime(2025, 12, 31, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("isuer: x", "billing.yaml:1: isuer: unknown field; did you mean 'issuer'?"),
        ("close_day: 29", "billing.yaml:1: close_day: expected a whole number from 1 to 28"),
        ("tax:\n- {percent: 21}", "billing.yaml:2: tax[0].effective_from: is required"),
        ("tax:\n- {percent: 0.00001, effective_from: 2026-01-01}", "tax[0].percent: expected 0 to 1000"),
        ("tax:\n- {percent: 1, effective_from: 2026-01-01, tenant: acme}", "tenant 'acme' is not listed"),
        (
            "markup:\n- {percent: 1, effective_from: 2026-01-01}\n- {percent: 2, effective_from: 2026-01-01}",
            "billing.yaml:3: markup[1].effective_from: a second entry",
        ),
        ("pools:\n- {id: P}", "pools[0].id: expected 1 to 63 of a-z"),
        ("pools:\n- {id: p}", "pools[0].deployments: is required"),
        ("pools:\n- {id: p, deployments: [d]}", "pools[0].terms: is required"),
        (
            "pools:\n- {id: p, deployments: [d], terms: [{effective_from: 2026-01-01, units: 3}]}",
            "terms[0].usd_per_unit_hour: exactly one of usd_per_unit_hour and usd_per_month",
        ),
        (
            "pools:\n- {id: p, deployments: [d], terms: [{effective_from: 2026-01-01, usd_per_unit_hour: 1}]}",
            "terms[0].units: is required",
        ),
        (
            "pools:\n- {id: p, deployments: [d], terms: [{effective_from: '2026-01-01T00:30:00Z', usd_per_month: 1}]}",
            "terms[0].effective_from: a pool is bought by the hour",
        ),
        ("pools:\n- {id: p, idle: owner}", "pools[0].owner: is required with idle: owner"),
        ("pools:\n- {id: p, idle: owner, owner: shop}", "pools[0].owner: team 'shop' is not listed in teams/"),
        ("pools:\n- {id: p, weights: {outptu: 4}}", "'outptu' is not a token kind; did you mean 'output'?"),
        ("pools:\n- {id: p, weights: {output: 0.0001}}", "output: expected 0 to 1000 with at most three decimals"),
        ("pools:\n- {id: p, deployments: [d]}\n- {id: p, deployments: [d]}", "the id 'p' is used twice"),
        (
            "pools:\n- {id: p, deployments: [d]}\n- {id: q, deployments: [D]}",
            "'p' and 'q' both cover the deployment 'd'",
        ),
        ("shared:\n- {id: s}", "shared[0].by: is required"),
        ("shared:\n- {id: s, by: vote}", "shared[0].by: 'vote' is none of tokens, cost, even"),
        (
            "shared:\n- {id: s, by: even, terms: [{effective_from: 2026-01-01, usd_per_month: -1}]}",
            "terms[0].usd_per_month: must not be below 0, got -1",
        ),
        ("shared:\n- {id: s, by: even, include: [search], exclude: [search]}", "'search' is included and excluded"),
        ("dashboard_edits: never", "dashboard_edits: 'never' is none of git_wins, keep"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_field(text: str, problem: str) -> None:
    """Nothing of a file with a mistake is used, and the message says what would be right."""
    with pytest.raises(ConfigInvalid) as refused:
        load(text)
    assert problem in refused.value.message
