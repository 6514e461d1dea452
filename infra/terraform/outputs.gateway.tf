output "GATEWAY_URL" {
  description = "Where clients call: this and /openai."
  value       = local.gateway.url
}

output "GATEWAY_NAME" {
  value = local.gateway.name
}

output "GATEWAY_ID" {
  value = local.gateway.id
}

output "GATEWAY_IDENTITY_ID" {
  description = "The identity that the owner of an existing API Management attaches to it."
  value       = azurerm_user_assigned_identity.gateway.id
}

output "MODEL_DEPLOYMENTS" {
  description = "Deployments of the accounts that were created here, which every region has."
  value       = distinct(local.deployments[*].name)
}

output "SUBSCRIPTIONS" {
  description = "Subscriptions of each team. Their keys are in no state: az rest --method post --url <GATEWAY_ID>/subscriptions/<id>/listSecrets?api-version=2024-05-01"
  value       = { for id, team in local.teams : id => try(team.identities.subscriptions, []) }
}
