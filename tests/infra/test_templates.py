"""The templates pass their own tools: terraform's fmt, validate and test, and the offline checker of Bicep."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.infra.deployment import deployments
from tests.support.infra import ROOT, Workspace, find_infra_check
from tests.support.known_plan import SUBSCRIPTION, KnownPlan, Planner
from tests.support.terraform_values import evaluate

# What every deployment adds to the files of environments/.
OWN: dict[str, Any] = {
    "subscription_id": SUBSCRIPTION,
    "entra_client_id": "00000000-0000-4000-8000-0000000000ee",
    "entra_gateway_client_id": "00000000-0000-4000-8000-0000000000ef",
    "alert_emails": ["platform@example.com"],
}

_FROM_AZD = {
    "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
    "AZURE_ENV_NAME": "dev",
    "AZURE_LOCATION": "swedencentral",
    "ENTRA_CLIENT_ID": OWN["entra_client_id"],
    "ENTRA_GATEWAY_CLIENT_ID": OWN["entra_gateway_client_id"],
    "ALERT_EMAIL": "platform@example.com",
}


@pytest.mark.parametrize("root", ["infra/terraform", "infra/entra"])
def test_terraform_is_formatted(space: Workspace, root: str) -> None:
    """`terraform fmt` has nothing to change."""
    done = space.terraform("fmt", "-check", "-recursive", "-diff", "-no-color", root=root)
    assert done.passed, done.output


def test_terraform_is_valid(space: Workspace) -> None:
    """`terraform validate` finds nothing, with the providers' schemas and value rules."""
    done = space.terraform("validate", "-no-color")
    assert done.passed, done.output


def test_terraform_tests_pass(space: Workspace) -> None:
    """`terraform test` passes: every *.tftest.hcl, with mocked providers."""
    runs = space.test(plans=False)
    assert {run.name: run.problems for run in runs.values() if run.problems} == {}
    passed = [run.name for run in runs.values() if run.status == "pass"]
    files = {f"{file.stem}.hcl" for file in (ROOT / "infra/terraform/tests").glob("*.tftest.hcl")}
    assert {name.partition("/")[0] for name in passed} >= files, "a file without a run that passed"


def test_no_plan_is_made_to_differ_from_the_last() -> None:
    """What answers differently every time is in no argument, or the argument is ignored once it is set."""
    blocks = [
        block
        for file in sorted((ROOT / "infra/terraform").glob("*.tf"))
        for block in re.split(r"^(?=\w)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    fickle = re.compile(r"^ *(\w+) *=.*\b(?:uuid|timestamp|plantimestamp|bcrypt)\(", re.MULTILINE)
    found = [(block, argument) for block in blocks for argument in fickle.findall(block)]
    assert found, "the date that cost budget and export begin with is one"
    assert [block for block, argument in found if f"ignore_changes = [{argument}]" not in block] == []


def test_bicep_is_valid() -> None:
    """The offline checker finds nothing: names, types and versions, properties, module parameters, loaded files."""
    checker = find_infra_check()
    if checker is None:
        pytest.skip("infra-check is not there, and no Bicep compiler is to be had from a package registry")
    done = subprocess.run([checker, "bicep", ROOT / "infra/bicep"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _warnings(values: str) -> list[str]:
    """Of deployments that config/ names and the values do not, such as those of models that Azure creates no more."""
    missing = any(name not in values for name in deployments(ROOT))
    return ["check.configured_deployments_exist"] if missing else []


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_environments_can_be_planned(space: Workspace, environment: str) -> None:
    """environments/*.tfvars and what a deployment adds to them make a plan."""
    file = f"environments/{environment}.tfvars"
    text = (ROOT / "infra/terraform" / file).read_text(encoding="utf-8")
    Planner(space, variables=OWN, var_file=file, warnings=_warnings(text))


def test_no_plan_holds_the_time_it_was_made(plan: KnownPlan) -> None:
    """A pipeline plans anew after its approval, and applies what it then has only where it is the same plan."""
    today = datetime.now(UTC).strftime("%Y-%m-%dT")
    assert [address for address, planned in plan.resources.items() if today in json.dumps(planned.values)] == []


def test_the_quick_start_of_azd_is_dev(space: Workspace, tmp_path: Path) -> None:
    """main.tfvars.json, which azd fills in, makes a plan and says what dev.tfvars says, but for where it is."""
    text = (ROOT / "infra/terraform/main.tfvars.json").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{(\w+)\}", lambda variable: _FROM_AZD[variable[1]], text)
    file = tmp_path / "main.tfvars.json"
    file.write_text(filled, encoding="utf-8")
    Planner(space, variables={}, var_file=str(file), warnings=_warnings(text))
    dev_text = (ROOT / "infra/terraform/environments/dev.tfvars").read_text(encoding="utf-8")
    (tmp_path / "dev.tf").write_text(f"locals {{\n  dev = {{\n{dev_text}\n  }}\n}}\n", encoding="utf-8")
    azd, dev = json.loads(filled), evaluate("local.dev", tmp_path)
    for where in ("environment", "location", *OWN):
        azd.pop(where)
        dev.pop(where, None)
    for region in (*azd["model_regions"].values(), *dev["model_regions"].values()):
        region.pop("location")
    assert list(azd.pop("model_regions").values()) == list(dev.pop("model_regions").values())
    assert azd == dev


def test_skipped_checks_have_a_reason() -> None:
    """Each check that Checkov is told to skip says why on its line."""
    lines = [line.strip() for line in (ROOT / ".checkov.yaml").read_text(encoding="utf-8").splitlines()]
    skipped = [line for line in lines if line.startswith("- CKV")]
    assert skipped
    assert [line for line in skipped if not re.fullmatch(r"- CKV2?_AZURE_\d+ # \S.{10,}", line)] == []
