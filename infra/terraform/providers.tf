provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true # the accounts refuse keys

  resource_providers_to_register = [
    "Microsoft.AlertsManagement",
    "Microsoft.ApiManagement",
    "Microsoft.App", # the network side of Flex Consumption; the built-in gateway
    "Microsoft.Cache",
    "Microsoft.CognitiveServices",
    "Microsoft.ContainerRegistry",
    "Microsoft.CostManagement",
    "Microsoft.CostManagementExports",
    "Microsoft.EventHub",
    "Microsoft.Insights",
    "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity",
    "Microsoft.Network",
    "Microsoft.OperationalInsights",
    "Microsoft.Storage",
    "Microsoft.Web",
  ]

  features {
    storage {
      data_plane_available = false # the machine that applies may have no way to a private account's data
    }
    api_management {
      purge_soft_delete_on_destroy = true # else the name stays taken for 48 hours
      recover_soft_deleted         = true
    }
    key_vault {
      purge_soft_delete_on_destroy    = false # purge protection forbids it
      recover_soft_deleted_key_vaults = true  # so an apply after a destroy finds its name free
    }
    cognitive_account {
      purge_soft_delete_on_destroy = true
    }
    application_insights {
      disable_generated_rule = true # an alert that nobody declared, and whose remains would keep the group from being destroyed
    }
  }
}

provider "azapi" {
  subscription_id = var.subscription_id
}
