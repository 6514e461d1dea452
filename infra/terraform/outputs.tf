output "AZURE_SUBSCRIPTION_ID" {
  description = "Where everything is."
  value       = var.subscription_id
}

output "AZURE_RESOURCE_GROUP" {
  description = "The resource group of everything."
  value       = local.resource_group.name
}

output "FUNCTIONS_URL" {
  description = "Base address of the function app's routes; a browser, curl and the gateway need a token for it."
  value       = local.functions_url
}

output "FUNCTIONS_NAME" {
  description = "The function app, for az functionapp and the deployment of its package."
  value       = azapi_resource.functions.name
}

output "SERVICE_FUNCTIONS_NAME" {
  description = "The same under the name that azd looks for."
  value       = azapi_resource.functions.name
}

output "FUNCTIONS_AUDIENCE" {
  description = "What a token for the function app must be asked for: az account get-access-token --resource <this>."
  value       = local.functions_audience
}

output "FUNCTIONS_PRINCIPAL_ID" {
  description = "Object id of the function app's identity."
  value       = azurerm_user_assigned_identity.functions.principal_id
}

output "GATEWAY_PRINCIPAL_ID" {
  description = "Object id of API Management's identity, which needs the app role Budget.Check: infra/entra assigns it. Empty without one."
  value       = var.api_management ? azurerm_user_assigned_identity.gateway[0].principal_id : ""
}

output "CONFIG_URL" {
  description = "Where to publish the configuration: CONFIG_URL=<this> python -m shared.config publish config/"
  value       = local.config_url
}

output "LEDGER_ACCOUNT" {
  description = "Storage account of ledger tables, statements, dead letters, captured events and cost exports."
  value       = azurerm_storage_account.ledger.name
}

output "USAGE_NAMESPACE" {
  description = "Host of the namespace of the usage hub."
  value       = "${azurerm_eventhub_namespace.usage.name}.servicebus.windows.net"
}

output "USAGE_HUB" {
  description = "The hub of usage events."
  value       = azurerm_eventhub.usage.name
}

output "LLM_LOGS_NAMESPACE" {
  description = "Host of the namespace of the gateway's LLM log."
  value       = "${azapi_resource.llm_logs_namespace.name}.servicebus.windows.net"
}

output "LLM_LOGS_HUB" {
  description = "The hub of the gateway's LLM log."
  value       = azurerm_eventhub.llm_logs.name
}
