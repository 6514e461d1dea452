"""What code, policies and host.json name exists in both templates, and the other way round; both declare the same."""

from __future__ import annotations

import re

import pytest

from shared.settings import Settings
from tests.infra.code_names import LEFT_ALONE, CodeNames, known_settings
from tests.infra.deployment import bicep_name
from tests.infra.rules import RULES, Rule
from tests.infra.rules.parity import differences
from tests.support.arm import Deployment
from tests.support.bicep_syntax import parse
from tests.support.infra import ROOT, Workspace

# Inputs of Terraform that Bicep has no parameter for: it is the thin one of the two.
TERRAFORM_ALONE = {
    "subscription_id": "whoever starts the deployment says which",
    "ledger_replication": "ZRS, or LRS without zones",
    "capture_retention_days": "Terraform's default",
    "recovery_days": "Terraform's default",
    "request_sampling_percentage": "Terraform's default",
    "publisher": "named for the product",
    "reservation_keys_version": "a deployment never replaces the secret",
    "config_path": "Bicep loads files by names that stand in main.bicepparam",
    "config_digest": "Bicep cannot hash files; a test holds the digest against them",
}
BICEP_ALONE = {
    "teams": "Terraform looks the files up",
    "reservationKey": "newGuid() is a parameter's default or nothing",
    "madeAt": "utcNow() is a parameter's default or nothing",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_terraform_holds(rule: Rule, terraform_items: Deployment, code: CodeNames) -> None:
    """No rule says anything against what Terraform plans."""
    assert rule(terraform_items, code) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_bicep_holds(rule: Rule, bicep_items: Deployment, code: CodeNames) -> None:
    """No rule says anything against what Bicep declares."""
    assert rule(bicep_items, code) == []


def test_both_templates_declare_the_same(terraform_items: Deployment, bicep_items: Deployment) -> None:
    """The same resources by type and name, with the same settings."""
    assert differences(terraform_items, bicep_items) == []
    assert len(terraform_items.items) > 150


def test_both_templates_take_the_same_inputs(space: Workspace) -> None:
    """A variable of Terraform is a parameter of Bicep of the same name, but for those listed with their reason."""
    source = (ROOT / "infra/bicep/main.bicep").read_text(encoding="utf-8")
    parameters = {d.name for d in parse(source) if d.kind == "param"}
    variables = _variables(space)
    assert set(TERRAFORM_ALONE) <= variables
    assert parameters - set(BICEP_ALONE) == {bicep_name(name) for name in variables - set(TERRAFORM_ALONE)}


def _variables(space: Workspace) -> set[str]:
    """Names of the root module's variables."""
    files = (space.folder / "infra/terraform").glob("*.tf")
    return {name for file in files for name in re.findall(r'^variable "(\w+)"', file.read_text(), re.MULTILINE)}


def test_settings_left_alone_are_settings() -> None:
    """Every setting that a deployment leaves at its default is one that the code reads."""
    assert set(LEFT_ALONE) <= known_settings()


def test_hubs_have_their_names_by_default(terraform_items: Deployment) -> None:
    """The laptop's defaults are what the templates name the hubs."""
    hubs = terraform_items.names("Microsoft.EventHub/namespaces/eventhubs")
    assert hubs == {Settings().usage_hub, Settings().llm_logs_hub}
