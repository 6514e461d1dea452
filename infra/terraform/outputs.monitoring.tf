output "LOG_ANALYTICS_WORKSPACE_ID" {
  description = "Where all logs are."
  value       = local.workspace_id
}

output "WORKBOOK_ID" {
  description = "The workbook: spend, budgets, savings, quality, health."
  value       = azurerm_application_insights_workbook.this.id
}
