# What watches over it: the workspace that all logs go to, Application Insights, the workbook, and who is told what.

locals {
  workspace_id = var.existing_log_analytics_workspace_id == null ? azurerm_log_analytics_workspace.this[0].id : var.existing_log_analytics_workspace_id

  # Queries read the tables of a workspace, which other deployments may share: each looks at its own records only.
  own_records = "AppTraces\n| where _ResourceId =~ \"${azurerm_application_insights.this.id}\"\n"
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
  data_json           = replace(file("${path.module}/../workbooks/tollkeeper.workbook.json"), "AppTraces\\n", substr(jsonencode(local.own_records), 1, length(jsonencode(local.own_records)) - 2))
  tags                = local.tags
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

# Log alerts: the files of infra/alerts. Each query yields one number per row, `measure`, and says whose it is in `dimensions`.

locals {
  log_alerts = {
    cost_anomaly    = { severity = 3, every = "PT1H", looks_back = "P2D", measure = "Score", over = var.alert_thresholds.cost_anomaly_score, dimensions = ["Tenant", "Team"] }
    coverage        = { severity = 3, every = "PT6H", looks_back = "P1D", measure = "Unmeasured", over = 1 - var.alert_thresholds.coverage, dimensions = ["Tenant"] }
    dead_letters    = { severity = 2, every = "PT15M", looks_back = "PT15M", measure = "Events", over = 0, dimensions = ["Code"] }
    drift           = { severity = 2, every = "PT1H", looks_back = "PT1H", measure = "Drift", over = var.alert_thresholds.drift_usd, dimensions = ["Tenant"] }
    error_rate      = { severity = 2, every = "PT5M", looks_back = "PT15M", measure = "ErrorRate", over = var.alert_thresholds.error_rate, dimensions = ["Model"] }
    function_errors = { severity = 1, every = "PT5M", looks_back = "PT15M", measure = "Failed", over = 0, dimensions = ["Function"] }
    ingest_lag      = { severity = 1, every = "PT5M", looks_back = "PT15M", measure = "LagSeconds", over = var.alert_thresholds.ingest_lag_seconds, dimensions = [] }
    latency         = { severity = 3, every = "PT5M", looks_back = "PT15M", measure = "P95", over = var.alert_thresholds.latency_ms, dimensions = ["Model"] }
    silence         = { severity = 1, every = "PT15M", looks_back = "PT30M", measure = "Silent", over = 0, dimensions = [] }
    unpriced        = { severity = 3, every = "PT15M", looks_back = "PT15M", measure = "Calls", over = 0, dimensions = ["Tenant", "Model"] }
    usage_spike     = { severity = 3, every = "PT15M", looks_back = "P2D", measure = "TimesUsual", over = var.alert_thresholds.usage_spike, dimensions = ["Tenant", "Team"] }
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "this" {
  for_each = local.log_alerts

  name                  = "${replace(each.key, "_", "-")}-${local.base}"
  display_name          = "Tollkeeper ${var.environment}: ${replace(each.key, "_", " ")}"
  description           = trimprefix(split("\n", file("${path.module}/../alerts/${each.key}.kql"))[0], "// ")
  resource_group_name   = local.resource_group.name
  location              = local.resource_group.location
  scopes                = [local.workspace_id]
  severity              = each.value.severity
  evaluation_frequency  = each.value.every
  window_duration       = each.value.looks_back
  skip_query_validation = true # a new workspace has no AppTraces until the first record arrives
  tags                  = local.tags

  criteria {
    query                   = replace(file("${path.module}/../alerts/${each.key}.kql"), "AppTraces\n", local.own_records)
    metric_measure_column   = each.value.measure
    time_aggregation_method = "Maximum"
    operator                = "GreaterThan"
    threshold               = each.value.over

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

# Metric alerts: what the platform knows and no log record says.

locals {
  metric_alerts = merge(
    {
      usage-hub-throttled    = { scope = azurerm_eventhub_namespace.usage.id, namespace = "Microsoft.EventHub/namespaces", metric = "ThrottledRequests", aggregation = "Total", over = 0, severity = 2, dimension = {}, description = "The usage hub refuses events: raise its throughput units." }
      llm-logs-hub-throttled = { scope = azapi_resource.llm_logs_namespace.id, namespace = "Microsoft.EventHub/namespaces", metric = "ThrottledRequests", aggregation = "Total", over = 0, severity = 2, dimension = {}, description = "The hub of LLM logs refuses records: raise its throughput units." }
      redis-memory           = { scope = azurerm_managed_redis.this.id, namespace = "Microsoft.Cache/redisEnterprise", metric = "usedmemorypercentage", aggregation = "Maximum", over = 80, severity = 1, dimension = {}, description = "Redis evicts nothing: when its memory is full, checks fail. Take a larger SKU." }
      gateway-failed         = { scope = local.gateway.id, namespace = "Microsoft.ApiManagement/service", metric = "Requests", aggregation = "Total", over = 10, severity = 2, dimension = { GatewayResponseCodeCategory = ["5xx"] }, description = "The gateway answers calls with server errors." }
    },
    var.existing_api_management == null ? {
      gateway-capacity = { scope = local.gateway.id, namespace = "Microsoft.ApiManagement/service", metric = strcontains(var.api_management_sku, "V2") ? "CpuPercent_Gateway" : "Capacity", aggregation = "Average", over = 70, severity = 2, dimension = {}, description = "The gateway is near the end of its capacity, where it gets slow instead of refusing: add units." }
    } : {}
  )
}

resource "azurerm_monitor_metric_alert" "this" {
  for_each = local.metric_alerts

  name                = "${each.key}-${local.base}"
  resource_group_name = local.resource_group.name
  description         = each.value.description
  scopes              = [each.value.scope]
  severity            = each.value.severity
  frequency           = "PT5M"
  window_size         = "PT15M"
  tags                = local.tags

  criteria {
    metric_namespace = each.value.namespace
    metric_name      = each.value.metric
    aggregation      = each.value.aggregation
    operator         = "GreaterThan"
    threshold        = each.value.over

    dynamic "dimension" {
      for_each = each.value.dimension
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
      usage-hub     = { target = azurerm_eventhub_namespace.usage.id, categories = ["OperationalLogs", "AutoScaleLogs"] }
      llm-logs-hub  = { target = azapi_resource.llm_logs_namespace.id, categories = ["OperationalLogs", "AutoScaleLogs"] }
      ledger-tables = { target = "${azurerm_storage_account.ledger.id}/tableServices/default", categories = ["StorageDelete"] } # rows are only ever added
      ledger-blobs  = { target = "${azurerm_storage_account.ledger.id}/blobServices/default", categories = ["StorageDelete"] }
      redis         = { target = "${azurerm_managed_redis.this.id}/databases/default", categories = ["ConnectionEvents"] }
    },
    var.gateway_logs ? { gateway = { target = local.gateway.id, categories = ["GatewayLogs"] } } : {}
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
