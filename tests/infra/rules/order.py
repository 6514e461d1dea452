"""What must be there before what: Azure refuses the later one otherwise, or it starts without what it needs."""

from __future__ import annotations

import json
import re

from tests.infra.code_names import CodeNames
from tests.infra.rules.common import APIM, CONTAINER_APPS, DIAGNOSTICS, MODELS, NAMESPACES, REDIS, SITES, VAULTS
from tests.support.arm import Deployment, Item
from tests.support.azurerm import PARTS_OF

_NAMED = re.compile("«([^«»#]+)(?:#[^«»]*)?»")
_SET_LATER = {path for _, path, _ in PARTS_OF.values()}
_ROLES = "Microsoft.Authorization/roleAssignments"
_ENDPOINTS = "Microsoft.Network/privateEndpoints"
# (what, part of its name, comes after what, part of its name); * stands between parts of a name
_ORDER = (
    (f"{APIM}/policyFragments", "", f"{APIM}/namedValues", ""),
    (f"{APIM}/policyFragments", "", f"{APIM}/backends", "openai-pool"),
    (f"{APIM}/policyFragments", "", f"{APIM}/loggers", "usage-logger"),
    (f"{APIM}/apis/policies", "", f"{APIM}/namedValues", ""),
    (f"{APIM}/apis/policies", "", f"{APIM}/policyFragments", ""),
    (f"{APIM}/apis/policies", "", f"{APIM}/backends", ""),
    (f"{APIM}/apis/policies", "", f"{APIM}/loggers", "usage-logger"),
    (f"{APIM}/backends", "openai-pool", f"{APIM}/backends", "models-"),
    (f"{APIM}/apis/diagnostics", "azuremonitor", f"{APIM}/loggers", "azuremonitor"),
    (f"{APIM}/loggers", "usage-logger", _ROLES, "-gateway-*|Azure Event Hubs Data Sender"),
    (f"{APIM}/loggers", "insights-logger", _ROLES, "-gateway-*|Monitoring Metrics Publisher"),
    (f"{NAMESPACES}/eventhubs", "-usage-", _ROLES, "/usage-capture»"),
    (DIAGNOSTICS, "|llm-logs", f"{NAMESPACES}/networkRuleSets", ""),
    (DIAGNOSTICS, "|llm-logs", f"{NAMESPACES}/authorizationRules", ""),
    (_ENDPOINTS, "pep-models-", f"{MODELS}/deployments", ""),
    (_ENDPOINTS, "pep-redis-", f"{REDIS}/databases/accessPolicyAssignments", ""),
    (SITES, "", _ENDPOINTS, "pep-vault-"),
    (SITES, "", _ENDPOINTS, "pep-redis-"),
    (SITES, "", f"{_ENDPOINTS}/privateDnsZoneGroups", "pep-vault-"),
    (SITES, "", "Microsoft.Network/privateDnsZones/virtualNetworkLinks", "privatelink.vaultcore.azure.net"),
    (SITES, "", _ROLES, "id-tollkeeper-functions"),
    (SITES, "", f"{VAULTS}/secrets", ""),
    (SITES, "", f"{REDIS}/databases/accessPolicyAssignments", ""),
    (CONTAINER_APPS, "", _ENDPOINTS, "pep-vault-"),
    (CONTAINER_APPS, "", _ENDPOINTS, "pep-redis-"),
    (CONTAINER_APPS, "", "Microsoft.Network/privateDnsZones/virtualNetworkLinks", "privatelink.vaultcore.azure.net"),
    (CONTAINER_APPS, "", _ROLES, "id-tollkeeper-builtin"),
    (CONTAINER_APPS, "", f"{VAULTS}/secrets", ""),
    (CONTAINER_APPS, "", f"{REDIS}/databases/accessPolicyAssignments", ""),
)


def order(found: Deployment, code: CodeNames) -> list[str]:
    """Everything waits for what it needs."""
    problems = []
    for kind, name, earlier_kind, earlier_name in _ORDER:
        earlier = _named(found, earlier_kind, earlier_name)
        problems += [] if earlier else [f"there is no {earlier_kind} {earlier_name}"]
        for item in _named(found, kind, name):
            missing = {other.reference for other in earlier} - found.comes_after(item) - {item.reference}
            problems += [f"{item.type} {item.name} does not wait for {other}" for other in sorted(missing)]
    return problems + _named_before(found)


def _named_before(found: Deployment) -> list[str]:
    """Whatever names another resource waits for it. Bicep does not see that where an id is put together from text."""
    declared = {item.reference for item in found.items}
    problems = []
    for item in found.items:
        # azurerm sets some properties by a resource of their own, which waits for both.
        own = {path: value for path, value in item.properties.items() if item.body or path not in _SET_LATER}
        text = f"{item.name} {json.dumps([item.body, own], ensure_ascii=False)}"
        named = {f"«{name}»" for name in _NAMED.findall(text)} & declared
        missing = named - found.comes_after(item) - {item.reference}
        problems += [f"{item.type} {item.name} names {other} and does not wait for it" for other in sorted(missing)]
    return problems


def _named(found: Deployment, kind: str, part: str) -> list[Item]:
    return [item for item in found.of(kind) if all(one in item.name for one in part.split("*"))]
