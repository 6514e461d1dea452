"""FOCUS files pass the checkers that others use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_golden_months import bill_of

from shared.reports.exact import scaled
from shared.reports.focus_columns import COLUMNS
from tests.support.read_files import amounts_due, written
from tests.support.statements import amount, every_charge, statement_of

TOOLKIT = Path(sys.executable).with_name("focus-toolkit")
VALIDATOR = os.environ.get("FOCUS_VALIDATOR", "")  # the folder of its virtualenv; `make focus-validator` sets it
CAPABILITIES = ("SupportsUnitPricing", "SupportsMultiplePricingCategories")
# What a month of ours can hold; no capacity reservations, availability zones or virtual currencies.
CRITERIA = (
    *("ACCOUNT_NAMING_SUPPORTED", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED", "COMMITMENT_DISCOUNT_SUPPORTED"),
    *("MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED"),
    *("MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED"),
    *("PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED", "REGION_SUPPORTED", "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED"),
    *("SUB_ACCOUNT_SUPPORTED", "TAGGING_SUPPORTED", "UNIT_PRICING_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED"),
)
FALSE_POSITIVES = {
    "InvoiceId-C-004-C",  # half of an either-or: demands a null on every row, as its other half demands a value
    "CommitmentDiscountStatus-C-004-C",  # its condition is inverted: it asks for a status where there is no commitment
}

MONTHS = [("contoso", "2026-10", []), ("contoso", "2026-11", ["2026-10"]), ("fabrikam", "2026-12", [])]


def every_row(name: str) -> bytes:
    """A FOCUS file with every type of row, a credit among them."""
    statement, charges = statement_of(every_charge())
    return written(name, statement, [*charges, amount("search", "Credit", -1_000_000_000, "Goodwill")])


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    """focus-toolkit on a Cost and Usage file, under all it can be asked to hold us to."""
    supports = [part for capability in CAPABILITIES for part in ("--supports", capability)]
    command = [str(TOOLKIT), "validate", "--dataset", "cost-and-usage", *supports, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def findings(path: Path) -> set[str]:
    """The rules that the Foundation's validator finds broken, without those that only contain broken ones.

    It exits with 0 either way, and reads a file of its package relative to the folder it runs in.
    """
    home = Path(VALIDATOR).resolve()
    [packages] = home.glob("lib/python3.*/site-packages")
    command = [str(home / "bin" / "focus-validator"), "--data-file", str(path), "--validate-version", "1.2.0.1"]
    command += ["--block-download", "--applicability-criteria", ",".join(CRITERIA)]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, check=False, timeout=300)
    counts = re.search(r"Total: (\d+) \| Pass: (\d+) \| Fail: (\d+)", done.stdout)
    assert counts is not None, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(counts[2]) > 250
    failed = re.findall(r"^\S+ (\S+): FAIL .*$", done.stdout, flags=re.MULTILINE)
    containers = re.findall(r"^\S+ (\S+): FAIL .*failed child rules", done.stdout, flags=re.MULTILINE)
    return set(failed) - set(containers)


def test_focus_1_4_passes_the_toolkit(tmp_path: Path) -> None:
    """No finding on a file with every type of row, with unit prices and pricing categories declared."""
    path = tmp_path / "focus.csv"
    path.write_bytes(every_row("focus"))
    found = lint(path)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("tenant", "period", "closed"), MONTHS)
async def test_golden_months_pass_the_toolkit_and_add_up(
    tmp_path: Path, tenant: str, period: str, closed: list[str]
) -> None:
    """Bills that the product itself made of ledger rows, with a pool, corrections, and in euro: no finding, and all
    eight files of each say the amount due."""
    bill = await bill_of(tenant, period, closed)
    charges = list(bill.charges())
    bill.close()
    path = tmp_path / "focus.csv"
    path.write_bytes(written("focus", bill.statement, charges))
    found = lint(path)
    assert found.returncode == 0, found.stdout + found.stderr
    due = amounts_due(bill.statement, charges)
    assert due == dict.fromkeys(due, scaled(bill.statement.total_nano, 9))
    if VALIDATOR:
        path.write_bytes(written("focus-1.2", bill.statement, charges))
        assert findings(path) <= FALSE_POSITIVES


def test_the_toolkit_would_notice_a_wrong_product(tmp_path: Path) -> None:
    """The same file with one list cost changed fails, so passing means something."""
    path = tmp_path / "focus.csv"
    body = every_row("focus").decode()
    assert body.count(",2.501,") == 1
    path.write_text(body.replace(",2.501,", ",2.502,"))
    found = lint(path)
    assert found.returncode == 1
    assert "cost_not_unit_price_times_quantity" in found.stdout + found.stderr


def test_own_columns_come_last_and_are_marked() -> None:
    """The specification wants custom columns behind its own, and an x_ in front of their names."""
    for columns in COLUMNS.values():
        own = [name.startswith("x_") for name in columns]
        assert own == sorted(own)
        assert len(set(columns)) == len(columns)
    assert len([name for name in COLUMNS["1.2"] if not name.startswith("x_")]) == 57  # 1.2 has no more


@pytest.mark.skipif(not VALIDATOR, reason="needs the FinOps Foundation's validator: make focus-validator")
def test_focus_1_2_passes_the_foundations_validator(tmp_path: Path) -> None:
    """focus-validator 2.2.1 finds nothing but its own two mistakes on a file with every type of row."""
    path = tmp_path / "focus.csv"
    path.write_bytes(every_row("focus-1.2"))
    assert findings(path) == FALSE_POSITIVES
