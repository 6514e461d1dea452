"""What billing.yaml says of the invoice and of unusual days."""

from __future__ import annotations

from textwrap import dedent

import pytest

from shared.config.loader import load_config
from shared.config.model import Config
from shared.config.reconciliation import Account, AnomalyFloors, MeterRule, Reconciliation
from shared.errors import ConfigInvalid

USD = 1_000_000_000
FILES = {
    "tenants.yaml": b"tenants:\n  - id: default\n  - id: contoso\n",
    "models.yaml": b"models:\n  - id: gpt-4o\n",
}


def load(billing: str) -> Config:
    """A configuration with this billing.yaml."""
    return load_config({**FILES, "billing.yaml": dedent(billing).encode()})


def test_every_field_reads_exactly() -> None:
    """Tolerances arrive as integers, names in the case they are compared in."""
    billing = load(
        """
        reconciliation:
          tolerance_percent: 0.25
          tolerance_usd: 0
          accounts:
            - {resource: AOAI-WEU, tenant: contoso, deployments: [gpt-4o-weu], regions: [West Europe]}
            - {resource: /subscriptions/S/resourceGroups/R/providers/Microsoft.CognitiveServices/accounts/B}
          meters:
            - {meter: "Odd Meter Tokens", model: gpt-4o, kind: output, deployment_type: data-zone, tier: batch}
            - {meter: "File Search GB", ignore: true}
        anomalies: {above_usd: 100.50, above_percent: 50}
        """
    ).billing
    assert billing.reconciliation == Reconciliation(
        tolerance_ppm=2_500,
        tolerance_nano_usd=0,
        accounts=(
            Account("aoai-weu", "contoso", frozenset({"gpt-4o-weu"}), frozenset({"westeurope"})),
            Account("subscriptions/s/resourcegroups/r/providers/microsoft.cognitiveservices/accounts/b"),
        ),
        meters={
            "odd meter tokens": MeterRule("gpt-4o", "output", "data-zone", "batch"),
            "file search gb": MeterRule(kind="input", ignore=True),
        },
    )
    assert billing.anomalies == AnomalyFloors(100 * USD + USD // 2, 500_000)


def test_defaults_are_one_percent_and_a_dollar_and_25_dollars_and_a_fifth() -> None:
    """Without a word about either, the documented tolerances and floors hold."""
    billing = load("issuer: ACME\n").billing
    assert (billing.reconciliation.tolerance_ppm, billing.reconciliation.tolerance_nano_usd) == (10_000, USD)
    assert (billing.anomalies.above_nano_usd, billing.anomalies.above_ppm) == (25 * USD, 200_000)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("reconciliation: {tolerance_percent: -1}", "reconciliation.tolerance_percent: expected 0 to 1000"),
        ("reconciliation: {tolerance_usd: much}", "reconciliation.tolerance_usd: expected a plain number"),
        ("reconciliation: {tolerance: 1}", "reconciliation.tolerance: unknown field; did you mean"),
        ("reconciliation: {accounts: [{tenant: contoso}]}", "reconciliation.accounts[0].resource: is required"),
        ("reconciliation: {accounts: [{resource: a, tenant: x}]}", "tenant 'x' is not listed in tenants.yaml"),
        ("reconciliation: {accounts: [{resource: a}, {resource: A}]}", "'a' is listed twice"),
        (
            "reconciliation: {accounts: [{resource: a, deployments: [d]}, {resource: b, deployments: [d]}]}",
            "accounts[1].deployments: 'd' is of account 'a' already",
        ),
        ("reconciliation: {meters: [{meter: m, model: gpt-9, kind: input}]}", "model 'gpt-9' is not listed"),
        ("reconciliation: {meters: [{meter: m, model: gpt-4o}]}", "meters[0].kind: is required"),
        ("reconciliation: {meters: [{meter: m, model: gpt-4o, kind: inputs}]}", "'inputs' is none of input"),
        ("anomalies: {above_percent: 2000}", "anomalies.above_percent: expected 0 to 1000"),
    ],
)
def test_mistake_is_named_with_its_line(fields: str, problem: str) -> None:
    """File, line and field, and what would be right."""
    with pytest.raises(ConfigInvalid) as caught:
        load(fields)
    assert "config/billing.yaml:1: " in caught.value.message
    assert problem in caught.value.message
