"""Access: every role that something works by and no other, and no keys."""

from __future__ import annotations

from typing import Any

from tests.infra.code_names import CodeNames
from tests.infra.rules.common import (
    APIM,
    CONTAINER_APPS,
    CONTAINERS,
    DIAGNOSTICS,
    INSIGHTS,
    MODELS,
    NAMESPACES,
    REDIS,
    REGISTRIES,
    SITES,
    STORAGE,
    VAULTS,
    expect,
    of_identity,
    same,
)
from tests.support.arm import Deployment
from tests.support.azurerm import read

# What switches keys off, by type.
KEYLESS: dict[str, dict[str, Any]] = {
    STORAGE: {
        "properties.allowSharedKeyAccess": False,
        "properties.allowBlobPublicAccess": False,
        "properties.isLocalUserEnabled": False,
        "properties.defaultToOAuthAuthentication": True,
    },
    NAMESPACES: {"properties.disableLocalAuth": True},
    f"{REDIS}/databases": {"properties.accessKeysAuthentication": "Disabled"},
    VAULTS: {"properties.enableRbacAuthorization": True},
    MODELS: {"properties.disableLocalAuth": True},
    REGISTRIES: {"properties.adminUserEnabled": False, "properties.anonymousPullEnabled": False},
    "Microsoft.OperationalInsights/workspaces": {"properties.features.disableLocalAuth": True},
    INSIGHTS: {"properties.DisableLocalAuth": True},
    f"{SITES}/basicPublishingCredentialsPolicies": {"properties.allow": False},
}


def access(found: Deployment, code: CodeNames) -> list[str]:
    """Every role that something here works by, and no other."""
    functions, gateway, builtin = (
        of_identity(found, which, "principalId") for which in ("functions", "gateway", "builtin")
    )
    host, ledger = found.one(STORAGE, "host").reference, found.one(STORAGE, "ledger").reference
    usage, llm_logs = found.one(NAMESPACES, "usage").reference, found.one(NAMESPACES, "llmlogs").reference
    insights, vault = found.one(INSIGHTS).reference, found.one(VAULTS).reference
    containers = {item.last_name: item.reference for item in found.of(CONTAINERS)}
    in_vault = vault.rstrip("»").replace(VAULTS, f"{VAULTS}/secrets")
    secrets = found.one(CONTAINER_APPS).properties["secrets"]
    writes = "Storage Blob Data Contributor"
    wanted = {
        (host, functions, "Storage Blob Data Owner"),  # the host's checkpoints, locks and package
        (host, functions, "Storage Table Data Contributor"),  # where the host writes down its own failures
        (ledger, functions, "Storage Table Data Contributor"),
        *((containers.get(name, name), functions, writes) for name in code.containers),
        (containers.get("config", "config"), functions, writes),  # budgets are edited in the dashboard
        (containers.get("cost-exports", "cost-exports"), functions, "Storage Blob Data Reader"),  # the invoice
        *((hub, functions, "Azure Event Hubs Data Receiver") for hub in (usage, llm_logs)),
        *((hub, functions, "Azure Event Hubs Data Sender") for hub in (usage, llm_logs)),
        (vault, functions, "Key Vault Secrets User"),
        (insights, functions, "Monitoring Metrics Publisher"),
        (insights, gateway, "Monitoring Metrics Publisher"),
        (usage, gateway, "Azure Event Hubs Data Sender"),
        *((account.reference, gateway, "Cognitive Services OpenAI User") for account in found.of(MODELS)),
        # The built-in gateway faces the internet: no table, no other container, no secret but those that it is told of.
        (containers.get("config", "config"), builtin, "Storage Blob Data Reader"),
        (usage, builtin, "Azure Event Hubs Data Sender"),
        (insights, builtin, "Monitoring Metrics Publisher"),
        *((f"{in_vault}/{name}»", builtin, "Key Vault Secrets User") for name in secrets),
        *((account.reference, builtin, "Cognitive Services OpenAI User") for account in found.of(MODELS)),
        *((registry.reference, builtin, "AcrPull") for registry in found.of(REGISTRIES)),
        (containers.get("usage-capture", "usage-capture"), f"{usage[:-1]}#identity.principalId»", writes),
    }
    granted = [item.name.split("|") for item in found.of("Microsoft.Authorization/roleAssignments")]
    people = [grant for grant in granted if "«" not in grant[1]]
    grants = {" | ".join(grant) for grant in granted if grant not in people}
    problems = same("role", grants, {" | ".join(grant) for grant in wanted})
    publishing = [containers.get("config"), writes]  # the one thing that people and pipelines do here
    problems += [f"{who} gets {role} on {scope}" for scope, who, role in people if [scope, role] != publishing]
    redis = found.of(f"{REDIS}/databases/accessPolicyAssignments")
    users = {r.properties["properties.user.objectId"] for r in redis}
    return problems + same("Redis user", users, {functions, builtin})


def keyless(found: Deployment, code: CodeNames) -> list[str]:
    """Keys are off wherever a service can do without, and connections are made by identity."""
    # Diagnostic settings take an access rule and no identity: the namespace they write to is the one with keys.
    rules = [str(s.properties["properties.eventHubAuthorizationRuleId"]) for s in found.of(DIAGNOSTICS)]
    with_keys = {rule.partition(":")[2].partition("/")[0] for rule in rules if ":" in rule}
    kept = [item for item in found.items if item.type != NAMESPACES or item.name not in with_keys]
    problems = expect(Deployment(kept), KEYLESS)
    if len(with_keys) != 1:
        problems.append(f"namespaces with keys: {sorted(with_keys)}, expected one, for diagnostic settings")
    for logger in found.of(f"{APIM}/loggers"):
        kind, to = logger.properties["properties.loggerType"], logger.properties["properties.credentials"]
        if kind != "azureMonitor" and to["identityClientId"] != of_identity(found, "gateway", "clientId"):
            problems.append(f"logger {logger.name} does not sign in with the gateway's identity")
        if to["instrumentationKey"] or (to["connectionString"] and kind == "azureEventHub"):
            problems.append(f"logger {logger.name} signs in with a key")
    for hub in found.of(f"{NAMESPACES}/eventhubs"):
        by = hub.properties["properties.captureDescription.destination.identity.type"]
        if hub.properties["properties.captureDescription.enabled"] and by != "SystemAssigned":
            problems.append(f"hub {hub.name} captures by {by}, expected by identity")
    package = read(found.one(SITES).body, "properties.functionAppConfig.deployment.storage.authentication.type")
    return problems + ([] if package == "UserAssignedIdentity" else [f"the package is read by {package}"])
