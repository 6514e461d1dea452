output "client_id" {
  description = "entra_client_id of infra/terraform."
  value       = azuread_application.this["service"].client_id
}

output "gateway_client_id" {
  description = "entra_gateway_client_id of infra/terraform."
  value       = azuread_application.this["gateway"].client_id
}

output "audience" {
  description = "What tokens for the function app are asked for: az account get-access-token --resource <this>."
  value       = azuread_application_identifier_uri.this["service"].identifier_uri
}

output "gateway_audience" {
  description = "What callers of models ask tokens for."
  value       = azuread_application_identifier_uri.this["gateway"].identifier_uri
}

output "gateways" {
  description = "Object ids of who holds Budget.Check."
  value       = [for key, given in azuread_app_role_assignment.this : given.principal_object_id if startswith(key, "Budget.Check/")]
}
