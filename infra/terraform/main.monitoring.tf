# What watches over it: the workspace that all logs go to, Application Insights, the workbook, and who is told what.

locals {
  workspace_id = var.existing_log_analytics_workspace_id == null ? azurerm_log_analytics_workspace.this[0].id : var.existing_log_analytics_workspace_id

  # Other deployments may write to the same workspace: every query asks for the rows of this one.
  insights_id = lower(azurerm_application_insights.this.id)
}

resource "azurerm_log_analytics_workspace" "this" {
  count = var.existing_log_analytics_workspace_id == null ? 1 : 0

  name                         = local.names.workspace
  resource_group_name          = local.resource_group.name
  location                     = local.resource_group.location
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  local_authentication_enabled = false
  tags                         = local.tags
}

resource "azurerm_application_insights" "this" {
  name                         = local.names.insights
  resource_group_name          = local.resource_group.name
  location                     = local.resource_group.location
  application_type             = "web"
  workspace_id                 = local.workspace_id
  local_authentication_enabled = false
  sampling_percentage          = 100 # the workbook sums log records: one that is sampled away is spend that it does not show
  tags                         = local.tags
}

resource "azurerm_application_insights_workbook" "this" {
  name                = uuidv5("url", "tollkeeper/${local.base}") # Azure wants a UUID, and the same one at every apply
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  display_name        = "Tollkeeper ${var.environment}"
  source_id           = lower(local.workspace_id) # Azure answers in lower case, and would differ for ever
  tags                = local.tags

  data_json = replace(replace(
    file("${path.module}/../workbooks/tollkeeper.workbook.json"), "{insights}", local.insights_id), "{workspace}", lower(local.workspace_id)
  )
}

resource "azurerm_monitor_action_group" "this" {
  name                = "ag-${local.base}"
  resource_group_name = local.resource_group.name
  short_name          = "tollkeeper"
  tags                = local.tags

  dynamic "email_receiver" {
    for_each = toset(var.alert_emails)
    content {
      name                    = email_receiver.value
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }

  dynamic "webhook_receiver" {
    for_each = var.alert_webhook_url == null ? [] : ["webhook"]
    content {
      name                    = webhook_receiver.value
      service_uri             = var.alert_webhook_url
      use_common_alert_schema = true
    }
  }
}

# Alerts stand in infra/alerts, which Bicep reads too.

locals {
  alerts = yamldecode(file("${path.module}/../alerts/alerts.yaml"))

  metered = merge(
    {
      usage_hub    = azurerm_eventhub_namespace.usage.id
      llm_logs_hub = azapi_resource.llm_logs_namespace.id
      redis        = azurerm_managed_redis.this.id
    },
    var.api_management ? { gateway = local.gateway.id } : {},
    { for app in azurerm_container_app.builtin : "builtin" => app.id },
    # Of an existing gateway nobody here knows the tier; its owner watches its capacity.
    length(azurerm_api_management.this) == 1 ? { (strcontains(var.api_management_sku, "V2") ? "gateway_v2" : "gateway_classic") = local.gateway.id } : {}
  )
  metric_alerts = { for name, alert in local.alerts.metric_alerts : name => alert if contains(keys(local.metered), alert.resource) }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "this" {
  for_each = local.alerts.log_alerts

  name                    = "${replace(each.key, "_", "-")}-${local.base}"
  display_name            = "Tollkeeper ${var.environment}: ${replace(each.key, "_", " ")}"
  description             = trimprefix(split("\n", file("${path.module}/../alerts/${each.key}.kql"))[0], "// ")
  resource_group_name     = local.resource_group.name
  location                = local.resource_group.location
  scopes                  = [local.workspace_id]
  severity                = each.value.severity
  evaluation_frequency    = each.value.every
  window_duration         = each.value.looks_back
  auto_mitigation_enabled = true # one message when it begins and one when it ends, instead of one per evaluation
  skip_query_validation   = true # a new workspace has none of the tables until the first record arrives
  tags                    = local.tags

  criteria {
    query                   = replace(file("${path.module}/../alerts/${each.key}.kql"), "{insights}", local.insights_id)
    metric_measure_column   = each.value.measure
    time_aggregation_method = "Maximum"
    operator                = "GreaterThan"
    threshold               = lookup(var.alert_thresholds, each.key, each.value.over)

    dynamic "dimension" {
      for_each = each.value.dimensions
      content {
        name     = dimension.value
        operator = "Include"
        values   = ["*"]
      }
    }
  }

  action {
    action_groups = [azurerm_monitor_action_group.this.id]
  }
}

resource "azurerm_monitor_metric_alert" "this" {
  for_each = local.metric_alerts

  name                = "${each.key}-${local.base}"
  resource_group_name = local.resource_group.name
  description         = each.value.description
  scopes              = [local.metered[each.value.resource]]
  severity            = each.value.severity
  frequency           = "PT5M"
  window_size         = "PT15M"
  tags                = local.tags

  criteria {
    metric_namespace = each.value.namespace
    metric_name      = each.value.metric
    aggregation      = each.value.aggregation
    operator         = "GreaterThan"
    threshold        = lookup(var.alert_thresholds, each.key, each.value.over)

    dynamic "dimension" {
      for_each = lookup(each.value, "dimension", {})
      content {
        name     = dimension.key
        operator = "Include"
        values   = dimension.value
      }
    }
  }

  action {
    action_group_id = azurerm_monitor_action_group.this.id
  }
}

# Who did what to the parts that hold money or let somebody in. Metrics stay out: Azure keeps them for 93 days by itself.

locals {
  diagnostics = merge(
    {
      vault         = { target = azurerm_key_vault.this.id, categories = ["AuditEvent"] }
      usage-hub     = { target = azurerm_eventhub_namespace.usage.id, categories = ["ArchiveLogs", "AutoScaleLogs", "OperationalLogs"] } # archive: capture that fails
      llm-logs-hub  = { target = azapi_resource.llm_logs_namespace.id, categories = ["AutoScaleLogs", "OperationalLogs"] }
      ledger-tables = { target = "${azurerm_storage_account.ledger.id}/tableServices/default", categories = ["StorageDelete"] } # rows are only ever added
      ledger-blobs  = { target = "${azurerm_storage_account.ledger.id}/blobServices/default", categories = ["StorageDelete"] }
      redis         = { target = "${azurerm_managed_redis.this.id}/databases/default", categories = ["ConnectionEvents"] }
    },
    var.api_management && var.gateway_logs ? { gateway = { target = local.gateway.id, categories = ["GatewayLogs"] } } : {},
    { for containers in azurerm_container_app_environment.this : "containers" => { target = containers.id, categories = ["ContainerAppConsoleLogs", "ContainerAppSystemLogs"] } }
  )
}

resource "azurerm_monitor_diagnostic_setting" "workspace" {
  for_each = local.diagnostics

  name                           = "workspace"
  target_resource_id             = each.value.target
  log_analytics_workspace_id     = local.workspace_id
  log_analytics_destination_type = each.key == "gateway" ? "Dedicated" : null # API Management alone lets one choose a table of its own

  dynamic "enabled_log" {
    for_each = each.value.categories
    content {
      category = enabled_log.value
    }
  }
}
