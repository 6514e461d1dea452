data "azurerm_client_config" "current" {}

resource "azurerm_resource_group" "this" {
  count    = var.existing_resource_group_name == null ? 1 : 0
  name     = local.names.resource_group
  location = var.location
  tags     = local.tags
}

data "azurerm_resource_group" "existing" {
  count = var.existing_resource_group_name == null ? 0 : 1
  name  = var.existing_resource_group_name
}

locals {
  resource_group = {
    name     = one(concat(azurerm_resource_group.this[*].name, data.azurerm_resource_group.existing[*].name))
    id       = one(concat(azurerm_resource_group.this[*].id, data.azurerm_resource_group.existing[*].id))
    location = var.location
  }
}

# The function app works as this identity, towards storage, hubs, Redis, Key Vault and telemetry.
resource "azurerm_user_assigned_identity" "functions" {
  name                = local.names.functions_identity
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  tags                = local.tags
}

# API Management works as this identity, towards models, the usage hub, the function app and telemetry.
resource "azurerm_user_assigned_identity" "gateway" {
  count               = var.api_management ? 1 : 0
  name                = local.names.gateway_identity
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  tags                = local.tags
}
