"""docs/configuration.md names every field and every variable there is, so that it can be trusted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.config.alerts_yaml import ALERT_FIELDS
from shared.config.billing_yaml import BILLING_FIELDS, PERCENT_FIELDS, POOL_FIELDS, POOL_TERM_FIELDS, SHARED_FIELDS
from shared.config.budgets_yaml import BUDGET_FIELDS
from shared.config.discounts_yaml import DISCOUNT_FIELDS
from shared.config.edits_yaml import EDIT_FIELDS
from shared.config.endpoints_yaml import ENDPOINT_FIELDS
from shared.config.models_yaml import BILLED_AS, MODEL_FIELDS, PRICE_FIELDS
from shared.config.reconciliation_yaml import ACCOUNT_FIELDS, ANOMALY_FIELDS, METER_FIELDS, RECONCILIATION_FIELDS
from shared.config.teams_yaml import IDENTITY_KINDS, TEAM_FIELDS
from shared.config.tenants_yaml import TENANT_FIELDS
from shared.usage.tokens import PRICED_KINDS

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs/configuration.md").read_text()
SECTIONS = {
    "tenants.yaml": TENANT_FIELDS,
    "teams/*.yaml": TEAM_FIELDS + IDENTITY_KINDS,
    "budgets.yaml": BUDGET_FIELDS,
    "models.yaml": MODEL_FIELDS + BILLED_AS + ENDPOINT_FIELDS,
    "prices.yaml": PRICE_FIELDS + PRICED_KINDS + DISCOUNT_FIELDS,
    "billing.yaml": (
        *(BILLING_FIELDS + PERCENT_FIELDS + POOL_FIELDS + POOL_TERM_FIELDS + SHARED_FIELDS),
        *(RECONCILIATION_FIELDS + ACCOUNT_FIELDS + METER_FIELDS + ANOMALY_FIELDS),
    ),
    "alerts.yaml": ALERT_FIELDS,
    "edits.yaml": EDIT_FIELDS,
}


def section(title: str) -> str:
    return REFERENCE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("title", SECTIONS)
def test_every_field_of_a_file_is_documented(title: str) -> None:
    """A field the loader reads stands in the section of its file."""
    assert not [field for field in SECTIONS[title] if f"`{field}`" not in section(title)]


def test_the_variables_documented_are_those_read() -> None:
    """Neither a variable without a line nor a line without a variable."""
    code = (ROOT / "shared/settings.py").read_text()
    read = set(re.findall(r'(?:read\.\w+\(|_hub_name\(read, )\s*"([A-Za-z_]+)"', code))
    rows = [line.split("|")[1] for line in section("Environment variables").splitlines() if line.startswith("| `")]
    assert read == {name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row)}
