# What Azure itself bills: the last net under the budgets of teams, and the figures to compare the ledger with.

# Budgets and exports want a date of now when they are made, and no other one ever after. To change the export, make both
# anew: terraform apply -replace=terraform_data.made_at. The plan's own time would be another one in every plan, so that none
# made later, by a pipeline after its approval, would be the one that was approved.
resource "terraform_data" "made_at" {
  input = timestamp()

  lifecycle {
    ignore_changes = [input]
  }
}

resource "azurerm_consumption_budget_resource_group" "this" {
  name              = "budget-${local.base}"
  resource_group_id = local.resource_group.id
  amount            = var.monthly_cost_budget
  time_grain        = "Monthly"

  time_period {
    start_date = formatdate("YYYY-MM-01'T'00:00:00Z", terraform_data.made_at.output)
  }

  dynamic "notification" {
    for_each = { forecast = ["Forecasted", 100], most = ["Actual", 80], all = ["Actual", 100] }
    content {
      threshold_type = notification.value[0]
      threshold      = notification.value[1]
      operator       = "GreaterThanOrEqualTo"
      contact_groups = [azurerm_monitor_action_group.this.id]
    }
  }
}

# Every day the month so far, one row per resource and meter. azurerm's export knows neither FOCUS nor an identity. Cost
# Management lets the identity write to the container, by the rights of whoever applies: a second assignment would be refused.
# Nothing waits for it, because some subscriptions refuse it.
resource "azapi_resource" "cost_export" {
  count     = var.cost_export ? 1 : 0
  type      = "Microsoft.CostManagement/exports@2025-03-01"
  name      = "focus-${local.base}"
  parent_id = local.resource_group.id
  location  = local.resource_group.location

  identity {
    type = "SystemAssigned"
  }

  body = {
    properties = {
      format                = "Csv"
      compressionMode       = "gzip"
      dataOverwriteBehavior = "OverwritePreviousReport"
      partitionData         = true
      definition = {
        type      = "FocusCost"
        timeframe = "MonthToDate"
        dataSet = {
          granularity   = "Daily"
          configuration = { dataVersion = "1.0" }
        }
      }
      deliveryInfo = {
        destination = {
          type           = "AzureBlob"
          resourceId     = azurerm_storage_account.ledger.id
          container      = azurerm_storage_container.this["cost-exports"].name
          rootFolderPath = var.environment
        }
      }
      schedule = {
        status     = "Active"
        recurrence = "Daily"
        recurrencePeriod = {
          from = timeadd(terraform_data.made_at.output, "24h") # a start in the past is refused
          to   = "2099-12-31T00:00:00Z"
        }
      }
    }
  }

  replace_triggers_refs  = ["properties"] # an update is refused without the export's newest eTag
  response_export_values = []
}
