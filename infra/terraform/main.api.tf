# What apim-policies says, on the gateway. Named values, logger and backends come first, then fragments, then the API and its
# policy: each refuses a name that is not there yet.

locals {
  config_path = startswith(var.config_path, "/") ? var.config_path : "${path.module}/${var.config_path}"

  config = {
    for name in ["models", "tenants"] : name => try(yamldecode(file("${local.config_path}/${name}.yaml")), {})
  }
  teams = {
    for file in fileset(local.config_path, "teams/**/*.yaml") :
    yamldecode(file("${local.config_path}/${file}")).team => yamldecode(file("${local.config_path}/${file}"))
  }

  # As shared/config/named_values.py makes it.
  config_digest = sha256(join("", [
    for file in sort(setunion(fileset(local.config_path, "{models,tenants}.yaml"), fileset(local.config_path, "teams/**/*.yaml"))) :
    "${file} ${filesha256("${local.config_path}/${file}")}\n"
  ]))
}

# Named values

locals {
  named_value_list = yamldecode(file("${local.policies}/named-values.yaml"))

  entra_issuer = "https://login.microsoftonline.com/${data.azurerm_client_config.current.tenant_id}/v2.0"

  # What Azure decides. No named value is a secret: the gateway's own identity opens every door behind it.
  named_values_of_azure = {
    tk-retry-count         = tostring(max(1, length(local.models) - 1)) # once for every other backend
    tk-service-url         = local.functions_url
    tk-service-audience    = local.functions_audience
    tk-identity-client-id  = one(azurerm_user_assigned_identity.gateway[*].client_id)
    tk-entra-openid-config = "${local.entra_issuer}/.well-known/openid-configuration"
    tk-entra-issuer        = local.entra_issuer
    tk-entra-audience      = coalesce(var.entra_gateway_client_id, var.entra_client_id) # a token of version 2 is for a client id
  }
  named_values = merge(
    { for value in local.named_value_list : value.name => tostring(value.default) },
    local.named_values_of_azure,
    var.generated_named_values,
    var.named_values,
  )
}

resource "azurerm_api_management_named_value" "this" {
  for_each            = { for name, value in local.named_values : name => value if var.api_management }
  name                = each.key
  display_name        = each.key
  value               = each.value
  api_management_name = local.gateway.name
  resource_group_name = local.gateway.resource_group_name
}

# Policies

resource "azurerm_api_management_policy_fragment" "this" {
  for_each          = { for name, file in local.fragments : name => file if var.api_management }
  name              = each.key
  api_management_id = local.gateway.id
  format            = "rawxml"
  value             = local.raw_policies[each.key]

  # The names that fragments have for others are checked when they are saved.
  depends_on = [
    azapi_resource.model_pool,
    azurerm_api_management_logger.usage,
    azurerm_api_management_named_value.this,
  ]
}

resource "azurerm_api_management_api" "openai" {
  count                 = var.api_management ? 1 : 0
  name                  = "openai"
  display_name          = "OpenAI"
  api_management_name   = local.gateway.name
  resource_group_name   = local.gateway.resource_group_name
  revision              = "1"
  path                  = "openai"
  protocols             = ["https"]
  subscription_required = false # or callers with a token alone would be turned away before any policy runs

  subscription_key_parameter_names {
    header = "api-key"
    query  = "subscription-key"
  }

  import {
    content_format = "openapi+json"
    # Without its servers: an import from text refuses an address that is relative to where the text came from.
    content_value = jsonencode({ for key, value in yamldecode(file("${local.policies}/openai-api.yaml")) : key => value if key != "servers" })
  }
}

resource "azurerm_api_management_api_policy" "openai" {
  count               = var.api_management ? 1 : 0
  api_name            = azurerm_api_management_api.openai[0].name
  api_management_name = local.gateway.name
  resource_group_name = local.gateway.resource_group_name
  xml_content         = local.raw_policies.openai

  depends_on = [
    azapi_resource.model_pool,
    azurerm_api_management_logger.usage,
    azurerm_api_management_named_value.this,
    azurerm_api_management_policy_fragment.this,
  ]
}

# Diagnostics of the API

# azurerm does not know largeLanguageModel. Its `requests` and `responses` stay out: they would send prompts and answers.
resource "azapi_resource" "llm_diagnostics" {
  count     = var.api_management ? 1 : 0
  type      = "Microsoft.ApiManagement/service/apis/diagnostics@2024-10-01-preview"
  name      = "azuremonitor"
  parent_id = "${local.gateway.id}/apis/${azurerm_api_management_api.openai[0].name}" # the API's own id ends in its revision
  body = {
    properties = {
      loggerId           = azapi_resource_action.monitor_logger[0].resource_id
      alwaysLog          = "allErrors"
      verbosity          = "information"
      logClientIp        = false
      sampling           = { samplingType = "fixed", percentage = 100 } # streams are billed by it
      frontend           = { request = local.no_content, response = local.no_content }
      backend            = { request = local.no_content, response = local.no_content }
      largeLanguageModel = { logs = "enabled" }
    }
  }
  response_export_values = []
}

locals {
  no_content = { headers = [], body = { bytes = 0 } }
}

resource "azurerm_api_management_api_diagnostic" "insights" {
  count                     = var.api_management ? 1 : 0
  identifier                = "applicationinsights"
  api_name                  = azurerm_api_management_api.openai[0].name
  api_management_name       = local.gateway.name
  resource_group_name       = local.gateway.resource_group_name
  api_management_logger_id  = azurerm_api_management_logger.insights[0].id
  sampling_percentage       = var.request_sampling_percentage
  always_log_errors         = true
  log_client_ip             = false
  verbosity                 = "information"
  http_correlation_protocol = "W3C"

  # Bodies would be prompts and answers; reading a stream's would hold it back.
  frontend_request {
    body_bytes = 0
  }
  frontend_response {
    body_bytes = 0
  }
  backend_request {
    body_bytes = 0
  }
  backend_response {
    body_bytes = 0
  }
}

# Who has keys

locals {
  shared_product = "llm"
  products       = toset(concat([local.shared_product], flatten([for team in local.teams : try(team.identities.products, [])])))

  # A key's product says whose it is where the team lists products, so its subscriptions are of the first of them.
  subscriptions = merge([
    for id, team in local.teams : {
      for subscription in try(team.identities.subscriptions, []) :
      subscription => { team = id, product = try(team.identities.products[0], local.shared_product) }
    }
  ]...)
}

resource "azurerm_api_management_product" "this" {
  for_each              = toset([for product in local.products : product if var.api_management])
  product_id            = each.key
  display_name          = each.key
  api_management_name   = local.gateway.name
  resource_group_name   = local.gateway.resource_group_name
  published             = true
  subscription_required = true
  approval_required     = true # a key that somebody gave himself would be of no team

  lifecycle {
    precondition {
      condition     = !contains(flatten([for team in local.teams : try(team.identities.products, [])]), local.shared_product)
      error_message = "config/teams: a team lists the product ${local.shared_product}, which the subscriptions of all teams without a product share; every one of their calls would be billed to it."
    }
  }
}

resource "azurerm_api_management_product_api" "this" {
  for_each            = azurerm_api_management_product.this
  product_id          = each.value.product_id
  api_name            = azurerm_api_management_api.openai[0].name
  api_management_name = local.gateway.name
  resource_group_name = local.gateway.resource_group_name
}

# By azapi, because azurerm would read the keys into the state. Whoever needs one fetches it with listSecrets.
resource "azapi_resource" "subscription" {
  for_each  = { for id, subscription in local.subscriptions : id => subscription if var.api_management }
  type      = "Microsoft.ApiManagement/service/subscriptions@2024-05-01"
  name      = each.key
  parent_id = local.gateway.id
  body = {
    properties = {
      displayName  = each.key
      scope        = azurerm_api_management_product.this[each.value.product].id
      state        = "active"
      allowTracing = false
    }
  }
  response_export_values = [] # the answer to a new one holds its keys
}
