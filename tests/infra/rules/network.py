"""The private network: nothing but the gateway is reached from outside, and everything is found inside."""

from __future__ import annotations

from typing import Any

from tests.infra.code_names import CodeNames
from tests.infra.rules.common import APIM, ENVIRONMENTS, MODELS, NAMESPACES, REDIS, SITES, STORAGE, VAULTS, expect, same
from tests.support.arm import Deployment

_SUBNETS = "Microsoft.Network/virtualNetworks/subnets"
_RULES = "Microsoft.Network/networkSecurityGroups/securityRules"
_ZONES = "Microsoft.Network/privateDnsZones"

# Where private endpoints lead: type and subresource of what they are for, and the zones its name is looked up in.
_LINKS: dict[str, dict[str, set[str]]] = {
    STORAGE: {"blob": {"privatelink.blob.core.windows.net"}, "table": {"privatelink.table.core.windows.net"}},
    NAMESPACES: {"namespace": {"privatelink.servicebus.windows.net"}},
    REDIS: {"redisEnterprise": {"privatelink.redis.azure.net"}},
    VAULTS: {"vault": {"privatelink.vaultcore.azure.net"}},
    SITES: {"sites": {"privatelink.azurewebsites.net"}},
    MODELS: {
        "account": {
            "privatelink.openai.azure.com",
            "privatelink.cognitiveservices.azure.com",
            "privatelink.services.ai.azure.com",
        }
    },
}
_CLOSED: dict[str, dict[str, Any]] = {
    STORAGE: {"properties.publicNetworkAccess": "Disabled", "properties.networkAcls.defaultAction": "Deny"},
    NAMESPACES: {"properties.publicNetworkAccess": "Disabled"},
    f"{NAMESPACES}/networkRuleSets": {"properties.defaultAction": "Deny"},
    REDIS: {"properties.publicNetworkAccess": "Disabled"},
    VAULTS: {"properties.publicNetworkAccess": "Disabled", "properties.networkAcls.defaultAction": "Deny"},
    MODELS: {"properties.publicNetworkAccess": "Disabled"},
    SITES: {
        "properties.publicNetworkAccess": "Disabled",
        "properties.siteConfig.ipSecurityRestrictionsDefaultAction": "Deny",
        "properties.siteConfig.scmIpSecurityRestrictionsDefaultAction": "Deny",
    },
    APIM: {"properties.virtualNetworkType": "External"},
}
_DELEGATIONS = {"gateway": ["Microsoft.Web/serverFarms"], "functions": ["Microsoft.App/environments"], "endpoints": []}
_DELEGATIONS["containers"] = ["Microsoft.App/environments"]
_PORTS = {"443", "5671", "10000"}  # https, AMQP, Redis


def private(found: Deployment, code: CodeNames) -> list[str]:
    """All of it."""
    return expect(found, _CLOSED) + _endpoints(found) + _zones(found) + _subnets(found) + _rules(found)


def _endpoints(found: Deployment) -> list[str]:
    problems = []
    kinds = {item.reference: item.type for item in found.items}
    reached: set[tuple[str, str]] = set()
    for endpoint in found.of("Microsoft.Network/privateEndpoints"):
        target, [subresource] = endpoint.properties["properties.target"], endpoint.properties["properties.groupIds"]
        expected = _LINKS.get(kinds.get(target, ""), {}).get(subresource)
        if expected is None:
            problems.append(f"{endpoint.name}: {target} has no subresource {subresource}")
            continue
        reached.add((target, subresource))
        group = found.one("Microsoft.Network/privateEndpoints/privateDnsZoneGroups", f"{endpoint.name}/")
        zones = {str(zone).strip("«»").rpartition(":")[2] for zone in group.properties["properties.zones"]}
        if zones != expected:
            problems.append(f"{endpoint.name} is looked up in {sorted(zones)}, expected {sorted(expected)}")
        if _subnet(endpoint.properties["properties.subnet.id"]) != "endpoints":
            problems.append(f"{endpoint.name} stands in {endpoint.properties['properties.subnet.id']}")
    wanted = {(i.reference, sub) for kind, subs in _LINKS.items() for i in found.of(kind) for sub in subs}
    return problems + [f"{target} has no private endpoint for {sub}" for target, sub in sorted(wanted - reached)]


def _zones(found: Deployment) -> list[str]:
    """Each zone is somebody's, and linked to the network, or names lead to public addresses."""
    network = found.one("Microsoft.Network/virtualNetworks").reference
    links = found.of(f"{_ZONES}/virtualNetworkLinks")
    linked = {i.name.rpartition("/")[0] for i in links if i.properties["properties.virtualNetwork.id"] == network}
    used = {zone for subresources in _LINKS.values() for zones in subresources.values() for zone in zones}
    zones = {item.name for item in found.of(_ZONES)}
    return same("zone", zones, used) + [f"zone {zone} is not linked to the network" for zone in sorted(zones - linked)]


def _subnet(reference: str | None) -> str:
    return str(reference).strip("«»").rpartition("/snet-")[2]


def _subnets(found: Deployment) -> list[str]:
    """Who stands where. A subnet is delegated to one service and has its own security group."""
    problems = []
    for subnet in found.of(_SUBNETS):
        key = subnet.last_name.removeprefix("snet-")
        if subnet.properties["properties.delegations"] != _DELEGATIONS.get(key):
            problems.append(f"{subnet.name} is delegated to {subnet.properties['properties.delegations']}")
        group = str(subnet.properties.get("properties.networkSecurityGroup.id"))
        if f"nsg-{key}-" not in group:
            problems.append(f"{subnet.name} has the security group {group}")
    stands = {
        "gateway": found.one(APIM).properties["properties.virtualNetworkConfiguration.subnetResourceId"],
        "functions": found.one(SITES).properties["properties.virtualNetworkSubnetId"],
        "containers": found.one(ENVIRONMENTS).properties["properties.vnetConfiguration.infrastructureSubnetId"],
    }
    return problems + [f"the {who} stand in {subnet}" for who, subnet in stands.items() if _subnet(subnet) != who]


def _rules(found: Deployment) -> list[str]:
    """The endpoints' security group: Azure's own last rule would let the whole network in on every port."""
    rules = [item.properties for item in found.of(_RULES) if "nsg-endpoints" in item.name]
    ports = {
        access: {port for r in rules if r["properties.access"] == access for port in r["properties.destinationPorts"]}
        for access in ("Allow", "Deny")
    }
    problems = [] if ports["Allow"] == _PORTS else [f"the endpoints are open on {sorted(ports['Allow'])}"]
    return problems + ([] if ports["Deny"] == {"*"} else ["the endpoints are not closed on other ports"])
