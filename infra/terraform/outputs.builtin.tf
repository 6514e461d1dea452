output "BUILTIN_GATEWAY_URL" {
  description = "Where clients call the built-in gateway: this and /v1 or /openai. Empty without one."
  value       = local.has_builtin_app ? "https://${azurerm_container_app.builtin[0].ingress[0].fqdn}" : ""
}

output "BUILTIN_GATEWAY_ID" {
  value = local.has_builtin_app ? azurerm_container_app.builtin[0].id : ""
}

output "CONTAINER_REGISTRY_ID" {
  description = "The registry that `make deploy` builds the built-in gateway's image in. Empty where it is another's."
  value       = local.own_registry ? azurerm_container_registry.this[0].id : ""
}
