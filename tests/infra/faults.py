"""Single faults of the kinds that people make, each with the text that it changes and what must say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    what: str
    file: str  # below infra/terraform, infra/bicep or the root
    old: str  # must be there exactly once
    new: str
    says: str  # a part of what some check says about it
    renamed: str = ""  # instead of a change of text: what the file is called now

    def apply(self, root: Path) -> None:
        """Make the fault. Raises AssertionError where its text is not there (any more)."""
        file = root / self.file
        if self.renamed:
            file.rename(file.with_name(self.renamed))
            return
        text = file.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.what}: {self.file} has {text.count(self.old)} times {self.old!r}"
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")

    def undo(self, root: Path, source: Path) -> None:
        """Put back what is in the checkout."""
        if self.renamed:
            (root / self.file).with_name(self.renamed).unlink()
        (root / self.file).write_bytes((source / self.file).read_bytes())


_T, _B = "infra/terraform", "infra/bicep"
_LLM = 'largeLanguageModel = { logs = "enabled" }'

TERRAFORM = (
    # Typing
    Fault(
        "an argument that does not exist",
        f"{_T}/main.data.tf",
        "rbac_authorization_enabled    = true",
        "rbac_authorisation_enabled    = true",
        "Unsupported argument",
    ),
    Fault(
        "a value that is none",
        f"{_T}/main.data.tf",
        '"NoEviction"        #',
        '"NoEvictions"       #',
        "NoEvictions",
    ),
    Fault(
        "a property that azapi would send and Azure ignore",
        f"{_T}/main.functions.tf",
        "httpsOnly                 = true",
        "httpOnly                  = true",
        "httpsOnly",
    ),
    # Roles
    Fault(
        "a role dropped",
        f"{_T}/main.access.tf",
        "    functions-usage-receive ",
        "    # functions-usage-receive ",
        "Azure Event Hubs Data Receiver' is named and not declared",
    ),
    Fault(
        "a role on too much",
        f"{_T}/main.access.tf",
        'azurerm_storage_container.this["statements"].id',
        "azurerm_storage_account.ledger.id",
        "is declared and nobody names it",
    ),
    Fault(
        "a role for somebody else",
        f"{_T}/main.access.tf",
        "principal = azurerm_eventhub_namespace.usage.identity[0].principal_id",
        "principal = local.functions_principal",
        "identity.principalId» | Storage Blob Data Contributor' is named and not declared",
    ),
    Fault(
        "Redis for another identity",
        f"{_T}/main.data.tf",
        "azurerm_user_assigned_identity.functions.principal_id",
        "azurerm_user_assigned_identity.gateway[0].principal_id",
        "Redis user",
    ),
    Fault(
        "all secrets for the built-in gateway",
        f"{_T}/main.access.tf",
        '"${azurerm_key_vault.this.id}/secrets/${secret}"',
        "azurerm_key_vault.this.id",
        "is declared and nobody names it",
    ),
    Fault(
        "the built-in gateway without its counters",
        f"{_T}/main.builtin.tf",
        "object_id        = azurerm_user_assigned_identity.builtin[0].principal_id",
        "object_id        = azurerm_user_assigned_identity.gateway[0].principal_id",
        "Redis user",
    ),
    # Keys and the public
    Fault(
        "a registry with a password",
        f"{_T}/main.builtin.tf",
        "admin_enabled          = false",
        "admin_enabled          = true",
        "properties.adminUserEnabled is True, expected False",
    ),
    Fault(
        "shared keys on",
        f"{_T}/main.data.tf",
        "public_network_access_enabled    = local.ledger_open",
        "public_network_access_enabled    = true",
        "properties.publicNetworkAccess is 'Enabled'",
    ),
    Fault(
        "local authentication of a model account",
        f"{_T}/main.ai.tf",
        "local_auth_enabled            = false",
        "local_auth_enabled            = true",
        "properties.disableLocalAuth is False, expected True",
    ),
    Fault(
        "capture with a key",
        f"{_T}/main.data.tf",
        'storage_authentication_type = "SystemAssigned"',
        'storage_authentication_type = "StorageSAS"',
        "captures by StorageSAS",
    ),
    Fault(
        "a connection string with a key in an app setting",
        f"{_T}/main.functions.tf",
        '"${azurerm_eventhub_namespace.usage.name}.servicebus.windows.net"',
        "azurerm_eventhub_namespace.usage.default_primary_connection_string",
        "default_primary_connection_string",
    ),
    Fault(
        "a key in an output",
        f"{_T}/outputs.tf",
        "value       = local.functions_url",
        "value       = nonsensitive(azurerm_storage_account.ledger.primary_access_key)",
        "output FUNCTIONS_URL holds «azurerm_storage_account.ledger#primary_access_key»",
    ),
    Fault(
        "the whole answer of Azure in the state",
        f"{_T}/main.api.tf",
        f"      {_LLM}\n    }}\n  }}\n  response_export_values = []",
        f"      {_LLM}\n    }}\n  }}",
        "may export anything",
    ),
    # Network
    Fault(
        "another DNS zone",
        f"{_T}/main.network.tf",
        '"privatelink.redis.azure.net"',
        '"privatelink.redis.cache.windows.net"',
        "zone 'privatelink.redis.cache.windows.net' is declared and nobody names it",
    ),
    Fault(
        "another subresource",
        f"{_T}/main.network.tf",
        'subresource = "redisEnterprise"',
        'subresource = "redisCache"',
        "has no subresource redisCache",
    ),
    Fault(
        "a private endpoint forgotten",
        f"{_T}/main.network.tf",
        "      ledger-table =",
        "      # ledger-table =",
        "has no private endpoint for table",
    ),
    Fault(
        "functions in the gateway's subnet",
        f"{_T}/main.functions.tf",
        "local.subnet_ids.functions",
        "local.subnet_ids.gateway",
        "the functions stand in",
    ),
    Fault(
        "a delegation to another service",
        f"{_T}/main.network.tf",
        'functions = { index = 1, delegation = { name = "Microsoft.App/environments"',
        'functions = { index = 1, delegation = { name = "Microsoft.Web/serverFarms"',
        "is delegated to ['Microsoft.Web/serverFarms']",
    ),
    Fault(
        "one security group for all subnets",
        f"{_T}/main.network.tf",
        "azurerm_network_security_group.this[each.key].id",
        'azurerm_network_security_group.this["gateway"].id',
        "snet-endpoints has the security group",
    ),
    Fault(
        "the containers among the functions",
        f"{_T}/main.builtin.tf",
        "local.subnet_ids.containers",
        "local.subnet_ids.functions",
        "the containers stand in",
    ),
    # The built-in gateway
    Fault(
        "killed before it has stopped",
        "infra/names.yaml",
        "termination_seconds: 570",
        "termination_seconds: 500",
        "needs 555 s to stop",
    ),
    Fault(
        "a setting that it does not read",
        f"{_T}/main.builtin.tf",
        "      USAGE_HUB ",
        "      USAGE_HUBS",
        "setting of the built-in gateway 'USAGE_HUB' is named and not declared",
    ),
    # Names
    Fault(
        "a consumer group renamed",
        "infra/names.yaml",
        "consumer_group: tollkeeper",
        "consumer_group: ingest",
        "usage/ingest' is named and not declared",
    ),
    Fault(
        "a table forgotten",
        "infra/names.yaml",
        "periods, state, streams, names]",
        "periods, state, names]",
        "table 'tollkeeperstreams' is named and not declared",
    ),
    Fault(
        "a hub's name mistyped in an app setting",
        f"{_T}/main.functions.tf",
        "= azurerm_eventhub.usage.name",
        '= "usages"',
        "usages' is named and not declared",
    ),
    Fault(
        "the port of the older Redis",
        f"{_T}/main.functions.tf",
        ":10000",
        ":6380",
        "expected rediss://<host>:10000",
    ),
    Fault(
        "a fragment's file renamed",
        "apim-policies/fragments/tk-refuse.xml",
        "",
        "",
        "fragment 'tk-refuse' is named and not declared",
        renamed="tk-refusal.xml",
    ),
    Fault(
        "a named value renamed",
        "apim-policies/named-values.yaml",
        "- name: tk-rate-calls",
        "- name: tk-rate-limit",
        "named value 'tk-rate-calls' is named and not declared",
    ),
    Fault(
        "another logger than the policies name",
        f"{_T}/main.gateway.tf",
        'local.named_values["tk-usage-logger"]',
        '"hub-logger"',
        "logger 'hub-logger' is declared and nobody names it",
    ),
    Fault(
        "models' addresses without their path",
        f"{_T}/main.gateway.tf",
        '"${each.value.endpoint}/openai"',
        "each.value.endpoint",
        "is no https address up to /openai",
    ),
    # Settings
    Fault(
        "a Redis that clients must know the shards of",
        f"{_T}/main.data.tf",
        '"EnterpriseCluster"',
        '"OSSCluster"       ',
        "clusteringPolicy is 'OSSCluster'",
    ),
    Fault(
        "prompts in the log",
        f"{_T}/main.api.tf",
        _LLM,
        'largeLanguageModel = { logs = "enabled", requests = { messages = "all", maxSizeInBytes = 8192 } }',
        "logs messages",
    ),
    Fault(
        "no log of tokens",
        f"{_T}/main.gateway.tf",
        '    category = "GatewayLlmLogs"',
        '    category = "GatewayMCPLogs"',
        "diagnostics write",
    ),
    Fault(
        "tokens for somebody else accepted",
        f"{_T}/main.functions.tf",
        "distinct([local.functions_audience, var.entra_client_id])",
        '["https://management.azure.com"]',
        "is none of the audiences",
    ),
    Fault(
        "everything open without a token",
        f"{_T}/main.functions.tf",
        '"/api/v1/dashboard"',
        '"/api/v1"',
        "excluded path /api/v1 is too wide",
    ),
)

# Seen by `terraform graph` and by nothing else.
ORDER = (
    Fault(
        "fragments before the names in them",
        f"{_T}/main.api.tf",
        "  depends_on = [\n    azapi_resource.model_pool,\n    azurerm_api_management_logger.usage,\n"
        "    azurerm_api_management_named_value.this,\n  ]\n",
        "",
        "does not wait for «Microsoft.ApiManagement/service/namedValues",
    ),
    Fault(
        "a model's endpoint while its account takes deployments",
        f"{_T}/main.network.tf",
        "    azurerm_cognitive_deployment.this,\n",
        "",
        "does not wait for «Microsoft.CognitiveServices/accounts/deployments",
    ),
    Fault(
        "the function app before there is a way to its vault",
        f"{_T}/main.functions.tf",
        "    azurerm_private_endpoint.this,\n",
        "",
        "does not wait for «Microsoft.Network/privateEndpoints",
    ),
    Fault(
        "the built-in gateway before there is a way to its secrets",
        f"{_T}/main.builtin.tf",
        "    azurerm_private_endpoint.this,\n",
        "",
        "does not wait for «Microsoft.Network/privateEndpoints",
    ),
    Fault(
        "the policy before its fragments",
        f"{_T}/main.api.tf",
        "    azurerm_api_management_policy_fragment.this,\n",
        "",
        "does not wait for «Microsoft.ApiManagement/service/policyFragments",
    ),
    Fault(
        "capture before its role",
        f"{_T}/main.data.tf",
        "  depends_on = [azurerm_role_assignment.this] # capture",
        "  # capture",
        "does not wait for «Microsoft.Authorization/roleAssignments",
    ),
    Fault(
        "log records before the door is open",
        f"{_T}/main.gateway.tf",
        "  depends_on = [azapi_update_resource.llm_logs_network] #",
        "  #",
        "does not wait for «Microsoft.EventHub/namespaces/networkRuleSets",
    ),
)

BICEP = (
    Fault(
        "a property that does not exist",
        f"{_B}/modules/data.bicep",
        "      partitionCount: shared.hubs.usage.partitions",
        "      partitions: shared.hubs.usage.partitions",
        "properties.partitionCount is 16 in Terraform, None in Bicep",
    ),
    Fault(
        "a name that is declared nowhere",
        f"{_B}/modules/data.bicep",
        "    minimumTlsVersion: '1.2'\n    publicNetworkAccess: publicNetworkAccess\n  }\n\n  resource database",
        "    minimumTlsVersion: '1.2'\n    publicNetworkAccess: publicAccess\n  }\n\n  resource database",
        "publicAccess is not declared",
    ),
    Fault(
        "shared keys on",
        f"{_B}/modules/data.bicep",
        "    disableLocalAuth: true",
        "    disableLocalAuth: false",
        "properties.disableLocalAuth is False, expected True",
    ),
    Fault(
        "a Redis that forgets",
        f"{_B}/modules/data.bicep",
        "'NoEviction'",
        "'AllKeysLRU'",
        "evictionPolicy is 'AllKeysLRU'",
    ),
    Fault(
        "a role dropped",
        f"{_B}/modules/access.bicep",
        "  { container: 'statements', role: 'Storage Blob Data Contributor' }\n",
        "",
        "is named and not declared",
    ),
    Fault(
        "another role",
        f"{_B}/modules/access.bicep",
        "['Storage Blob Data Owner',",
        "['Storage Blob Data Reader',",
        "Storage Blob Data Owner' is named and not declared",
    ),
    Fault(
        "an app setting forgotten",
        f"{_B}/modules/functions.bicep",
        "  USAGE_CONSUMER_GROUP: shared.consumer_group\n",
        "",
        "app setting 'USAGE_CONSUMER_GROUP' is named and not declared",
    ),
    Fault(
        "a fragment forgotten",
        f"{_B}/modules/api.bicep",
        "  'tk-route': loadTextContent('../../../apim-policies/fragments/tk-route.xml')\n",
        "",
        "fragment 'tk-route' is named and not declared",
    ),
    Fault(
        "one fragment's text under another's name",
        f"{_B}/modules/api.bicep",
        "'tk-release': loadTextContent('../../../apim-policies/fragments/tk-release.xml')",
        "'tk-release': loadTextContent('../../../apim-policies/fragments/tk-refuse.xml')",
        "tk-release: policy is",
    ),
    Fault(
        "fragments before their named values",
        f"{_B}/modules/api.bicep",
        "  dependsOn: [pool, usageLogger, values]\n",
        "  dependsOn: [pool, usageLogger]\n",
        "does not wait for «Microsoft.ApiManagement/service/namedValues",
    ),
    Fault(
        "endpoints before what they lead to",
        f"{_B}/main.bicep",
        "  dependsOn: [ownNetwork, functionApp]",
        "  dependsOn: [ownNetwork]",
        "and does not wait for it",
    ),
    Fault(
        "the function app before there is a way to its vault",
        f"{_B}/main.bicep",
        "  dependsOn: [ownNetwork, access, privateEndpoints]",
        "  dependsOn: [ownNetwork, access]",
        "does not wait for «Microsoft.Network/privateEndpoints",
    ),
    Fault(
        "passwords for the deployment site",
        f"{_B}/modules/functions.bicep",
        "properties: { allow: false }",
        "properties: { allow: true }",
        "properties.allow is True, expected False",
    ),
    Fault(
        "a probe that restarts it at every hiccup",
        f"{_B}/modules/builtin.bicep",
        "type: 'Liveness', httpGet: probe, periodSeconds: 15",
        "type: 'Liveness', httpGet: probe, periodSeconds: 1",
        "probes is",
    ),
    Fault(
        "all secrets for the built-in gateway",
        f"{_B}/modules/builtin.bicep",
        "  scope: secrets[i]\n",
        "  scope: vault\n",
        "is declared and nobody names it",
    ),
    Fault(
        "prompts in the log",
        f"{_B}/modules/api.bicep",
        "largeLanguageModel: { logs: 'enabled' }",
        "largeLanguageModel: { logs: 'enabled', responses: { messages: 'all' } }",
        "logs messages",
    ),
)
