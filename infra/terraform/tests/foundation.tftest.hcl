# The ground: nothing takes a key, nothing private is public, names and tags are what they should be, nonsense is refused.

mock_provider "azurerm" {
  source          = "./tests/mocks"
  override_during = plan
}
mock_provider "azapi" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  subscription_id     = "00000000-0000-4000-8000-000000000000"
  environment         = "test"
  location            = "swedencentral"
  entra_client_id     = "00000000-0000-4000-8000-000000000011"
  alert_emails        = ["platform@contoso.com"]
  monthly_cost_budget = 1000
  functions           = { site_update_strategy = "Recreate" } # which leaves the site's body to be checked against its type

  config_path   = "./tests/config"
  config_digest = "c34b2339dfdf65840ade7e42441e2abd0b75acba4cbbdb92f4d4dce280c1abcf"
  model_regions = {
    swc = { location = "swedencentral", deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
  }
}

run "keyless" {
  command = plan

  assert {
    condition = alltrue([
      for account in [azurerm_storage_account.host, azurerm_storage_account.ledger] :
      !account.shared_access_key_enabled && account.default_to_oauth_authentication && !account.local_user_enabled && !account.allow_nested_items_to_be_public
    ])
    error_message = "Storage takes tokens only."
  }
  assert {
    condition     = !azurerm_eventhub_namespace.usage.local_authentication_enabled
    error_message = "The usage hub takes tokens only."
  }
  assert {
    condition     = !one(azurerm_managed_redis.this.default_database).access_keys_authentication_enabled
    error_message = "Redis takes tokens only."
  }
  assert {
    condition     = azurerm_key_vault.this.rbac_authorization_enabled && azurerm_key_vault.this.purge_protection_enabled
    error_message = "The vault goes by roles, and a deleted key can be brought back."
  }
  assert {
    condition     = alltrue([for account in values(azurerm_cognitive_account.this) : !account.local_auth_enabled])
    error_message = "Models take tokens only."
  }
  assert {
    condition     = keys(azapi_update_resource.functions_publishing) == ["ftp", "scm"] && alltrue([for policy in values(azapi_update_resource.functions_publishing) : !policy.body.properties.allow])
    error_message = "The function app has no publishing passwords."
  }
  assert {
    condition     = one(one(azurerm_eventhub.usage.capture_description).destination).storage_authentication_type == "SystemAssigned"
    error_message = "Capture writes by identity."
  }
  assert {
    condition     = !anytrue([for name, value in local.app_settings : can(regex("(?i)(AccountKey|SharedAccessKey|Password|sig)=", value)) || name == "AzureWebJobsStorage"])
    error_message = "No setting of the function app holds a key."
  }
  assert {
    condition     = startswith(local.app_settings.RESERVATION_KEYS, "@Microsoft.KeyVault(SecretUri=https://")
    error_message = "The reservation key is read from the vault."
  }
  assert {
    condition = alltrue([
      for connection in ["AzureWebJobsStorage", "EventHubs", "LlmLogs"] :
      local.app_settings["${connection}__credential"] == "managedidentity" && local.app_settings["${connection}__clientId"] == azurerm_user_assigned_identity.functions.client_id
    ])
    error_message = "The host connects as the functions' identity."
  }
  assert {
    condition     = azapi_resource.functions.body.properties.functionAppConfig.deployment.storage.authentication.type == "UserAssignedIdentity" && azapi_resource.functions.body.properties.keyVaultReferenceIdentity == azurerm_user_assigned_identity.functions.id
    error_message = "Package and secrets are read as the functions' identity; without its name Azure tries a system identity, which is not there."
  }
  assert {
    condition     = azapi_resource.llm_logs_namespace.body.properties.disableLocalAuth == false
    error_message = "Diagnostic settings write by an access rule; with local authentication off the LLM log would stop."
  }

  # Secure transport
  assert {
    condition     = alltrue([for account in [azurerm_storage_account.host, azurerm_storage_account.ledger] : account.https_traffic_only_enabled && account.min_tls_version == "TLS1_2"])
    error_message = "Storage speaks TLS 1.2 at least, and nothing without TLS."
  }
  assert {
    condition     = azurerm_eventhub_namespace.usage.minimum_tls_version == "1.2" && azapi_resource.llm_logs_namespace.body.properties.minimumTlsVersion == "1.2"
    error_message = "The hubs speak TLS 1.2 at least."
  }
  assert {
    condition     = azapi_resource.functions.body.properties.httpsOnly && azapi_resource.functions.body.properties.siteConfig.minTlsVersion == "1.2" && azapi_resource.functions.body.properties.siteConfig.scmMinTlsVersion == "1.2" && azapi_resource.functions.body.properties.siteConfig.ftpsState == "Disabled"
    error_message = "The function app speaks TLS 1.2 at least, and no FTP."
  }
  assert {
    condition     = one(azurerm_managed_redis.this.default_database).client_protocol == "Encrypted" && startswith(local.app_settings.REDIS_URL, "rediss://")
    error_message = "Redis is spoken to over TLS."
  }

  # Sign-in
  assert {
    condition     = azapi_update_resource.functions_auth.body.properties.platform.enabled && azapi_update_resource.functions_auth.body.properties.globalValidation.requireAuthentication && azapi_update_resource.functions_auth.body.properties.globalValidation.unauthenticatedClientAction == "Return401"
    error_message = "A call without a token is answered 401 by the platform."
  }
  assert {
    condition     = azapi_update_resource.functions_auth.body.properties.globalValidation.excludedPaths == ["/api/v1/dashboard"]
    error_message = "Only the page of the dashboard, which holds no figures, is open."
  }
  assert {
    condition     = azapi_update_resource.functions_auth.body.properties.identityProviders.azureActiveDirectory.validation.allowedAudiences == tolist(["api://00000000-0000-4000-8000-000000000011", "00000000-0000-4000-8000-000000000011"])
    error_message = "Tokens for other apps are refused."
  }
}

run "private" {
  command = plan

  assert {
    condition     = !azurerm_storage_account.host.public_network_access_enabled && !azurerm_storage_account.ledger.public_network_access_enabled && !azurerm_eventhub_namespace.usage.public_network_access_enabled && !azurerm_key_vault.this.public_network_access_enabled && azurerm_managed_redis.this.public_network_access == "Disabled"
    error_message = "Nothing that holds data has a public endpoint."
  }
  assert {
    condition     = alltrue([for account in [azurerm_storage_account.host, azurerm_storage_account.ledger] : one(account.network_rules).default_action == "Deny" && one(account.network_rules).bypass == toset(["AzureServices"])])
    error_message = "Storage lets in trusted services, for capture and the cost export, and nobody else."
  }
  assert {
    condition     = azapi_resource.llm_logs_namespace.body.properties.publicNetworkAccess == "Disabled" && azapi_update_resource.llm_logs_network.body.properties == { defaultAction = "Deny", publicNetworkAccess = "Disabled", trustedServiceAccessEnabled = true }
    error_message = "The LLM log's namespace lets in Azure Monitor, and nobody else."
  }
  assert {
    condition     = azapi_resource.functions.body.properties.publicNetworkAccess == "Disabled" && azapi_resource.functions.body.properties.siteConfig.scmIpSecurityRestrictionsDefaultAction == "Deny" && azapi_resource.functions.body.properties.siteConfig.scmIpSecurityRestrictions == []
    error_message = "Function app and deployment site are reached from the network only."
  }
  assert {
    condition     = alltrue([for account in values(azurerm_cognitive_account.this) : !account.public_network_access_enabled])
    error_message = "Models have no public endpoint."
  }
  assert {
    condition     = keys(azurerm_private_endpoint.this) == ["host-blob", "host-table", "ledger-blob", "ledger-table", "llm-logs", "models-swc", "redis", "usage", "vault"] && length(azurerm_private_endpoint.functions) == 1
    error_message = "Everything without a public endpoint has a private one: ${jsonencode(keys(azurerm_private_endpoint.this))}"
  }
  assert {
    condition = { for key, endpoint in local.private_endpoints : key => join(" ", concat([endpoint.subresource], endpoint.zones)) } == {
      host-blob    = "blob privatelink.blob.core.windows.net"
      host-table   = "table privatelink.table.core.windows.net"
      ledger-blob  = "blob privatelink.blob.core.windows.net"
      ledger-table = "table privatelink.table.core.windows.net"
      llm-logs     = "namespace privatelink.servicebus.windows.net"
      models-swc   = "account privatelink.openai.azure.com privatelink.cognitiveservices.azure.com privatelink.services.ai.azure.com"
      redis        = "redisEnterprise privatelink.redis.azure.net"
      usage        = "namespace privatelink.servicebus.windows.net"
      vault        = "vault privatelink.vaultcore.azure.net"
    }
    error_message = "Each name is looked up in the zone of its service."
  }
  assert {
    condition     = toset(keys(azurerm_private_dns_zone_virtual_network_link.this)) == local.zones && length(local.zones) == 9
    error_message = "Each zone is created once and linked to the network."
  }
  assert {
    condition     = { for key, subnet in azurerm_subnet.this : key => try(one(one(subnet.delegation).service_delegation).name, "") } == { endpoints = "", functions = "Microsoft.App/environments", gateway = "Microsoft.Web/serverFarms" }
    error_message = "Each subnet is delegated to what moves in."
  }
  assert {
    condition = { for key, subnet in azurerm_subnet.this : key => one(one(one(subnet.delegation).service_delegation).actions) if length(subnet.delegation) > 0 } == {
      functions = "Microsoft.Network/virtualNetworks/subnets/join/action"
      gateway   = "Microsoft.Network/virtualNetworks/subnets/action"
    }
    error_message = "Azure answers with these actions whatever it is sent, so others are a change in every plan."
  }
  assert {
    condition     = length(distinct([for subnet in azurerm_subnet.this : one(subnet.address_prefixes)])) == 3 && alltrue([for subnet in azurerm_subnet.this : endswith(one(subnet.address_prefixes), "/26")])
    error_message = "A /24 is cut into subnets of their own."
  }
  assert {
    condition     = keys(azurerm_subnet_network_security_group_association.this) == ["endpoints", "functions", "gateway"] && azurerm_network_security_rule.endpoints_deny[0].access == "Deny"
    error_message = "Each subnet has its security group, and the endpoints' ends in a refusal."
  }
  assert {
    condition     = one(azurerm_network_security_rule.endpoints_allow["redis"].destination_port_ranges) == "10000" && azurerm_network_security_rule.endpoints_allow["redis"].source_address_prefix == one(azurerm_subnet.this["functions"].address_prefixes)
    error_message = "Only the functions reach Redis."
  }
}

run "names_stores_hubs_and_roles" {
  command = plan

  # Other environments have other names
  assert {
    condition     = azurerm_key_vault.this.name != "kv-tollkeeper-${substr(sha1("00000000-0000-4000-8000-000000000000/tollkeeper/prod2345"), 0, 6)}"
    error_message = "Two environments of one subscription share no vault name."
  }

  # The ledger
  assert {
    condition     = toset(keys(azapi_resource.table)) == toset(local.shared.tables) && alltrue([for table in azapi_resource.table : startswith(table.name, "tollkeeper")])
    error_message = "Every table of the ledger exists."
  }
  assert {
    condition     = toset(keys(azurerm_storage_container.this)) == toset(flatten(values(local.shared.containers)))
    error_message = "Every container exists."
  }
  assert {
    condition     = one(azurerm_storage_account.ledger.blob_properties).versioning_enabled && one(one(azurerm_storage_account.ledger.blob_properties).delete_retention_policy).days == 30 && one(one(azurerm_storage_account.ledger.blob_properties).container_delete_retention_policy).days == 30
    error_message = "Statements and configuration can be brought back."
  }
  assert {
    condition     = azurerm_storage_account.ledger.account_replication_type == "ZRS" && azurerm_storage_account.host.account_replication_type == "ZRS"
    error_message = "Storage stands in three zones."
  }
  assert {
    condition     = one(one(azurerm_storage_management_policy.ledger.rule[0].actions).base_blob).delete_after_days_since_creation_greater_than == 90 && one(azurerm_storage_management_policy.ledger.rule[0].filters).prefix_match == toset(["usage-capture/"])
    error_message = "Captured events are deleted in time, and nothing else is."
  }

  # Hubs, and Redis
  assert {
    condition     = azurerm_eventhub.usage.name == "usage" && azurerm_eventhub.llm_logs.name == "llm-logs" && azurerm_eventhub.usage.partition_count == 16
    error_message = "The hubs that code and policies name exist."
  }
  assert {
    condition     = keys(azurerm_eventhub_consumer_group.this) == ["llm_logs-tollkeeper", "llm_logs-verify", "usage-tollkeeper", "usage-verify"]
    error_message = "Functions and make verify read beside each other."
  }
  assert {
    condition     = one(azurerm_managed_redis.this.default_database).eviction_policy == "NoEviction" && one(azurerm_managed_redis.this.default_database).clustering_policy == "EnterpriseCluster"
    error_message = "Redis evicts no counter, and looks like one server."
  }
  assert {
    condition     = azapi_resource.llm_logs_namespace.location == "swedencentral" && azapi_resource.llm_logs_send_rule[0].body.properties.rights == ["Listen", "Manage", "Send"]
    error_message = "The LLM log's namespace is in the gateway's region, with the rights that Azure Monitor asks for."
  }

  # Access
  assert {
    condition     = alltrue([for role in distinct([for grant in values(local.grants) : grant.role]) : contains(keys(local.shared.azure_roles), role)])
    error_message = "Every role is in names.yaml, from which Bicep takes its id."
  }
  assert {
    condition     = alltrue([for grant in values(local.grants) : !can(regex("Owner$|Contributor$", grant.role)) || startswith(grant.role, "Storage ")])
    error_message = "Nobody gets a role over resources; these are roles for data."
  }
  assert {
    condition = { for key, assignment in azurerm_role_assignment.this : key => assignment.role_definition_name } == {
      capture-write              = "Storage Blob Data Contributor"
      functions-config           = "Storage Blob Data Contributor"
      functions-exports          = "Storage Blob Data Contributor"
      functions-invoice          = "Storage Blob Data Reader"
      functions-dead-letters     = "Storage Blob Data Contributor"
      functions-host-blobs       = "Storage Blob Data Owner"
      functions-host-tables      = "Storage Table Data Contributor"
      functions-ledger           = "Storage Table Data Contributor"
      functions-llm-logs-receive = "Azure Event Hubs Data Receiver"
      functions-llm-logs-send    = "Azure Event Hubs Data Sender"
      functions-metrics          = "Monitoring Metrics Publisher"
      functions-secrets          = "Key Vault Secrets User"
      functions-statements       = "Storage Blob Data Contributor"
      functions-usage-receive    = "Azure Event Hubs Data Receiver"
      functions-usage-send       = "Azure Event Hubs Data Sender"
      gateway-metrics            = "Monitoring Metrics Publisher"
      gateway-models-swc         = "Cognitive Services OpenAI User"
      gateway-usage-send         = "Azure Event Hubs Data Sender"

      # Whoever applies may publish the configuration.
      config-publisher-00000000-0000-4000-8000-00000000000d = "Storage Blob Data Contributor"
    }
    error_message = "Each identity has the roles that its work takes, and no other."
  }
}

run "public_quick_start" {
  command = plan
  variables {
    private_network = false
  }

  assert {
    condition     = length(azurerm_container_registry.this) + length(azurerm_container_app_environment.this) + length(azurerm_container_app.builtin) + length(azurerm_user_assigned_identity.builtin) == 0
    error_message = "The built-in gateway is there only when it is asked for."
  }
  assert {
    condition     = length(azurerm_virtual_network.this) + length(azurerm_subnet.this) + length(azurerm_network_security_group.this) + length(azurerm_private_dns_zone.this) + length(azurerm_private_endpoint.this) + length(azurerm_private_endpoint.functions) == 0
    error_message = "No part of a network is paid for."
  }
  assert {
    condition     = azurerm_storage_account.ledger.public_network_access_enabled && azurerm_eventhub_namespace.usage.public_network_access_enabled && azurerm_key_vault.this.public_network_access_enabled && azurerm_managed_redis.this.public_network_access == "Enabled" && azapi_resource.functions.body.properties.publicNetworkAccess == "Enabled" && azapi_resource.functions.body.properties.virtualNetworkSubnetId == null
    error_message = "Without a network everything is reached by its public endpoint."
  }
  assert {
    condition     = !azurerm_storage_account.ledger.shared_access_key_enabled && !azurerm_eventhub_namespace.usage.local_authentication_enabled && !one(azurerm_managed_redis.this.default_database).access_keys_authentication_enabled && azapi_update_resource.functions_auth.body.properties.globalValidation.requireAuthentication
    error_message = "The quick start is as keyless as the rest."
  }
  assert {
    condition     = azapi_update_resource.llm_logs_network.body.properties.defaultAction == "Allow"
    error_message = "Going back from private to public opens the LLM log's namespace again."
  }
}

run "deployer_outside_the_network" {
  command = plan
  variables {
    deployer_ip_ranges = ["203.0.113.7", "198.51.100.0/24"]
  }

  assert {
    condition     = azurerm_storage_account.ledger.public_network_access_enabled && one(azurerm_storage_account.ledger.network_rules).default_action == "Deny" && one(azurerm_storage_account.ledger.network_rules).ip_rules == toset(["203.0.113.7", "198.51.100.0/24"])
    error_message = "The configuration can be published from these addresses only."
  }
  assert {
    condition     = azapi_resource.functions.body.properties.publicNetworkAccess == "Enabled" && azapi_resource.functions.body.properties.siteConfig.ipSecurityRestrictionsDefaultAction == "Deny" && azapi_resource.functions.body.properties.siteConfig.scmIpSecurityRestrictionsDefaultAction == "Deny" && azapi_resource.functions.body.properties.siteConfig.scmIpSecurityRestrictions[*].ipAddress == ["198.51.100.0/24", "203.0.113.7/32"]
    error_message = "The package can be deployed from these addresses only."
  }
  assert {
    condition     = !azurerm_storage_account.host.public_network_access_enabled && !azurerm_key_vault.this.public_network_access_enabled && azurerm_managed_redis.this.public_network_access == "Disabled"
    error_message = "Nothing else opens."
  }
}

run "existing_network" {
  command = plan
  variables {
    existing_network = {
      virtual_network_id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-hub/providers/Microsoft.Network/virtualNetworks/vnet-hub"
      subnet_ids = {
        gateway   = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-hub/providers/Microsoft.Network/virtualNetworks/vnet-hub/subnets/gateway"
        functions = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-hub/providers/Microsoft.Network/virtualNetworks/vnet-hub/subnets/functions"
        endpoints = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-hub/providers/Microsoft.Network/virtualNetworks/vnet-hub/subnets/endpoints"
      }
    }
    existing_private_dns_zone_ids = {
      "privatelink.blob.core.windows.net" = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-dns/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.windows.net"
    }
    existing_resource_group_name = "rg-existing"
  }

  assert {
    condition     = length(azurerm_virtual_network.this) + length(azurerm_subnet.this) + length(azurerm_network_security_group.this) + length(azurerm_network_security_rule.endpoints_deny) == 0
    error_message = "The network's owner makes network, subnets and rules."
  }
  assert {
    condition     = alltrue([for endpoint in concat(values(azurerm_private_endpoint.this), azurerm_private_endpoint.functions) : endswith(endpoint.subnet_id, "/vnet-hub/subnets/endpoints")])
    error_message = "Endpoints move into the subnet that was named."
  }
  assert {
    condition     = endswith(azapi_resource.functions.body.properties.virtualNetworkSubnetId, "/vnet-hub/subnets/functions") && endswith(one(azurerm_api_management.this[0].virtual_network_configuration).subnet_id, "/vnet-hub/subnets/gateway")
    error_message = "Functions and gateway move into theirs."
  }
  assert {
    condition     = !contains(keys(azurerm_private_dns_zone.this), "privatelink.blob.core.windows.net") && length(azurerm_private_dns_zone.this) == 8 && strcontains(one(one(azurerm_private_endpoint.this["ledger-blob"].private_dns_zone_group).private_dns_zone_ids), "/rg-dns/")
    error_message = "A zone that was named is used, the others are created."
  }
  assert {
    condition     = alltrue([for link in azurerm_private_dns_zone_virtual_network_link.this : endswith(link.virtual_network_id, "/vnet-hub")])
    error_message = "Created zones are linked to the network that was named."
  }
  assert {
    condition     = length(azurerm_resource_group.this) == 0 && azurerm_storage_account.ledger.resource_group_name == "rg-existing"
    error_message = "Everything goes into the resource group that was named."
  }
}

run "names_and_tags" {
  command = plan
  variables {
    name        = "tollkeeper"
    environment = "prod2345"
    tags        = { owner = "platform" }
  }

  assert {
    condition     = length(local.suffix) == 6 && azurerm_resource_group.this[0].name == "rg-tollkeeper-prod2345" && azapi_resource.functions.name == "func-tollkeeper-prod2345-${local.suffix}"
    error_message = "Names are <abbreviation>-<name>-<environment>-<suffix>."
  }
  assert {
    condition     = alltrue([for name in [azurerm_storage_account.host.name, azurerm_storage_account.ledger.name] : can(regex("^[a-z0-9]{3,24}$", name))])
    error_message = "Storage accounts allow 24 small letters and digits, with the longest name and environment too."
  }
  assert {
    condition     = length(azurerm_key_vault.this.name) <= 24 && length(azurerm_eventhub_namespace.usage.name) <= 50 && length(azapi_resource.llm_logs_namespace.name) <= 50 && length(azapi_resource.functions.name) <= 60
    error_message = "No name is longer than its service allows."
  }
  assert {
    condition = alltrue([
      for tags in [
        azurerm_resource_group.this[0].tags, azurerm_storage_account.host.tags, azurerm_storage_account.ledger.tags, azurerm_eventhub_namespace.usage.tags,
        azapi_resource.llm_logs_namespace.tags, azurerm_managed_redis.this.tags, azurerm_key_vault.this.tags, azurerm_service_plan.this.tags,
        azapi_resource.functions.tags, azurerm_virtual_network.this[0].tags, azurerm_user_assigned_identity.functions.tags, azurerm_user_assigned_identity.gateway[0].tags,
        azurerm_api_management.this[0].tags, azurerm_application_insights.this.tags,
      ] : tags.application == "tollkeeper" && tags.environment == "prod2345" && tags.owner == "platform" && tags["azd-env-name"] == "prod2345"
    ])
    error_message = "What costs money says whose it is."
  }
  assert {
    condition     = azapi_resource.functions.tags["azd-service-name"] == "functions"
    error_message = "azd finds the function app by this tag."
  }
}

run "function_app" {
  command = plan
  variables {
    functions = { site_update_strategy = "Recreate", requests_at_once = 48, always_ready_http = 3 }
  }

  assert {
    condition     = azurerm_service_plan.this.sku_name == "FC1" && azapi_resource.functions.body.properties.functionAppConfig.runtime == { name = "python", version = "3.12" }
    error_message = "Flex Consumption with Python 3.12."
  }
  assert {
    condition     = azapi_resource.functions.body.properties.functionAppConfig.scaleAndConcurrency.triggers.http.perInstanceConcurrency == 48
    error_message = "An instance takes as many requests at once as was said."
  }
  assert {
    condition     = { for group in azapi_resource.functions.body.properties.functionAppConfig.scaleAndConcurrency.alwaysReady : group.name => group.instanceCount } == { http = 3, "function:ingest" = 2 }
    error_message = "The check and ingest never start cold."
  }
  assert {
    condition     = azapi_resource.functions.schema_validation_enabled && !can(azapi_resource.functions.body.properties.functionAppConfig.siteUpdateStrategy)
    error_message = "With Azure's own strategy the whole body is checked against its type."
  }
  assert {
    condition     = azapi_resource.functions.ignore_casing && strcontains(azapi_resource.functions.body.properties.serverFarmId, "/serverFarms/")
    error_message = "Azure writes serverfarms where azurerm writes serverFarms; compared letter by letter, every plan changes the app."
  }
}

run "other_choices" {
  command = plan
  variables {
    public_health     = true
    functions         = {}
    config_publishers = ["00000000-0000-4000-8000-000000000021"]
  }

  assert {
    condition     = azapi_update_resource.functions_auth.body.properties.globalValidation.excludedPaths == ["/api/v1/dashboard", "/api/v1/health"]
    error_message = "A probe without a token reaches /health, and nothing else."
  }
  assert {
    condition     = azapi_resource.functions.body.properties.functionAppConfig.siteUpdateStrategy.type == "RollingUpdate" && !azapi_resource.functions.schema_validation_enabled
    error_message = "A new version comes in without a gap."
  }
  assert {
    condition     = [for key in keys(azurerm_role_assignment.this) : key if startswith(key, "config-publisher-")] == ["config-publisher-00000000-0000-4000-8000-000000000021"]
    error_message = "Where publishers are named, an apply by another hand changes nothing."
  }
}

# What is refused. Each says what would be right.

run "refuses_what_nothing_would_use_and_a_single_zone_where_zones_were_asked_for" {
  command = plan
  variables {
    private_network    = false
    deployer_ip_ranges = ["203.0.113.7"]
    existing_network   = { virtual_network_id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v", subnet_ids = { gateway = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/a", functions = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/b", endpoints = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/c" } }
    functions          = { always_ready_http = 1 }
  }
  expect_failures = [var.deployer_ip_ranges, var.existing_network, var.functions]
}

run "refuses_impossible_networks_and_a_check_that_starts_cold" {
  command = plan
  variables {
    address_space                 = "10.0.0.0/25"
    existing_network              = { virtual_network_id = "vnet", subnet_ids = { gateway = "a", functions = "a", endpoints = "b" } }
    existing_private_dns_zone_ids = { "privatelink.blob.core.window.net" = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.window.net" }
    deployer_ip_ranges            = ["10.0.0.4", "203.0.113.0/31"]
    zone_redundant                = false # where one instance would do
    functions                     = { always_ready_http = 0 }
  }
  expect_failures = [var.address_space, var.existing_network, var.existing_private_dns_zone_ids, var.deployer_ip_ranges, var.functions]
}

run "refuses_other_places_unknown_callers_and_impossible_sizes" {
  command = plan
  variables {
    subscription_id              = "production"
    name                         = "toll-keeper"
    environment                  = "Production"
    location                     = "Sweden Central"
    existing_resource_group_name = "/subscriptions/x/resourceGroups/y"
    tags                         = { environment = "prod" }

    entra_client_id   = "tollkeeper"
    entra_audience    = "everybody please"
    config_publishers = ["platform@contoso.com"]

    ledger_replication       = "LRS" # while zone_redundant is true
    ledger_retention_days    = 30
    capture_retention_days   = 3
    recovery_days            = 400
    throughput_units         = { least = 4, most = 4 }
    redis                    = { sku = "Standard_C1" }
    functions                = { requests_at_once = 0 }
    reservation_keys_version = 0
  }
  expect_failures = [
    var.subscription_id, var.name, var.environment, var.location, var.existing_resource_group_name, var.tags,
    var.entra_client_id, var.entra_audience, var.config_publishers,
    var.ledger_replication, var.ledger_retention_days, var.capture_retention_days, var.recovery_days,
    var.throughput_units, var.redis, var.functions, var.reservation_keys_version,
  ]
}

run "settings_of_ones_own" {
  command = plan

  variables {
    settings        = { MAIL_FROM = "tollkeeper@contoso.com", PUBLIC_URL = "https://tollkeeper.contoso.com", USAGE_HUB = "other" }
    secret_settings = ["ALERT_SLACK_FINOPS", "PSEUDONYM_KEY"]
  }

  assert {
    condition     = local.app_settings.MAIL_FROM == "tollkeeper@contoso.com" && local.app_settings.PUBLIC_URL == "https://tollkeeper.contoso.com"
    error_message = "Settings can be added, and the public address can be one's own."
  }
  assert {
    condition     = endswith(local.app_settings.ALERT_SLACK_FINOPS, "/secrets/alert-slack-finops/)") && startswith(local.app_settings.ALERT_SLACK_FINOPS, "@Microsoft.KeyVault(SecretUri=https://")
    error_message = "A secret setting is read from the vault."
  }
  assert {
    condition     = local.app_settings.USAGE_HUB == azurerm_eventhub.usage.name
    error_message = "What the templates make is not replaced."
  }
}

run "no_key_among_settings" {
  command = plan

  variables {
    settings = { PSEUDONYM_KEY = "0123456789abcdef0123456789abcdef" }
  }

  expect_failures = [var.settings]
}

run "no_secret_among_settings" {
  command = plan

  variables {
    settings        = { ALERT_SLACK_FINOPS = "https://hooks.slack.com/services/T/B/x" }
    secret_settings = ["alert-slack"]
  }

  expect_failures = [var.settings, var.secret_settings]
}
