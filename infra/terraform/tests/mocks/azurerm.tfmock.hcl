# What the mocked providers answer. Ids and UUIDs are well-formed, because the real provider judges them too.

mock_data "azurerm_client_config" {
  defaults = {
    client_id       = "00000000-0000-4000-8000-00000000000c"
    object_id       = "00000000-0000-4000-8000-00000000000d"
    subscription_id = "00000000-0000-4000-8000-000000000000"
    tenant_id       = "00000000-0000-4000-8000-00000000000a"
  }
}

mock_data "azurerm_resource_group" {
  defaults = {
    id       = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-existing"
    location = "swedencentral"
  }
}

mock_resource "azurerm_resource_group" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test"
  }
}

mock_resource "azurerm_user_assigned_identity" {
  defaults = {
    id           = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-test"
    client_id    = "00000000-0000-4000-8000-000000000001"
    principal_id = "00000000-0000-4000-8000-000000000002"
    tenant_id    = "00000000-0000-4000-8000-00000000000a"
  }
}

mock_resource "azurerm_virtual_network" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Network/virtualNetworks/vnet-test"
  }
}

mock_resource "azurerm_subnet" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Network/virtualNetworks/vnet-test/subnets/snet-test"
  }
}

mock_resource "azurerm_network_security_group" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Network/networkSecurityGroups/nsg-test"
  }
}

mock_resource "azurerm_private_dns_zone" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.windows.net"
  }
}

mock_resource "azurerm_private_endpoint" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Network/privateEndpoints/pep-test"
  }
}

mock_resource "azurerm_storage_account" {
  defaults = {
    id                     = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Storage/storageAccounts/sttest"
    primary_blob_endpoint  = "https://sttest.blob.core.windows.net/"
    primary_table_endpoint = "https://sttest.table.core.windows.net/"
  }
}

mock_resource "azurerm_storage_container" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Storage/storageAccounts/sttest/blobServices/default/containers/test"
  }
}

mock_resource "azurerm_eventhub_namespace" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.EventHub/namespaces/evhns-test"
    identity = {
      principal_id = "00000000-0000-4000-8000-000000000003"
      tenant_id    = "00000000-0000-4000-8000-00000000000a"
    }
  }
}

mock_resource "azurerm_eventhub" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.EventHub/namespaces/evhns-test/eventhubs/test"
  }
}

mock_resource "azurerm_eventhub_consumer_group" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.EventHub/namespaces/evhns-test/eventhubs/test/consumerGroups/test"
  }
}

mock_resource "azurerm_managed_redis" {
  defaults = {
    id       = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Cache/redisEnterprise/amr-test"
    hostname = "amr-test.swedencentral.redis.azure.net"
  }
}

mock_resource "azurerm_key_vault" {
  defaults = {
    id        = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.KeyVault/vaults/kv-test"
    vault_uri = "https://kv-test.vault.azure.net/"
  }
}

mock_resource "azurerm_service_plan" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Web/serverFarms/asp-test"
  }
}

mock_resource "azurerm_role_assignment" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-000000000004"
  }
}

# Main resources of the other files

mock_resource "azurerm_api_management" {
  defaults = {
    id          = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ApiManagement/service/apim-test"
    gateway_url = "https://apim-test.azure-api.net"
  }
}

mock_resource "azurerm_api_management_logger" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ApiManagement/service/apim-test/loggers/test"
  }
}

mock_resource "azurerm_api_management_backend" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ApiManagement/service/apim-test/backends/test"
  }
}

mock_resource "azurerm_api_management_api" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ApiManagement/service/apim-test/apis/openai"
  }
}

mock_resource "azurerm_api_management_product" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ApiManagement/service/apim-test/products/test"
  }
}

mock_resource "azurerm_cognitive_account" {
  defaults = {
    id       = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.CognitiveServices/accounts/aif-test"
    endpoint = "https://aif-test.openai.azure.com/"
  }
}

mock_resource "azurerm_log_analytics_workspace" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.OperationalInsights/workspaces/log-test"
  }
}

mock_resource "azurerm_application_insights" {
  defaults = {
    id                = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Insights/components/appi-test"
    connection_string = "InstrumentationKey=00000000-0000-4000-8000-000000000005;IngestionEndpoint=https://swedencentral-0.in.applicationinsights.azure.com/"
  }
}

mock_resource "azurerm_monitor_action_group" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Insights/actionGroups/ag-test"
  }
}

mock_resource "azurerm_container_registry" {
  defaults = {
    id           = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.ContainerRegistry/registries/crtest"
    login_server = "crtest.azurecr.io"
  }
}

mock_resource "azurerm_container_app_environment" {
  defaults = {
    id                = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.App/managedEnvironments/cae-test"
    default_domain    = "quiet-sea-01234567.swedencentral.azurecontainerapps.io"
    static_ip_address = "10.64.0.200"
  }
}

mock_resource "azurerm_container_app" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.App/containerApps/ca-test"
  }
}
