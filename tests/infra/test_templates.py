"""The templates pass their own tools: terraform's fmt, validate and test, and the offline checker of Bicep."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.infra import ROOT, Workspace, find_infra_check
from tests.support.known_plan import SUBSCRIPTION, Planner

# What every deployment adds to the files of environments/.
OWN = {
    "subscription_id": SUBSCRIPTION,
    "entra_client_id": "00000000-0000-4000-8000-0000000000ee",
    "entra_gateway_client_id": "00000000-0000-4000-8000-0000000000ef",
    "alert_emails": ["platform@example.com"],
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


def test_bicep_is_valid() -> None:
    """The offline checker finds nothing: names, types and versions, properties, module parameters, loaded files."""
    checker = find_infra_check()
    if checker is None:
        pytest.skip("infra-check is not there, and no Bicep compiler is to be had from a package registry")
    done = subprocess.run([checker, "bicep", ROOT / "infra/bicep"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_environments_can_be_planned(space: Workspace, environment: str) -> None:
    """environments/*.tfvars and what a deployment adds to them make a plan."""
    Planner(space, variables=OWN, var_file=f"environments/{environment}.tfvars")


def test_the_quick_start_of_azd_is_dev(space: Workspace) -> None:
    """main.tfvars.json, which azd fills in, gives the same deployment as dev.tfvars, wherever that stands."""
    template = (space.folder / "infra/terraform/main.tfvars.json").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{AZURE_SUBSCRIPTION_ID\}", SUBSCRIPTION, template)
    filled = re.sub(r"\$\{\w*EMAIL\w*\}", "platform@example.com", filled)
    filled = re.sub(r"\$\{ENTRA_\w+\}", str(OWN["entra_client_id"]), filled)
    filled = re.sub(r"\$\{AZURE_ENV_NAME\}", "dev", re.sub(r"\$\{AZURE_LOCATION\}", "swedencentral", filled))
    assert "${" not in filled
    file = space.folder / "azd.tfvars.json"
    file.write_text(filled, encoding="utf-8")
    Planner(space, variables={}, var_file=str(file))
    azd = {key for key, value in json.loads(template).items() if "${" not in json.dumps(value)}
    assert azd == _keys(space.folder / "infra/terraform/environments/dev.tfvars") - {
        "environment",
        "location",
        "model_regions",
    }


def _keys(tfvars: Path) -> set[str]:
    return set(re.findall(r"^(\w+)\s*=", tfvars.read_text(encoding="utf-8"), re.MULTILINE))
