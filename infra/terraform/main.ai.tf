# The models: one account per region, and those of others. main.gateway.tf makes a backend of each.

resource "azurerm_cognitive_account" "this" {
  for_each                      = var.model_regions
  name                          = "${local.names.models}-${each.key}"
  resource_group_name           = local.resource_group.name
  location                      = each.value.location
  kind                          = "AIServices"
  sku_name                      = "S0"
  custom_subdomain_name         = "${local.names.models}-${each.key}" # tokens of Entra ID and private endpoints need one
  project_management_enabled    = true
  local_auth_enabled            = false
  public_network_access_enabled = !var.private_network
  tags                          = local.tags

  identity {
    type = "SystemAssigned" # what projects ask for; it is granted nothing
  }
}

resource "azurerm_cognitive_deployment" "this" {
  for_each               = { for deployment in local.deployments : "${deployment.region}/${deployment.name}" => deployment }
  name                   = each.value.name
  cognitive_account_id   = azurerm_cognitive_account.this[each.value.region].id
  version_upgrade_option = "OnceCurrentVersionExpired" # another version may have another price: until then a person decides

  model {
    format  = each.value.format
    name    = each.value.model
    version = each.value.version
  }
  sku {
    name     = each.value.sku
    capacity = each.value.capacity
  }
}

locals {
  deployments = flatten([
    for key, region in var.model_regions : [for name, deployment in region.deployments : merge(deployment, { region = key, name = name })]
  ])

  models = merge(
    {
      for key, account in azurerm_cognitive_account.this : key => {
        id = account.id
        # The account's `endpoint` is its cognitiveservices.azure.com address, which does not serve /openai/v1.
        endpoint = "https://${account.custom_subdomain_name}.openai.azure.com"
        priority = var.model_regions[key].priority
        weight   = var.model_regions[key].weight
      }
    },
    {
      for key, account in var.existing_models : key => {
        id       = account.id
        endpoint = trimsuffix(account.endpoint, "/")
        priority = account.priority
        weight   = account.weight
      }
    },
  )
}

# A warning, because the accounts of others, other providers and deployments made by hand are not seen here.
check "configured_deployments_exist" {
  assert {
    condition     = length(var.existing_models) > 0 || length(var.model_regions) == 0 || length(local.missing_deployments) == 0
    error_message = "config/models.yaml names deployments that no region has, so calls for them end in 404: ${join(", ", local.missing_deployments)}"
  }
}

locals {
  missing_deployments = setsubtract(
    flatten([for model in try(local.config.models.models, []) : try(model.deployments, [model.id])]),
    local.deployments[*].name,
  )
}
