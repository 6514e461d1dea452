# API Management and what it is connected with: its loggers, the models behind it, and where its logs go. Nothing of this file
# and of main.api.tf is created while api_management is false.

resource "azurerm_api_management" "this" {
  count                = var.api_management && var.existing_api_management == null ? 1 : 0
  name                 = local.names.gateway
  resource_group_name  = local.resource_group.name
  location             = local.resource_group.location
  publisher_name       = var.publisher.name
  publisher_email      = coalesce(var.publisher.email, var.alert_emails...)
  sku_name             = var.api_management_sku
  virtual_network_type = var.private_network ? "External" : "None" # External: its calls leave through the subnet
  tags                 = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.gateway[0].id]
  }

  dynamic "virtual_network_configuration" {
    for_each = var.private_network ? [local.subnet_ids.gateway] : []
    content {
      subnet_id = virtual_network_configuration.value
    }
  }
}

locals {
  existing_gateway = var.existing_api_management == null ? null : {
    id                  = var.existing_api_management.id
    name                = split("/", var.existing_api_management.id)[8]
    resource_group_name = split("/", var.existing_api_management.id)[4]
    url                 = var.existing_api_management.gateway_url
    location            = var.existing_api_management.location
  }
  created_gateway = one([
    for gateway in azurerm_api_management.this : {
      id                  = gateway.id
      name                = gateway.name
      resource_group_name = gateway.resource_group_name
      url                 = gateway.gateway_url
      location            = gateway.location
    }
  ])
  gateway = var.existing_api_management == null ? local.created_gateway : local.existing_gateway # null: there is none
}

# Loggers

resource "azurerm_api_management_logger" "usage" {
  count               = var.api_management ? 1 : 0
  name                = local.named_values["tk-usage-logger"]
  description         = "Usage events. In a private network they take the namespace's private endpoint: API Management is no trusted service of Event Hubs."
  api_management_name = local.gateway.name
  resource_group_name = local.gateway.resource_group_name

  eventhub {
    name                             = azurerm_eventhub.usage.name
    endpoint_uri                     = "${azurerm_eventhub_namespace.usage.name}.servicebus.windows.net"
    user_assigned_identity_client_id = azurerm_user_assigned_identity.gateway[0].client_id
  }

  depends_on = [azurerm_role_assignment.this] # the identity must be allowed to send before API Management tries it
}

resource "azurerm_api_management_logger" "insights" {
  count               = var.api_management ? 1 : 0
  name                = "insights-logger"
  api_management_name = local.gateway.name
  resource_group_name = local.gateway.resource_group_name
  resource_id         = azurerm_application_insights.this.id

  application_insights {
    connection_string  = azurerm_application_insights.this.connection_string # an address: the component takes no keys
    identity_client_id = azurerm_user_assigned_identity.gateway[0].client_id
  }

  depends_on = [azurerm_role_assignment.this]
}

# Some gateways have this logger from the start and some do not, so it is put and not created.
resource "azapi_resource_action" "monitor_logger" {
  count       = var.api_management ? 1 : 0
  type        = "Microsoft.ApiManagement/service/loggers@2024-05-01"
  resource_id = "${local.gateway.id}/loggers/azuremonitor"
  method      = "PUT"
  body        = { properties = { loggerType = "azureMonitor", isBuffered = true } }

  response_export_values = []
}

# Models

resource "azurerm_api_management_backend" "models" {
  for_each            = { for key, model in local.models : key => model if var.api_management }
  name                = "models-${each.key}"
  api_management_name = local.gateway.name
  resource_group_name = local.gateway.resource_group_name
  protocol            = "http"
  url                 = "${each.value.endpoint}/openai"

  circuit_breaker_rule {
    name                       = "failing"
    trip_duration              = "PT1M"
    accept_retry_after_enabled = true

    failure_condition {
      count             = 3
      interval_duration = "PT1M"
      error_reasons     = ["BackendConnectionFailure", "Timeout"]

      status_code_range {
        min = 500
        max = 599
      }
      # With nowhere else to go, the caller is told better by the model's 429 and its Retry-After than by a 503.
      dynamic "status_code_range" {
        for_each = length(local.models) > 1 ? [429] : []
        content {
          min = status_code_range.value
          max = status_code_range.value
        }
      }
    }
  }
}

# azurerm knows no pools.
resource "azapi_resource" "model_pool" {
  count     = var.api_management ? 1 : 0
  type      = "Microsoft.ApiManagement/service/backends@2024-05-01"
  name      = local.named_values["tk-backend-id"]
  parent_id = local.gateway.id
  body = {
    properties = {
      type = "Pool"
      pool = {
        services = [for key, model in local.models : {
          id       = azurerm_api_management_backend.models[key].id
          priority = model.priority
          weight   = model.weight
        }]
      }
    }
  }
  response_export_values = []
}

# Logs

# The one diagnostic setting that writes to a hub. It takes a shared access rule and no identity, which is why the namespace of
# this hub, and no other, has local authentication on.
resource "azurerm_monitor_diagnostic_setting" "llm_logs" {
  count                          = var.api_management ? 1 : 0
  name                           = "llm-logs"
  target_resource_id             = local.gateway.id
  eventhub_name                  = azurerm_eventhub.llm_logs.name
  eventhub_authorization_rule_id = azapi_resource.llm_logs_send_rule[0].id

  enabled_log {
    category = "GatewayLlmLogs" # the tokens of streams
  }
  enabled_log {
    category = "GatewayLogs" # which calls were cut off
  }

  depends_on = [azapi_update_resource.llm_logs_network] # or Azure Monitor stands before a closed namespace
}
