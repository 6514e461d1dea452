# What watches: logs by identity only, the workbook and the alerts as they stand in the repository, the last net of costs.

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
  alert_emails        = ["platform@contoso.com", "finance@contoso.com"]
  monthly_cost_budget = 1000
  config_path         = "./tests/config"
  config_digest       = "c34b2339dfdf65840ade7e42441e2abd0b75acba4cbbdb92f4d4dce280c1abcf"
  model_regions = {
    swc = { location = "swedencentral", deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
  }
}

run "everything_is_watched" {
  command = plan

  # Telemetry, alerts and the workbook
  assert {
    condition     = !azurerm_application_insights.this.local_authentication_enabled && !azurerm_log_analytics_workspace.this[0].local_authentication_enabled
    error_message = "Nobody who found a connection string may write records, or read them by a key."
  }
  assert {
    condition     = azurerm_application_insights.this.sampling_percentage == 100
    error_message = "A record that is sampled away is spend that the workbook does not show."
  }
  assert {
    condition     = strcontains(azurerm_application_insights_workbook.this.data_json, lower(azurerm_application_insights.this.id)) && !can(regex("{insights}|{workspace}", azurerm_application_insights_workbook.this.data_json))
    error_message = "The workbook asks for this deployment's records."
  }
  assert {
    condition     = toset(keys(azurerm_monitor_scheduled_query_rules_alert_v2.this)) == toset([for file in fileset("../alerts", "*.kql") : trimsuffix(file, ".kql")])
    error_message = "Every alert query is a rule: ${jsonencode(keys(azurerm_monitor_scheduled_query_rules_alert_v2.this))}"
  }
  assert {
    condition = alltrue([
      for alert in values(azurerm_monitor_scheduled_query_rules_alert_v2.this) :
      strcontains(one(alert.criteria).query, "_ResourceId =~ \"${lower(azurerm_application_insights.this.id)}\"") && one(alert.action).action_groups == tolist([azurerm_monitor_action_group.this.id]) && alert.auto_mitigation_enabled
    ])
    error_message = "Every rule asks for this deployment's records and tells somebody, once."
  }
  assert {
    condition     = keys(azurerm_monitor_metric_alert.this) == ["gateway-capacity", "gateway-failed", "llm-logs-hub-throttled", "redis-memory", "usage-hub-throttled"]
    error_message = jsonencode(keys(azurerm_monitor_metric_alert.this))
  }
  assert {
    condition     = one(azurerm_monitor_metric_alert.this["redis-memory"].scopes) == azurerm_managed_redis.this.id && one(azurerm_monitor_metric_alert.this["usage-hub-throttled"].scopes) == azurerm_eventhub_namespace.usage.id
    error_message = "A metric is asked of the resource that has it."
  }
  assert {
    condition     = toset(azurerm_monitor_action_group.this.email_receiver[*].email_address) == toset(var.alert_emails) && length(azurerm_monitor_action_group.this.webhook_receiver) == 0
    error_message = "Everybody listed is told."
  }
  assert {
    condition     = keys(azurerm_monitor_diagnostic_setting.workspace) == ["gateway", "ledger-blobs", "ledger-tables", "llm-logs-hub", "redis", "usage-hub", "vault"]
    error_message = jsonencode(keys(azurerm_monitor_diagnostic_setting.workspace))
  }
  assert {
    condition     = azurerm_monitor_diagnostic_setting.workspace["gateway"].log_analytics_destination_type == "Dedicated" && toset(azurerm_monitor_diagnostic_setting.workspace["gateway"].enabled_log[*].category) == toset(["GatewayLogs"])
    error_message = "The gateway's log has a table of its own, and no LLM log beside the hub's copy."
  }

  # Cost
  assert {
    condition     = toset([for notice in azurerm_consumption_budget_resource_group.this.notification : "${notice.threshold_type} ${notice.threshold}"]) == toset(["Actual 80", "Actual 100", "Forecasted 100"])
    error_message = "The last net tells before and when it is reached."
  }
  assert {
    condition     = azapi_resource.cost_export[0].identity[0].type == "SystemAssigned" && !anytrue([for grant in values(local.grants) : grant.principal == try(azapi_resource.cost_export[0].identity[0].principal_id, null)])
    error_message = "The export writes as itself, by a role that Cost Management assigns."
  }
  assert {
    condition     = azapi_resource.cost_export[0].body.properties.deliveryInfo.destination.container == azurerm_storage_container.this["cost-exports"].name
    error_message = "The export writes where it may."
  }
}

run "own_choices" {
  command = plan

  variables {
    existing_log_analytics_workspace_id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/shared/providers/Microsoft.OperationalInsights/workspaces/log-shared"
    api_management_sku                  = "Developer_1"
    private_network                     = false
    cost_export                         = false
    gateway_logs                        = false
    alert_webhook_url                   = "https://chat.contoso.com/hook"
    alert_thresholds                    = { latency = 60000, redis-memory = 90 }
  }

  assert {
    condition     = length(azurerm_log_analytics_workspace.this) == 0 && azurerm_application_insights.this.workspace_id == var.existing_log_analytics_workspace_id && output.LOG_ANALYTICS_WORKSPACE_ID == var.existing_log_analytics_workspace_id
    error_message = "A workspace that is there is used."
  }
  assert {
    condition     = one(azurerm_monitor_metric_alert.this["gateway-capacity-classic"].criteria).metric_name == "Capacity" && !contains(keys(azurerm_monitor_metric_alert.this), "gateway-capacity")
    error_message = "The classic tiers have another metric of their capacity."
  }
  assert {
    condition     = !contains(keys(azurerm_monitor_diagnostic_setting.workspace), "gateway")
    error_message = "One row per call is written only where somebody wants to pay for it."
  }
  assert {
    condition     = one(azurerm_monitor_action_group.this.webhook_receiver).service_uri == var.alert_webhook_url
    error_message = "The webhook is told too."
  }
  assert {
    condition     = one(azurerm_monitor_scheduled_query_rules_alert_v2.this["latency"].criteria).threshold == 60000 && one(azurerm_monitor_metric_alert.this["redis-memory"].criteria).threshold == 90
    error_message = "Thresholds are those that were set."
  }
  assert {
    condition     = length(azapi_resource.cost_export) == 0 && azurerm_consumption_budget_resource_group.this.amount == var.monthly_cost_budget
    error_message = "Where Azure refuses exports, everything else is there."
  }
}

run "mistakes_are_refused" {
  command = plan

  variables {
    alert_emails        = []
    alert_thresholds    = { latencies = 60000 }
    log_retention_days  = 7
    monthly_cost_budget = 0
  }

  expect_failures = [var.alert_emails, var.alert_thresholds, var.log_retention_days, var.monthly_cost_budget]
}
