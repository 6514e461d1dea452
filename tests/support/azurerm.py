"""What each azurerm resource is in Azure: its type, its name there, and the ARM properties behind its arguments.

Only properties that tests look at are named: what a security setting, a connection or a name depends on. A type that
is used in infra/terraform and missing here makes the comparison fail, so that nothing escapes it.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Values = dict[str, Any]
Getter = str | Callable[[Values], Any]


@dataclass(frozen=True)
class Mapping:
    """One azurerm type. `name` is filled in with arguments; one that holds an id gives the name of what it names."""

    type: str
    name: str = "{name}"
    properties: dict[str, Getter] = field(default_factory=dict)
    parts: tuple[Mapping, ...] = ()  # what is a resource of its own in Azure


def enabled(argument: str) -> Callable[[Values], Any]:
    return lambda v: "Enabled" if read(v, argument) else "Disabled"


def negated(argument: str) -> Callable[[Values], Any]:
    return lambda v: None if read(v, argument) is None else not read(v, argument)


def spoken(policy: str) -> str:
    """A policy without what its formats write differently: entities and the kind of quotes."""
    return html.unescape(policy).replace("'", '"')


def each(argument: str, member: str) -> Callable[[Values], Any]:
    return lambda v: [read(element, member) for element in read(v, argument) or []]


def read(values: Any, path: str) -> Any:
    """`a.0.b` of nested values; None where something on the way is missing."""
    for part in path.split("."):
        if isinstance(values, list):
            values = values[int(part)] if int(part) < len(values) else None
        elif isinstance(values, dict):
            values = values.get(part)
        else:
            return None
    return values


_IDENTITY: dict[str, Getter] = {
    "identity.type": lambda v: (read(v, "identity.0.type") or "None").replace(", ", ","),
    "identity.userAssignedIdentities": lambda v: sorted(read(v, "identity.0.identity_ids") or []),
}
_SIDES = [
    (side, what) for side in ("frontend", "backend") for what in ("request", "response")
]  # where bodies are logged
_APIM = "Microsoft.ApiManagement/service"
_STORAGE = "Microsoft.Storage/storageAccounts"

MAPPINGS = {
    "azurerm_resource_group": Mapping("Microsoft.Resources/resourceGroups"),
    "azurerm_user_assigned_identity": Mapping("Microsoft.ManagedIdentity/userAssignedIdentities"),
    # Network
    "azurerm_virtual_network": Mapping(
        "Microsoft.Network/virtualNetworks", properties={"properties.addressSpace.addressPrefixes": "address_space"}
    ),
    "azurerm_subnet": Mapping(
        "Microsoft.Network/virtualNetworks/subnets",
        "{virtual_network_name}/{name}",
        {
            "properties.addressPrefix": "address_prefixes.0",
            "properties.delegations": lambda v: [read(d, "service_delegation.0.name") for d in v["delegation"]],
            "properties.privateEndpointNetworkPolicies": "private_endpoint_network_policies",
        },
    ),
    "azurerm_network_security_group": Mapping("Microsoft.Network/networkSecurityGroups"),
    "azurerm_network_security_rule": Mapping(
        "Microsoft.Network/networkSecurityGroups/securityRules",
        "{network_security_group_name}/{name}",
        {
            "properties.priority": "priority",
            "properties.direction": "direction",
            "properties.access": "access",
            "properties.protocol": "protocol",
            "properties.sourceAddressPrefix": "source_address_prefix",
            "properties.destinationAddressPrefix": "destination_address_prefix",
            "properties.destinationPorts": lambda v: sorted(
                v.get("destination_port_ranges") or [v.get("destination_port_range")]
            ),
        },
    ),
    "azurerm_private_dns_zone": Mapping("Microsoft.Network/privateDnsZones"),
    "azurerm_private_dns_zone_virtual_network_link": Mapping(
        "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
        "{private_dns_zone_id}/{name}",
        {
            "properties.virtualNetwork.id": "virtual_network_id",
            "properties.registrationEnabled": lambda v: bool(v["registration_enabled"]),
        },
    ),
    "azurerm_private_endpoint": Mapping(
        "Microsoft.Network/privateEndpoints",
        properties={
            "properties.subnet.id": "subnet_id",
            "properties.target": "private_service_connection.0.private_connection_resource_id",
            "properties.groupIds": "private_service_connection.0.subresource_names",
        },
        parts=(
            Mapping(
                "Microsoft.Network/privateEndpoints/privateDnsZoneGroups",
                "{name}/default",
                {"properties.zones": lambda v: sorted(read(v, "private_dns_zone_group.0.private_dns_zone_ids") or [])},
            ),
        ),
    ),
    # Data
    "azurerm_storage_account": Mapping(
        _STORAGE,
        properties={
            "sku.name": lambda v: f"{v['account_tier']}_{v['account_replication_type']}",
            "properties.allowSharedKeyAccess": "shared_access_key_enabled",
            "properties.allowBlobPublicAccess": "allow_nested_items_to_be_public",
            "properties.isLocalUserEnabled": "local_user_enabled",
            "properties.defaultToOAuthAuthentication": "default_to_oauth_authentication",
            "properties.minimumTlsVersion": "min_tls_version",
            "properties.supportsHttpsTrafficOnly": lambda v: v["https_traffic_only_enabled"] is not False,
            "properties.allowCrossTenantReplication": lambda v: bool(v["cross_tenant_replication_enabled"]),
            "properties.publicNetworkAccess": enabled("public_network_access_enabled"),
            "properties.networkAcls.defaultAction": "network_rules.0.default_action",
            "properties.networkAcls.bypass": lambda v: ", ".join(sorted(read(v, "network_rules.0.bypass") or [])),
            "properties.networkAcls.ipRules": lambda v: sorted(read(v, "network_rules.0.ip_rules") or []),
        },
        parts=(
            Mapping(
                f"{_STORAGE}/blobServices",
                "{name}/default",
                {
                    "properties.isVersioningEnabled": lambda v: bool(read(v, "blob_properties.0.versioning_enabled")),
                    "properties.deleteRetentionPolicy.days": "blob_properties.0.delete_retention_policy.0.days",
                    "properties.containerDeleteRetentionPolicy.days": (
                        "blob_properties.0.container_delete_retention_policy.0.days"
                    ),
                },
            ),
        ),
    ),
    "azurerm_storage_container": Mapping(f"{_STORAGE}/blobServices/containers", "{storage_account_id}/default/{name}"),
    "azurerm_storage_container_immutability_policy": Mapping(
        f"{_STORAGE}/blobServices/containers/immutabilityPolicies",
        "{storage_container_resource_manager_id}/default",
        {
            "properties.immutabilityPeriodSinceCreationInDays": "immutability_period_in_days",
            "properties.allowProtectedAppendWrites": lambda v: bool(v.get("protected_append_writes_enabled")),
        },
    ),
    "azurerm_storage_management_policy": Mapping(
        f"{_STORAGE}/managementPolicies",
        "{storage_account_id}/default",
        {"rules": lambda v: sorted(rule["name"] for rule in v["rule"])},
    ),
    "azurerm_eventhub_namespace": Mapping(
        "Microsoft.EventHub/namespaces",
        properties={
            "sku.name": "sku",
            "sku.capacity": "capacity",
            "properties.disableLocalAuth": negated("local_authentication_enabled"),
            "properties.publicNetworkAccess": enabled("public_network_access_enabled"),
            "properties.minimumTlsVersion": "minimum_tls_version",
            "properties.isAutoInflateEnabled": "auto_inflate_enabled",
            "properties.maximumThroughputUnits": "maximum_throughput_units",
            **_IDENTITY,
        },
    ),
    "azurerm_eventhub": Mapping(
        "Microsoft.EventHub/namespaces/eventhubs",
        "{namespace_id}/{name}",
        {
            "properties.partitionCount": "partition_count",
            "properties.retentionDescription.retentionTimeInHours": "retention_description.0.retention_time_in_hours",
            "properties.captureDescription.enabled": lambda v: bool(read(v, "capture_description.0.enabled")),
            "properties.captureDescription.destination.identity.type": (
                "capture_description.0.destination.0.storage_authentication_type"
            ),
            "properties.captureDescription.destination.properties.blobContainer": (
                "capture_description.0.destination.0.blob_container_name"
            ),
            "properties.captureDescription.destination.properties.storageAccountResourceId": (
                "capture_description.0.destination.0.storage_account_id"
            ),
        },
    ),
    "azurerm_eventhub_consumer_group": Mapping(
        "Microsoft.EventHub/namespaces/eventhubs/consumergroups", "{namespace_name}/{eventhub_name}/{name}"
    ),
    "azurerm_managed_redis": Mapping(
        "Microsoft.Cache/redisEnterprise",
        properties={
            "sku.name": "sku_name",
            "properties.publicNetworkAccess": "public_network_access",
            "properties.highAvailability": enabled("high_availability_enabled"),
        },
        parts=(
            Mapping(
                "Microsoft.Cache/redisEnterprise/databases",
                "{name}/default",
                {
                    "properties.accessKeysAuthentication": enabled(
                        "default_database.0.access_keys_authentication_enabled"
                    ),
                    "properties.clientProtocol": "default_database.0.client_protocol",
                    "properties.clusteringPolicy": "default_database.0.clustering_policy",
                    "properties.evictionPolicy": "default_database.0.eviction_policy",
                },
            ),
        ),
    ),
    "azurerm_managed_redis_access_policy_assignment": Mapping(
        "Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments",
        "{managed_redis_id}/default/{object_id}",
        {"properties.user.objectId": "object_id"},
    ),
    "azurerm_key_vault": Mapping(
        "Microsoft.KeyVault/vaults",
        properties={
            "properties.enableRbacAuthorization": "rbac_authorization_enabled",
            "properties.enablePurgeProtection": "purge_protection_enabled",
            "properties.publicNetworkAccess": enabled("public_network_access_enabled"),
            "properties.networkAcls.defaultAction": "network_acls.0.default_action",
            "properties.networkAcls.bypass": "network_acls.0.bypass",
        },
    ),
    # Functions
    "azurerm_service_plan": Mapping("Microsoft.Web/serverfarms", properties={"sku.name": "sku_name"}),
    # Access. A role assignment is told by what it says: its name is a GUID that means nothing.
    "azurerm_role_assignment": Mapping(
        "Microsoft.Authorization/roleAssignments",
        "{scope}|{principal_id}|{role_definition_name}",
        {"properties.principalType": "principal_type"},
    ),
    # The built-in gateway
    "azurerm_container_registry": Mapping(
        "Microsoft.ContainerRegistry/registries",
        properties={
            "sku.name": "sku",
            "properties.adminUserEnabled": "admin_enabled",
            "properties.anonymousPullEnabled": "anonymous_pull_enabled",
        },
    ),
    "azurerm_container_app_environment": Mapping(
        "Microsoft.App/managedEnvironments",
        properties={
            "properties.appLogsConfiguration.destination": "logs_destination",
            "properties.infrastructureResourceGroup": "infrastructure_resource_group_name",
            "properties.publicNetworkAccess": "public_network_access",
            "properties.vnetConfiguration.infrastructureSubnetId": "infrastructure_subnet_id",
            "properties.vnetConfiguration.internal": "internal_load_balancer_enabled",
            "properties.zoneRedundant": lambda v: bool(v["zone_redundancy_enabled"]),
            "profiles": lambda v: [[p["name"], p["workload_profile_type"]] for p in v["workload_profile"]],
        },
    ),
    "azurerm_container_app": Mapping(
        "Microsoft.App/containerApps",
        properties={
            "properties.environmentId": "container_app_environment_id",
            "properties.workloadProfileName": "workload_profile_name",
            "properties.configuration.activeRevisionsMode": "revision_mode",
            "properties.configuration.maxInactiveRevisions": "max_inactive_revisions",
            "properties.configuration.ingress.external": "ingress.0.external_enabled",
            "properties.configuration.ingress.targetPort": "ingress.0.target_port",
            "properties.configuration.ingress.transport": "ingress.0.transport",
            "properties.configuration.ingress.allowInsecure": "ingress.0.allow_insecure_connections",
            "properties.template.terminationGracePeriodSeconds": "template.0.termination_grace_period_seconds",
            "properties.template.scale.minReplicas": "template.0.min_replicas",
            "properties.template.scale.maxReplicas": "template.0.max_replicas",
            "properties.template.scale.cooldownPeriod": "template.0.cooldown_period_in_seconds",
            "callers": lambda v: each("ingress.0.ip_security_restriction", "ip_address_range")(v),
            "container": lambda v: [
                read(v, f"template.0.container.0.{what}") for what in ("name", "image", "cpu", "memory")
            ],
            "mounts": lambda v: {
                mount["path"]: next(
                    volume["storage_type"] for volume in read(v, "template.0.volume") if volume["name"] == mount["name"]
                )
                for mount in read(v, "template.0.container.0.volume_mounts")
            },
            "probes": lambda v: {
                kind: [
                    read(v, f"template.0.container.0.{kind}_probe.0.{what}")
                    for what in ("path", "port", "interval_seconds", "timeout", "failure_count_threshold")
                ]
                for kind in ("startup", "liveness", "readiness")
            },
            "registries": lambda v: {one["server"]: one["identity"] for one in v["registry"]},
            "scale rules": lambda v: [
                *(rule["concurrent_requests"] for rule in read(v, "template.0.http_scale_rule")),
                *(
                    [rule["custom_rule_type"], rule["metadata"]["value"]]
                    for rule in read(v, "template.0.custom_scale_rule")
                ),
            ],
            "secrets": lambda v: {one["name"]: [one["key_vault_secret_id"], one["identity"]] for one in v["secret"]},
            "settings": lambda v: {
                one["name"]: one["value"] or f"secret {one['secret_name']}"
                for one in read(v, "template.0.container.0.env")
            },
            **_IDENTITY,
        },
    ),
    # Gateway
    "azurerm_api_management": Mapping(
        _APIM,
        properties={
            "sku.name": lambda v: v["sku_name"].partition("_")[0],
            "sku.capacity": lambda v: int(v["sku_name"].partition("_")[2]),
            "properties.virtualNetworkType": "virtual_network_type",
            "properties.virtualNetworkConfiguration.subnetResourceId": "virtual_network_configuration.0.subnet_id",
            **_IDENTITY,
        },
    ),
    "azurerm_api_management_logger": Mapping(
        f"{_APIM}/loggers",
        "{api_management_name}/{name}",
        {
            "properties.loggerType": lambda v: "azureEventHub" if v["eventhub"] else "applicationInsights",
            "properties.credentials": lambda v: {
                "name": read(v, "eventhub.0.name"),
                "endpointAddress": read(v, "eventhub.0.endpoint_uri"),
                "connectionString": (
                    read(v, "application_insights.0.connection_string") or read(v, "eventhub.0.connection_string")
                ),
                "instrumentationKey": read(v, "application_insights.0.instrumentation_key"),
                "identityClientId": (
                    read(v, "eventhub.0.user_assigned_identity_client_id")
                    or read(v, "application_insights.0.identity_client_id")
                ),
            },
        },
    ),
    "azurerm_api_management_backend": Mapping(
        f"{_APIM}/backends",
        "{api_management_name}/{name}",
        {
            "properties.url": "url",
            "properties.protocol": "protocol",
            "properties.circuitBreaker.rules": lambda v: len(v["circuit_breaker_rule"]),
        },
    ),
    "azurerm_api_management_named_value": Mapping(
        f"{_APIM}/namedValues",
        "{api_management_name}/{name}",
        {
            "properties.displayName": "display_name",
            "properties.value": "value",
            "properties.secret": lambda v: bool(v["secret"]),
        },
    ),
    "azurerm_api_management_policy_fragment": Mapping(
        f"{_APIM}/policyFragments", "{api_management_id}/{name}", {"policy": lambda v: spoken(v["value"])}
    ),
    "azurerm_api_management_api": Mapping(
        f"{_APIM}/apis",
        "{api_management_name}/{name}",
        {
            "properties.path": "path",
            "properties.protocols": "protocols",
            "properties.subscriptionRequired": "subscription_required",
            "properties.subscriptionKeyParameterNames.header": "subscription_key_parameter_names.0.header",
        },
    ),
    "azurerm_api_management_api_operation": Mapping(
        f"{_APIM}/apis/operations", "{api_management_name}/{api_name}/{operation_id}"
    ),
    "azurerm_api_management_api_policy": Mapping(
        f"{_APIM}/apis/policies",
        "{api_management_name}/{api_name}/policy",
        {"policy": lambda v: spoken(v["xml_content"])},
    ),
    "azurerm_api_management_api_diagnostic": Mapping(
        f"{_APIM}/apis/diagnostics",
        "{api_management_name}/{api_name}/{identifier}",
        {
            "properties.loggerId": "api_management_logger_id",
            "properties.logClientIp": "log_client_ip",
            "properties.sampling.percentage": "sampling_percentage",
            "bytes": lambda v: {f"{a} {b}": read(v, f"{a}_{b}.0.body_bytes") for a, b in _SIDES},
        },
    ),
    "azurerm_api_management_diagnostic": Mapping(
        f"{_APIM}/diagnostics",
        "{api_management_name}/{identifier}",
        {"properties.loggerId": "api_management_logger_id"},
    ),
    "azurerm_api_management_product": Mapping(
        f"{_APIM}/products",
        "{api_management_name}/{product_id}",
        {
            "properties.subscriptionRequired": "subscription_required",
            "properties.approvalRequired": lambda v: bool(v["approval_required"]),
            "properties.state": lambda v: "published" if v["published"] else "notPublished",
        },
    ),
    "azurerm_api_management_product_api": Mapping(
        f"{_APIM}/products/apis", "{api_management_name}/{product_id}/{api_name}"
    ),
    # Models
    "azurerm_cognitive_account": Mapping(
        "Microsoft.CognitiveServices/accounts",
        properties={
            "kind": "kind",
            "sku.name": "sku_name",
            "properties.customSubDomainName": "custom_subdomain_name",
            "properties.disableLocalAuth": negated("local_auth_enabled"),
            "properties.publicNetworkAccess": enabled("public_network_access_enabled"),
            "properties.networkAcls.defaultAction": "network_acls.0.default_action",
            **_IDENTITY,
        },
    ),
    "azurerm_cognitive_deployment": Mapping(
        "Microsoft.CognitiveServices/accounts/deployments",
        "{cognitive_account_id}/{name}",
        {
            "properties.model.name": "model.0.name",
            "properties.model.version": "model.0.version",
            "sku.name": "sku.0.name",
            "sku.capacity": "sku.0.capacity",
            "properties.versionUpgradeOption": "version_upgrade_option",
        },
    ),
    # Monitoring
    "azurerm_log_analytics_workspace": Mapping(
        "Microsoft.OperationalInsights/workspaces",
        properties={
            "properties.features.disableLocalAuth": negated("local_authentication_enabled"),
            "properties.retentionInDays": "retention_in_days",
        },
    ),
    "azurerm_application_insights": Mapping(
        "Microsoft.Insights/components",
        properties={
            "properties.DisableLocalAuth": negated("local_authentication_enabled"),
            "properties.WorkspaceResourceId": "workspace_id",
            "properties.SamplingPercentage": "sampling_percentage",
        },
    ),
    "azurerm_application_insights_workbook": Mapping(
        "Microsoft.Insights/workbooks", "workbook", {"properties.serializedData": "data_json"}
    ),
    "azurerm_monitor_action_group": Mapping("Microsoft.Insights/actionGroups"),
    "azurerm_monitor_metric_alert": Mapping(
        "Microsoft.Insights/metricAlerts",
        properties={
            "properties.scopes": "scopes",
            "properties.severity": "severity",
            "metric": "criteria.0.metric_name",
            "threshold": "criteria.0.threshold",
        },
    ),
    "azurerm_monitor_scheduled_query_rules_alert_v2": Mapping(
        "Microsoft.Insights/scheduledQueryRules",
        properties={
            "properties.scopes": "scopes",
            "properties.severity": "severity",
            "properties.evaluationFrequency": "evaluation_frequency",
            "properties.windowSize": "window_duration",
            "properties.autoMitigate": lambda v: bool(v["auto_mitigation_enabled"]),
            "query": "criteria.0.query",
            "measure": "criteria.0.metric_measure_column",
            "threshold": "criteria.0.threshold",
        },
    ),
    "azurerm_monitor_diagnostic_setting": Mapping(
        "Microsoft.Insights/diagnosticSettings",
        "{target_resource_id}|{name}",
        {
            "properties.workspaceId": "log_analytics_workspace_id",
            "properties.eventHubName": "eventhub_name",
            "properties.eventHubAuthorizationRuleId": "eventhub_authorization_rule_id",
            "properties.logs": lambda v: sorted(filter(None, each("enabled_log", "category")(v))),
        },
    ),
    "azurerm_consumption_budget_resource_group": Mapping(
        "Microsoft.Consumption/budgets",
        properties={
            "properties.amount": "amount",
            "properties.timeGrain": "time_grain",
            "properties.notifications": lambda v: sorted(
                [n["threshold_type"], n["threshold"], n["operator"], n["contact_groups"] or []]
                for n in v["notification"]
            ),
        },
    ),
}

# How Azure's own form says what is told above in another way. Anything else stands under its own path.
FORMS: dict[str, dict[str, Getter]] = {
    "Microsoft.App/managedEnvironments": {
        "profiles": lambda b: [
            [profile["name"], profile["workloadProfileType"]] for profile in read(b, "properties.workloadProfiles")
        ],
    },
    "Microsoft.App/containerApps": {
        "callers": lambda b: each("properties.configuration.ingress.ipSecurityRestrictions", "ipAddressRange")(b),
        "container": lambda b: [
            read(b, f"properties.template.containers.0.{what}")
            for what in ("name", "image", "resources.cpu", "resources.memory")
        ],
        "mounts": lambda b: {
            mount["mountPath"]: next(
                volume["storageType"]
                for volume in read(b, "properties.template.volumes")
                if volume["name"] == mount["volumeName"]
            )
            for mount in read(b, "properties.template.containers.0.volumeMounts")
        },
        "probes": lambda b: {
            probe["type"].lower(): [
                read(probe, what)
                for what in ("httpGet.path", "httpGet.port", "periodSeconds", "timeoutSeconds", "failureThreshold")
            ]
            for probe in read(b, "properties.template.containers.0.probes")
        },
        "registries": lambda b: {
            one["server"]: one["identity"] for one in read(b, "properties.configuration.registries")
        },
        "scale rules": lambda b: [
            read(rule, "http.metadata.concurrentRequests")
            or [read(rule, "custom.type"), read(rule, "custom.metadata.value")]
            for rule in read(b, "properties.template.scale.rules")
        ],
        "secrets": lambda b: {
            one["name"]: [one["keyVaultUrl"], one["identity"]] for one in read(b, "properties.configuration.secrets")
        },
        "settings": lambda b: {
            one["name"]: one.get("value") or f"secret {one['secretRef']}"
            for one in read(b, "properties.template.containers.0.env")
        },
    },
    "Microsoft.Consumption/budgets": {
        "properties.notifications": lambda b: sorted(
            [n["thresholdType"], n["threshold"], n["operator"], n.get("contactGroups") or []]
            for n in read(b, "properties.notifications").values()
        ),
    },
    "Microsoft.Network/virtualNetworks/subnets": {
        "properties.delegations": lambda b: [
            read(d, "properties.serviceName") for d in read(b, "properties.delegations") or []
        ],
    },
    "Microsoft.Network/networkSecurityGroups/securityRules": {
        "properties.destinationPorts": lambda b: sorted(
            read(b, "properties.destinationPortRanges") or [read(b, "properties.destinationPortRange")]
        ),
    },
    "Microsoft.Network/privateEndpoints": {
        "properties.target": "properties.privateLinkServiceConnections.0.properties.privateLinkServiceId",
        "properties.groupIds": "properties.privateLinkServiceConnections.0.properties.groupIds",
    },
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": {
        "properties.zones": lambda b: sorted(
            str(read(c, "properties.privateDnsZoneId")) for c in read(b, "properties.privateDnsZoneConfigs")
        ),
    },
    "Microsoft.Storage/storageAccounts": {
        "properties.networkAcls.ipRules": lambda b: sorted(
            str(rule["value"]) for rule in read(b, "properties.networkAcls.ipRules") or []
        ),
    },
    "Microsoft.Storage/storageAccounts/blobServices": {
        "properties.isVersioningEnabled": lambda b: bool(read(b, "properties.isVersioningEnabled")),
    },
    "Microsoft.EventHub/namespaces/eventhubs": {
        "properties.captureDescription.enabled": lambda b: bool(read(b, "properties.captureDescription.enabled")),
    },
    "Microsoft.ApiManagement/service/namedValues": {
        "properties.secret": lambda b: bool(read(b, "properties.secret")),
    },
    "Microsoft.ApiManagement/service/apis/diagnostics": {
        "bytes": lambda b: {f"{a} {c}": read(b, f"properties.{a}.{c}.body.bytes") for a, c in _SIDES},
    },
    "Microsoft.Web/sites": {
        "app settings": lambda b: {
            setting["name"]: setting["value"] for setting in read(b, "properties.siteConfig.appSettings")
        },
    },
    "Microsoft.ApiManagement/service/policyFragments": {"policy": lambda b: spoken(b["properties"]["value"])},
    "Microsoft.ApiManagement/service/apis/policies": {"policy": lambda b: spoken(b["properties"]["value"])},
    "Microsoft.ApiManagement/service/backends": {
        "properties.circuitBreaker.rules": lambda b: len(read(b, "properties.circuitBreaker.rules") or []),
    },
    "Microsoft.ApiManagement/service/loggers": {
        "properties.credentials": lambda b: {
            name: read(b, f"properties.credentials.{name}")
            for name in ("name", "endpointAddress", "connectionString", "instrumentationKey", "identityClientId")
        },
    },
    "Microsoft.Insights/metricAlerts": {
        "metric": "properties.criteria.allOf.0.metricName",
        "threshold": "properties.criteria.allOf.0.threshold",
    },
    "Microsoft.Insights/scheduledQueryRules": {
        "query": "properties.criteria.allOf.0.query",
        "measure": "properties.criteria.allOf.0.metricMeasureColumn",
        "threshold": "properties.criteria.allOf.0.threshold",
    },
    "Microsoft.Insights/diagnosticSettings": {
        "properties.logs": lambda b: sorted(str(log.get("category")) for log in read(b, "properties.logs") or []),
    },
    "Microsoft.Storage/storageAccounts/managementPolicies": {
        "rules": lambda b: sorted(str(rule["name"]) for rule in read(b, "properties.policy.rules")),
    },
}

# Properties of types that azurerm does not make here.
AZAPI_ONLY = {
    "Microsoft.Web/sites": (
        "kind",
        "identity.type",
        "identity.userAssignedIdentities",
        "properties.httpsOnly",
        "properties.serverFarmId",
        "properties.virtualNetworkSubnetId",
        "properties.publicNetworkAccess",
        "properties.keyVaultReferenceIdentity",
        "properties.functionAppConfig",
        "app settings",
        "properties.siteConfig.minTlsVersion",
        "properties.siteConfig.scmMinTlsVersion",
        "properties.siteConfig.ftpsState",
        "properties.siteConfig.remoteDebuggingEnabled",
        "properties.siteConfig.ipSecurityRestrictionsDefaultAction",
        "properties.siteConfig.ipSecurityRestrictions",
        "properties.siteConfig.scmIpSecurityRestrictionsDefaultAction",
        "properties.siteConfig.scmIpSecurityRestrictions",
        "properties.siteConfig.scmIpSecurityRestrictionsUseMain",
    ),
    "Microsoft.Web/sites/config": ("properties",),
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": ("properties.allow",),
    "Microsoft.EventHub/namespaces/authorizationRules": ("properties.rights",),
    "Microsoft.EventHub/namespaces/networkRuleSets": (
        "properties.defaultAction",
        "properties.publicNetworkAccess",
        "properties.trustedServiceAccessEnabled",
    ),
    "Microsoft.KeyVault/vaults/secrets": (),
    "Microsoft.Storage/storageAccounts/tableServices/tables": (),
    "Microsoft.ApiManagement/service/backends": ("properties.type", "properties.pool.services"),
    "Microsoft.ApiManagement/service/apis/diagnostics": ("properties.largeLanguageModel",),
    "Microsoft.ApiManagement/service/subscriptions": ("properties.scope", "properties.allowTracing"),
    "Microsoft.CostManagement/exports": (
        "identity.type",
        "properties.format",
        "properties.definition",
        "properties.deliveryInfo.destination",
        "properties.schedule.recurrence",
    ),
}

# Parts of another resource in Azure: the property of it that they set, and the argument that names it.
PARTS_OF = {
    "azurerm_subnet_network_security_group_association": (
        "subnet_id",
        "properties.networkSecurityGroup.id",
        "network_security_group_id",
    ),
}

# Nothing in Azure.
LOCAL = {"terraform_data"}

# What comes with its parent: Bicep writes it down to hang something in it, Terraform has no need to.
IMPLIED = {"Microsoft.Storage/storageAccounts/tableServices"}

# What azurerm calls that which Azure gives, in Azure's own words.
ATTRIBUTES = {
    "client_id": "properties.clientId",
    "principal_id": "properties.principalId",
    "identity.principal_id": "identity.principalId",
    "connection_string": "properties.ConnectionString",
    "hostname": "properties.hostName",
    "login_server": "properties.loginServer",
    "endpoint": "properties.endpoint",
    "gateway_url": "properties.gatewayUrl",
    "vault_uri": "properties.vaultUri",
    "primary_blob_endpoint": "properties.primaryEndpoints.blob",
    "primary_table_endpoint": "properties.primaryEndpoints.table",
}
