# Every role assignment: who may do what on which scope. Redis has its own kind, in main.data.tf; the cost export's role is given
# by Cost Management when it makes the export.
# Nothing that a scope or a principal here is read from may wait for a role, or Terraform would go in circles: hence the hubs'
# namespaces, each with a single hub, and not the hubs.

locals {
  functions_principal = azurerm_user_assigned_identity.functions.principal_id
  gateway_principal   = one(azurerm_user_assigned_identity.gateway[*].principal_id)
  builtin_principal   = one(azurerm_user_assigned_identity.builtin[*].principal_id)

  publishers = length(var.config_publishers) > 0 ? var.config_publishers : [data.azurerm_client_config.current.object_id]

  grants = merge({
    # The host: checkpoints, locks, its package; events of its own health
    functions-host-blobs  = { scope = azurerm_storage_account.host.id, role = "Storage Blob Data Owner", principal = local.functions_principal }
    functions-host-tables = { scope = azurerm_storage_account.host.id, role = "Storage Table Data Contributor", principal = local.functions_principal }

    # The books
    functions-ledger       = { scope = azurerm_storage_account.ledger.id, role = "Storage Table Data Contributor", principal = local.functions_principal }
    functions-statements   = { scope = azurerm_storage_container.this["statements"].id, role = "Storage Blob Data Contributor", principal = local.functions_principal }
    functions-dead-letters = { scope = azurerm_storage_container.this["tollkeeper-dead-letters"].id, role = "Storage Blob Data Contributor", principal = local.functions_principal }
    functions-config       = { scope = azurerm_storage_container.this["config"].id, role = "Storage Blob Data Contributor", principal = local.functions_principal } # budgets are edited in the dashboard
    functions-exports      = { scope = azurerm_storage_container.this["ledger-export"].id, role = "Storage Blob Data Contributor", principal = local.functions_principal }
    functions-invoice      = { scope = azurerm_storage_container.this["cost-exports"].id, role = "Storage Blob Data Reader", principal = local.functions_principal }

    # The hubs: ingest reads; true-ups, POST /usage and replays write
    functions-usage-receive    = { scope = azurerm_eventhub_namespace.usage.id, role = "Azure Event Hubs Data Receiver", principal = local.functions_principal }
    functions-usage-send       = { scope = azurerm_eventhub_namespace.usage.id, role = "Azure Event Hubs Data Sender", principal = local.functions_principal }
    functions-llm-logs-receive = { scope = azapi_resource.llm_logs_namespace.id, role = "Azure Event Hubs Data Receiver", principal = local.functions_principal }
    functions-llm-logs-send    = { scope = azapi_resource.llm_logs_namespace.id, role = "Azure Event Hubs Data Sender", principal = local.functions_principal }

    functions-secrets = { scope = azurerm_key_vault.this.id, role = "Key Vault Secrets User", principal = local.functions_principal }
    functions-metrics = { scope = azurerm_application_insights.this.id, role = "Monitoring Metrics Publisher", principal = local.functions_principal }

    capture-write = { scope = azurerm_storage_container.this["usage-capture"].id, role = "Storage Blob Data Contributor", principal = azurerm_eventhub_namespace.usage.identity[0].principal_id }
    }, !var.api_management ? {} : merge({
      gateway-usage-send = { scope = azurerm_eventhub_namespace.usage.id, role = "Azure Event Hubs Data Sender", principal = local.gateway_principal }
      gateway-metrics    = { scope = azurerm_application_insights.this.id, role = "Monitoring Metrics Publisher", principal = local.gateway_principal }
      }, {
      for key, model in local.models :
      "gateway-models-${key}" => { scope = model.id, role = "Cognitive Services OpenAI User", principal = local.gateway_principal }
      }), !local.has_builtin ? {} : merge({
      # The built-in gateway faces the internet: of the vault it reads the secrets that it is told of, and of storage the configuration
      builtin-config     = { scope = azurerm_storage_container.this["config"].id, role = "Storage Blob Data Reader", principal = local.builtin_principal }
      builtin-usage-send = { scope = azurerm_eventhub_namespace.usage.id, role = "Azure Event Hubs Data Sender", principal = local.builtin_principal }
      builtin-metrics    = { scope = azurerm_application_insights.this.id, role = "Monitoring Metrics Publisher", principal = local.builtin_principal }
      }, {
      for secret in values(local.builtin_secrets) :
      "builtin-secret-${secret}" => { scope = "${azurerm_key_vault.this.id}/secrets/${secret}", role = "Key Vault Secrets User", principal = local.builtin_principal }
      }, {
      for key, model in local.models :
      "builtin-models-${key}" => { scope = model.id, role = "Cognitive Services OpenAI User", principal = local.builtin_principal }
      }, {
      for key in local.pulls_by_identity ? ["builtin-pull"] : [] :
      key => { scope = local.builtin_registry.id, role = "AcrPull", principal = local.builtin_principal }
    }), {
    for publisher in local.publishers :
    "config-publisher-${publisher}" => { scope = azurerm_storage_container.this["config"].id, role = "Storage Blob Data Contributor", principal = publisher }
  })
}

resource "azurerm_role_assignment" "this" {
  for_each             = local.grants
  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = each.value.principal

  # Says that the principal may be too new for Entra ID to find. Who publishes may be a person, a group or a pipeline.
  principal_type = startswith(each.key, "config-publisher-") ? null : "ServicePrincipal"

  depends_on = [azapi_resource_action.reservation_keys] # a role on one secret needs it there
}
