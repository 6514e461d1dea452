"""What several rules need."""

from __future__ import annotations

from typing import Any

from tests.support.arm import Deployment
from tests.support.azurerm import read

APIM = "Microsoft.ApiManagement/service"
STORAGE = "Microsoft.Storage/storageAccounts"
CONTAINERS = f"{STORAGE}/blobServices/containers"
NAMESPACES = "Microsoft.EventHub/namespaces"
REDIS = "Microsoft.Cache/redisEnterprise"
VAULTS = "Microsoft.KeyVault/vaults"
MODELS = "Microsoft.CognitiveServices/accounts"
SITES = "Microsoft.Web/sites"
CONTAINER_APPS = "Microsoft.App/containerApps"
ENVIRONMENTS = "Microsoft.App/managedEnvironments"
REGISTRIES = "Microsoft.ContainerRegistry/registries"
INSIGHTS = "Microsoft.Insights/components"
IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"
EXPORTS = "Microsoft.CostManagement/exports"
DIAGNOSTICS = "Microsoft.Insights/diagnosticSettings"


def app_settings(found: Deployment) -> dict[str, str]:
    """The function app's settings."""
    listed = read(found.one(SITES).body, "properties.siteConfig.appSettings")
    return {setting["name"]: setting["value"] for setting in listed}


def named_values(found: Deployment) -> dict[str, str]:
    """By the name that policies have for them, which is the one that is displayed."""
    values = [item.properties for item in found.of(f"{APIM}/namedValues")]
    return {value["properties.displayName"]: value["properties.value"] for value in values}


def same(what: str, declared: set[str], named: set[str]) -> list[str]:
    """Both ways: what is named must be declared, and what is declared must be named."""
    missing = [f"{what} {name!r} is named and not declared" for name in sorted(named - declared)]
    return missing + [f"{what} {name!r} is declared and nobody names it" for name in sorted(declared - named)]


def expect(found: Deployment, wanted: dict[str, dict[str, Any]]) -> list[str]:
    """Properties that every resource of a type must have."""
    return [
        f"{item.type} {item.name}: {path} is {item.properties.get(path)!r}, expected {value!r}"
        for kind, properties in wanted.items()
        for item in found.of(kind)
        for path, value in properties.items()
        if item.properties.get(path) != value
    ]


def of_identity(found: Deployment, which: str, what: str) -> str:
    """`principalId` or `clientId` of the identity `functions`, `gateway` or `builtin`."""
    return f"{found.one(IDENTITIES, f'-{which}-').reference[:-1]}#properties.{what}»"
