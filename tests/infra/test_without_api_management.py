"""Without API Management nothing of it is declared, and everything else is as it was, in both templates."""

from __future__ import annotations

import re

import pytest

from tests.infra.deployment import bicep
from tests.infra.rules.common import APIM, NAMESPACES
from tests.infra.rules.parity import differences
from tests.support.arm import Deployment, Item
from tests.support.bicep_syntax import BicepError
from tests.support.infra import ROOT

# What serves nobody else, by type and a part of the name.
_ITS_OWN = (
    (f"{APIM}.*", ""),
    ("Microsoft.Authorization/roleAssignments", "id-tollkeeper-gateway-"),
    (f"{NAMESPACES}/authorizationRules", "-llmlogs-"),  # keys, for Azure Monitor to write its log by
    ("Microsoft.Insights/diagnosticSettings", f"«{APIM}:"),
    ("Microsoft.Insights/metricAlerts", "gateway-"),
    ("Microsoft.ManagedIdentity/userAssignedIdentities", "id-tollkeeper-gateway-"),
    ("Microsoft.Network/networkSecurityGroups", "nsg-gateway-"),
    ("Microsoft.Network/virtualNetworks/subnets", "/snet-gateway"),
)


def test_both_templates_declare_the_same_without_it(terraform_without: Deployment, bicep_without: Deployment) -> None:
    """The switch means one thing."""
    assert differences(terraform_without, bicep_without) == []


def test_what_is_its_own_goes_and_nothing_else(terraform_items: Deployment, terraform_without: Deployment) -> None:
    """What stays has the settings that it had, but that no hub takes keys any more."""
    before, after = ({(i.type, i.name): i for i in found.items} for found in (terraform_items, terraform_without))
    assert set(after) - set(before) == set()
    gone = set(before) - set(after)
    assert [which for which in gone if not _is_its_own(*which)] == []
    assert [which for which in after if _is_its_own(*which)] == []
    changed = {which: _changed(before[which], item) for which, item in after.items()}
    assert {which: what for which, what in changed.items() if what} == {
        (NAMESPACES, _logs(terraform_without)): {"properties.disableLocalAuth": True}
    }


def test_nothing_that_stays_names_it(bicep_without: Deployment) -> None:
    """Neither by its type nor by the name that it would have."""
    assert [item.name for item in bicep_without.items if re.search(r"ApiManagement|apim-", repr(item))] == []


def test_bicep_refuses_what_nobody_would_use() -> None:
    """As Terraform does: an emergency's named value that reaches no gateway must not look as if it did."""
    with pytest.raises(BicepError, match="leave them out"):
        bicep(ROOT, api_management=False, named_values={"tk-enforcement": "off"})


def _is_its_own(kind: str, name: str) -> bool:
    return any(re.fullmatch(own, kind) and part in name for own, part in _ITS_OWN)


def _changed(before: Item, after: Item) -> dict[str, object]:
    return {path: value for path, value in after.properties.items() if value != before.properties[path]}


def _logs(found: Deployment) -> str:
    return found.one(NAMESPACES, "-llmlogs-").name
