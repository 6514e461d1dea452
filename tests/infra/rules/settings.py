"""Settings that Azure would take otherwise and that this product cannot live with."""

from __future__ import annotations

from typing import Any

from tests.infra.code_names import CodeNames
from tests.infra.rules.common import APIM, DIAGNOSTICS, INSIGHTS, NAMESPACES, REDIS, SITES, STORAGE, VAULTS, expect
from tests.support.arm import Deployment

_SOUND: dict[str, dict[str, Any]] = {
    STORAGE: {"properties.minimumTlsVersion": "TLS1_2", "properties.supportsHttpsTrafficOnly": True},
    NAMESPACES: {"properties.minimumTlsVersion": "1.2"},
    f"{NAMESPACES}/networkRuleSets": {"properties.trustedServiceAccessEnabled": True},  # Azure Monitor writes as one
    f"{REDIS}/databases": {
        "properties.clientProtocol": "Encrypted",
        "properties.clusteringPolicy": "EnterpriseCluster",  # REDIS_CLUSTER is false
        "properties.evictionPolicy": "NoEviction",  # an evicted counter is spend forgotten
    },
    VAULTS: {"properties.enablePurgeProtection": True},
    SITES: {
        "kind": "functionapp,linux",
        "properties.httpsOnly": True,
        "properties.siteConfig.minTlsVersion": "1.2",
        "properties.siteConfig.scmMinTlsVersion": "1.2",
        "properties.siteConfig.ftpsState": "Disabled",
        "properties.siteConfig.remoteDebuggingEnabled": False,
    },
    INSIGHTS: {"properties.SamplingPercentage": 100},  # the workbook sums log records
    f"{APIM}/apis": {
        "properties.path": "openai",
        "properties.protocols": ["https"],
        "properties.subscriptionRequired": False,  # callers may have a token alone
        "properties.subscriptionKeyParameterNames.header": "api-key",
    },
    f"{APIM}/products": {"properties.subscriptionRequired": True, "properties.approvalRequired": True},
    f"{APIM}/subscriptions": {"properties.allowTracing": False},
}
_LLM_LOG = {"GatewayLlmLogs", "GatewayLogs"}


def sound(found: Deployment, code: CodeNames) -> list[str]:
    """Properties that every resource of a type must have."""
    problems = expect(found, _SOUND)
    written = [s for s in found.of(DIAGNOSTICS) if s.properties["properties.eventHubName"]]
    problems += [] if len(written) == 1 else ["the gateway's logs are not written to one hub"]
    for setting in written:
        categories = set(setting.properties["properties.logs"])
        problems += [f"diagnostics write {sorted(categories)} to ingest"] if categories != _LLM_LOG else []
    for pool in found.of(f"{APIM}/backends"):
        rules = pool.properties["properties.circuitBreaker.rules"]
        if pool.properties.get("properties.type") != "Pool" and not rules:
            problems.append(f"{pool.name} has no circuit breaker")
    return problems


def no_content_logged(found: Deployment, code: CodeNames) -> list[str]:
    """Diagnostics carry no prompts and no answers."""
    problems = []
    for item in found.of(f"{APIM}/apis/diagnostics"):
        messages = set(item.properties.get("properties.largeLanguageModel") or {}) - {"logs"}
        problems += [f"{item.name} logs messages: {sorted(messages)}"] if messages else []
        sizes = item.properties["bytes"]
        problems += [f"{item.name} logs bodies: {sizes}"] if set(sizes.values()) != {0} else []
    llm = found.one(f"{APIM}/apis/diagnostics", "azuremonitor").properties.get("properties.largeLanguageModel")
    return problems + ([] if llm == {"logs": "enabled"} else [f"the LLM log is {llm}"])
