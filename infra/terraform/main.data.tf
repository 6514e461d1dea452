locals {
  public = !var.private_network

  # Machines outside the private network that publish the configuration. They reach nothing else of the account's without a role.
  ledger_open = local.public || length(var.deployer_ip_ranges) > 0

  containers = merge([
    for account, names in local.shared.containers : { for name in names : name => account }
  ]...)
}

# What the Functions host needs for itself: checkpoints, locks, packages. Deleting it costs a redelivery, which changes nothing.
resource "azurerm_storage_account" "host" {
  name                             = local.names.host_storage
  resource_group_name              = local.resource_group.name
  location                         = local.resource_group.location
  account_tier                     = "Standard"
  account_replication_type         = var.zone_redundant ? "ZRS" : "LRS"
  https_traffic_only_enabled       = true
  min_tls_version                  = "TLS1_2"
  shared_access_key_enabled        = false
  default_to_oauth_authentication  = true
  local_user_enabled               = false
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  public_network_access_enabled    = local.public
  tags                             = local.tags

  network_rules {
    default_action = local.public ? "Allow" : "Deny"
    bypass         = ["AzureServices"]
  }

  blob_properties {
    delete_retention_policy {
      days = 7 # an overwritten package can be brought back
    }
  }
}

# The books: ledger tables, statements, configuration, raw events. An account of its own, because the host's identity needs
# are far wider than those of the books.
resource "azurerm_storage_account" "ledger" {
  name                             = local.names.ledger_storage
  resource_group_name              = local.resource_group.name
  location                         = local.resource_group.location
  account_tier                     = "Standard"
  account_replication_type         = coalesce(var.ledger_replication, var.zone_redundant ? "ZRS" : "LRS")
  https_traffic_only_enabled       = true
  min_tls_version                  = "TLS1_2"
  shared_access_key_enabled        = false
  default_to_oauth_authentication  = true
  local_user_enabled               = false
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  public_network_access_enabled    = local.ledger_open
  tags                             = local.tags

  network_rules {
    default_action = local.public ? "Allow" : "Deny"
    bypass         = ["AzureServices"] # capture of the hub and the cost export, each by its identity
    ip_rules       = local.public ? [] : var.deployer_ip_ranges
  }

  blob_properties {
    versioning_enabled = true # a statement or a configuration that was overwritten

    delete_retention_policy {
      days = var.recovery_days
    }
    container_delete_retention_policy {
      days = var.recovery_days
    }
  }
}

resource "azurerm_storage_container" "this" {
  for_each           = local.containers
  name               = each.key
  storage_account_id = { host = azurerm_storage_account.host.id, ledger = azurerm_storage_account.ledger.id }[each.value]
}

# The nightly export of the ledger: parts are added and read, and for this long neither changed nor deleted, whoever asks.
resource "azurerm_storage_container_immutability_policy" "ledger_export" {
  storage_container_resource_manager_id = azurerm_storage_container.this["ledger-export"].id
  immutability_period_in_days           = var.ledger_export.days
  locked                                = var.ledger_export.locked
}

# azurerm_storage_table reads the table's access list, which Azure shows to account keys only. See docs/adr/014-azapi.md.
resource "azapi_resource" "table" {
  for_each  = toset(local.shared.tables)
  type      = "Microsoft.Storage/storageAccounts/tableServices/tables@2025-01-01"
  name      = "${local.shared.table_prefix}${each.key}"
  parent_id = "${azurerm_storage_account.ledger.id}/tableServices/default"

  response_export_values = []
}

resource "azurerm_storage_management_policy" "ledger" {
  storage_account_id = azurerm_storage_account.ledger.id

  rule {
    name    = "capture"
    enabled = true
    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${azurerm_storage_container.this["usage-capture"].name}/"]
    }
    actions {
      base_blob {
        delete_after_days_since_creation_greater_than = var.capture_retention_days
      }
    }
  }

  # A version's age counts from when it was written, not from when it was replaced. Soft delete keeps what this rule deletes
  # for as many days again, so even an old statement that is overwritten today can be brought back.
  rule {
    name    = "old-versions"
    enabled = true
    filters {
      blob_types = ["blockBlob"]
    }
    actions {
      version {
        delete_after_days_since_creation = var.recovery_days
      }
    }
  }
}

resource "azurerm_eventhub_namespace" "usage" {
  name                          = local.names.usage_namespace
  resource_group_name           = local.resource_group.name
  location                      = local.resource_group.location
  sku                           = "Standard"
  capacity                      = var.throughput_units.least
  auto_inflate_enabled          = true
  maximum_throughput_units      = var.throughput_units.most
  local_authentication_enabled  = false
  public_network_access_enabled = local.public
  minimum_tls_version           = "1.2"
  tags                          = local.tags

  identity {
    type = "SystemAssigned" # capture writes as this
  }

  lifecycle {
    ignore_changes = [capacity] # Azure raises it under load; an apply in that hour must not take it back
  }
}

resource "azurerm_eventhub" "usage" {
  name            = local.shared.hubs.usage.name
  namespace_id    = azurerm_eventhub_namespace.usage.id
  partition_count = local.shared.hubs.usage.partitions

  retention_description {
    cleanup_policy          = "Delete"
    retention_time_in_hours = local.shared.hubs.usage.retention_hours
  }

  # Every event as it came, for a question that the ledger cannot answer and for a replay after the hub's own retention.
  capture_description {
    enabled             = true
    encoding            = "Avro"
    interval_in_seconds = 300
    size_limit_in_bytes = 104857600
    skip_empty_archives = true

    destination {
      name                        = "EventHubArchive.AzureBlockBlob"
      archive_name_format         = "{Namespace}/{EventHub}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}/{PartitionId}"
      blob_container_name         = azurerm_storage_container.this["usage-capture"].name
      storage_account_id          = azurerm_storage_account.ledger.id
      storage_authentication_type = "SystemAssigned"
    }
  }

  depends_on = [azurerm_role_assignment.this] # capture is refused while its identity may not write
}

# The one namespace with shared keys: Azure Monitor's diagnostic settings write by an access rule and know no identity, and
# only to a namespace in the gateway's region. Through azapi, because azurerm would copy the working keys into the state. Without
# API Management nobody writes there, and there are no keys: it stays for the function that reads it.
resource "azapi_resource" "llm_logs_namespace" {
  type      = "Microsoft.EventHub/namespaces@2024-01-01"
  name      = local.names.llm_logs_namespace
  parent_id = local.resource_group.id
  location  = try(var.existing_api_management.location, local.resource_group.location)
  tags      = local.tags

  body = {
    sku = { name = "Standard", tier = "Standard", capacity = var.throughput_units.least }
    properties = {
      isAutoInflateEnabled   = true
      maximumThroughputUnits = var.throughput_units.most
      disableLocalAuth       = !var.api_management
      minimumTlsVersion      = "1.2"
      publicNetworkAccess    = local.public ? "Enabled" : "Disabled"
    }
  }
  response_export_values = []

  lifecycle {
    ignore_changes = [body.sku.capacity] # as above
  }
}

# Azure Monitor is let in as a trusted service, everything else comes by the private endpoint. The rule set is a part of every
# namespace, so it is updated, not created.
resource "azapi_update_resource" "llm_logs_network" {
  type      = "Microsoft.EventHub/namespaces/networkRuleSets@2024-01-01"
  name      = "default"
  parent_id = azapi_resource.llm_logs_namespace.id

  body = {
    properties = {
      defaultAction               = local.public ? "Allow" : "Deny"
      publicNetworkAccess         = local.public ? "Enabled" : "Disabled"
      trustedServiceAccessEnabled = true
    }
  }
  response_export_values = []
}

resource "azurerm_eventhub" "llm_logs" {
  name            = local.shared.hubs.llm_logs.name
  namespace_id    = azapi_resource.llm_logs_namespace.id
  partition_count = local.shared.hubs.llm_logs.partitions

  retention_description {
    cleanup_policy          = "Delete"
    retention_time_in_hours = local.shared.hubs.llm_logs.retention_hours
  }
}

# For the gateway's diagnostic setting and nobody else. Azure Monitor asks for all three rights.
resource "azapi_resource" "llm_logs_send_rule" {
  count     = var.api_management ? 1 : 0
  type      = "Microsoft.EventHub/namespaces/authorizationRules@2024-01-01"
  name      = "azure-monitor"
  parent_id = azapi_resource.llm_logs_namespace.id

  body = {
    properties = { rights = ["Listen", "Manage", "Send"] }
  }
  response_export_values = []
}

locals {
  consumer_groups = merge([
    for key, hub in local.shared.hubs : { for group in hub.consumer_groups : "${key}-${group}" => { hub = key, name = group } }
  ]...)
}

resource "azurerm_eventhub_consumer_group" "this" {
  for_each            = local.consumer_groups
  name                = each.value.name
  eventhub_name       = { usage = azurerm_eventhub.usage.name, llm_logs = azurerm_eventhub.llm_logs.name }[each.value.hub]
  namespace_name      = { usage = azurerm_eventhub_namespace.usage.name, llm_logs = azapi_resource.llm_logs_namespace.name }[each.value.hub]
  resource_group_name = local.resource_group.name
}

resource "azurerm_managed_redis" "this" {
  name                      = local.names.redis
  resource_group_name       = local.resource_group.name
  location                  = local.resource_group.location
  sku_name                  = var.redis.sku
  high_availability_enabled = var.redis.high_availability
  public_network_access     = local.public ? "Enabled" : "Disabled"
  tags                      = local.tags

  default_database {
    access_keys_authentication_enabled = false
    client_protocol                    = "Encrypted"
    clustering_policy                  = "EnterpriseCluster" # one address, so a client needs to know nothing of shards
    eviction_policy                    = "NoEviction"        # an evicted counter is spend forgotten
  }
}

resource "azurerm_managed_redis_access_policy_assignment" "functions" {
  managed_redis_id = azurerm_managed_redis.this.id
  object_id        = azurerm_user_assigned_identity.functions.principal_id
}

resource "azurerm_key_vault" "this" {
  name                          = local.names.key_vault
  resource_group_name           = local.resource_group.name
  location                      = local.resource_group.location
  tenant_id                     = data.azurerm_client_config.current.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true
  purge_protection_enabled      = true
  public_network_access_enabled = local.public
  tags                          = local.tags

  network_acls {
    default_action = local.public ? "Allow" : "Deny"
    bypass         = "None"
  }
}

# The key that signs reservations. Azure makes it, so it is in neither plan nor state, and anew for each version: a value that
# Terraform makes is another one in every plan, which would send it again with every apply. The deployment goes through Azure
# Resource Manager, because the vault's own door may be closed to this machine. An action and not a resource: a deployment that
# failed is there all the same, and a resource would stop at finding it.
resource "azapi_resource_action" "reservation_keys" {
  type        = "Microsoft.Resources/deployments@2025-04-01"
  resource_id = "${local.resource_group.id}/providers/Microsoft.Resources/deployments/reservation-keys"
  method      = "PUT"

  body = {
    properties = {
      mode       = "Incremental"
      parameters = { version = { value = var.reservation_keys_version } }
      template = {
        "$schema"      = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
        contentVersion = "1.0.0.0"
        parameters = {
          version = { type = "int" }
          key     = { type = "securestring", defaultValue = "[concat(newGuid(), newGuid())]" } # kept out of the deployment's history
        }
        resources = [{
          type       = "Microsoft.KeyVault/vaults/secrets"
          apiVersion = "2024-11-01"
          name       = "${azurerm_key_vault.this.name}/${local.shared.secrets.reservation_keys}"
          properties = { value = "[parameters('key')]" }
        }]
      }
    }
  }
  response_export_values = []
}
