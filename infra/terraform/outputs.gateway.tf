output "GATEWAY_URL" {
  description = "Where clients call API Management: this and /openai. Empty without one, as the others of its own."
  value       = var.api_management ? local.gateway.url : ""
}

output "GATEWAY_NAME" {
  value = var.api_management ? local.gateway.name : ""
}

output "GATEWAY_ID" {
  value = var.api_management ? local.gateway.id : ""
}

output "GATEWAY_IDENTITY_ID" {
  description = "The identity that the owner of an existing API Management attaches to it."
  value       = var.api_management ? azurerm_user_assigned_identity.gateway[0].id : ""
}

output "MODEL_DEPLOYMENTS" {
  description = "Deployments of the accounts that were created here, which every region has."
  value       = distinct(local.deployments[*].name)
}

output "SUBSCRIPTIONS" {
  description = "Subscriptions of each team. Their keys are in no state: az rest --method post --url <GATEWAY_ID>/subscriptions/<id>/listSecrets?api-version=2024-05-01"
  value       = { for id, team in local.teams : id => try(team.identities.subscriptions, []) }
}
