# The built-in gateway: there when it is asked for, in the place of API Management where that is not, from an image that is
# there, and open to whom it should be.

mock_provider "azurerm" {
  source          = "./tests/mocks"
  override_during = plan
}
mock_provider "azapi" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  subscription_id     = "00000000-0000-4000-8000-000000000000"
  environment         = "test"
  location            = "swedencentral"
  entra_client_id     = "00000000-0000-4000-8000-000000000011"
  alert_emails        = ["platform@contoso.com"]
  monthly_cost_budget = 1000

  config_path   = "./tests/config"
  config_digest = "c34b2339dfdf65840ade7e42441e2abd0b75acba4cbbdb92f4d4dce280c1abcf"
  model_regions = {
    swc = { location = "swedencentral", priority = 2, deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
    weu = { location = "westeurope", priority = 1, deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
  }
}

run "before_the_first_image_there_is_a_registry_and_no_app" {
  command = plan
  variables {
    builtin_gateway = {}
    api_management  = false
    private_network = false
    zone_redundant  = false
    model_regions   = {}
  }

  assert {
    condition     = !contains(keys(local.builtin_settings["builtin"]), "AZURE_OPENAI_ENDPOINT")
    error_message = "Where only the built-in gateway is called, config/models.yaml may say alone where models are."
  }
  assert {
    condition     = length(azurerm_container_app.builtin) == 0 && length(azurerm_container_registry.this) == 1
    error_message = "An app whose image cannot be pulled would fail the apply that makes its registry."
  }
  assert {
    condition     = output.BUILTIN_GATEWAY_URL == "" && output.BUILTIN_GATEWAY_ID == "" && output.CONTAINER_REGISTRY_ID != ""
    error_message = "make deploy tells by these what is still to be done."
  }
  assert {
    condition     = azurerm_role_assignment.this["builtin-pull"].role_definition_name == "AcrPull"
    error_message = "The role is there before the app that pulls by it."
  }
  assert {
    condition     = azurerm_container_app_environment.this[0].infrastructure_subnet_id == null && length(azurerm_network_security_rule.containers_https) == 0
    error_message = "There is no network to stand in."
  }
  assert {
    condition     = !contains(keys(azurerm_monitor_metric_alert.this), "builtin-failed")
    error_message = "Nothing is measured of what is not there."
  }
}

run "of_a_network_alone_with_an_image_of_others" {
  command = plan
  variables {
    api_management  = false
    secret_settings = ["PSEUDONYM_KEY", "ALERT_SLACK"]
    settings        = { HOLD_TTL_SECONDS = "600", MAIL_FROM = "a@contoso.com" }
    builtin_gateway = {
      external        = false
      image           = "contoso.azurecr.io/platform/tollkeeper-gateway:1.4.0"
      registry_id     = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/shared/providers/Microsoft.ContainerRegistry/registries/contoso"
      cpu             = 0.5
      replicas        = { least = 3, most = 30 }
      settings        = { SPOOL_DIR = "/elsewhere", DEFAULT_OUTPUT_TOKENS = "700" }
      secret_settings = ["ANTHROPIC_API_KEY"]
    }
  }

  assert {
    condition     = length(azurerm_container_registry.this) == 0 && azurerm_container_app.builtin[0].template[0].container[0].image == "contoso.azurecr.io/platform/tollkeeper-gateway:1.4.0"
    error_message = "The image is the one that is named, and no registry is made beside it."
  }
  assert {
    condition     = azurerm_container_app.builtin[0].registry[0].server == "contoso.azurecr.io" && endswith(azurerm_role_assignment.this["builtin-pull"].scope, "/registries/contoso")
    error_message = "It is pulled by the identity, which has the role there."
  }
  assert {
    condition     = azurerm_container_app_environment.this[0].internal_load_balancer_enabled && azurerm_container_app_environment.this[0].public_network_access == "Disabled" && length(azurerm_network_security_rule.containers_https) == 0
    error_message = "Nothing from outside of the network reaches it."
  }
  assert {
    condition     = azurerm_private_dns_a_record.containers[0].name == "*" && length(azurerm_private_dns_zone_virtual_network_link.containers) == 1
    error_message = "In the network its name leads to it."
  }
  assert {
    condition     = azurerm_subnet.this["containers"].address_prefixes[0] == "10.64.0.192/26"
    error_message = "It stands in the fourth quarter; the others stay where they were."
  }
  assert {
    condition = { for one in azurerm_container_app.builtin[0].template[0].container[0].env : one.name => one.secret_name if one.secret_name != null && one.secret_name != "" } == {
      RESERVATION_KEYS = "reservation-keys", PSEUDONYM_KEY = "pseudonym-key", ANTHROPIC_API_KEY = "anthropic-api-key"
    }
    error_message = "Its own secrets, and those that both must share: without PSEUDONYM_KEY it would count people under other names than the ledger."
  }
  assert {
    condition     = [for name in ["HOLD_TTL_SECONDS", "MAIL_FROM", "SPOOL_DIR", "DEFAULT_OUTPUT_TOKENS", "AZURE_OPENAI_ENDPOINT"] : lookup(local.builtin_settings["builtin"], name, "")] == ["600", "", "/spool", "700", "https://${local.names.models}-weu.openai.azure.com"]
    error_message = "Shared ones come along, the templates' own go before those that are added, and the nearest models serve."
  }
  assert {
    condition     = [azurerm_container_app.builtin[0].template[0].min_replicas, azurerm_container_app.builtin[0].template[0].max_replicas, azurerm_container_app.builtin[0].template[0].container[0].memory] == [3, 30, "1Gi"]
    error_message = "As many as were asked for, with the memory that goes with the processor."
  }
  assert {
    condition     = contains(keys(azurerm_monitor_metric_alert.this), "builtin-failed") && contains(keys(azurerm_monitor_diagnostic_setting.workspace), "containers")
    error_message = "It is watched."
  }

  # tests/infra/test_without_api_management.py holds what else is not there.
  assert {
    condition     = keys(azurerm_subnet.this) == ["containers", "endpoints", "functions"]
    error_message = "No subnet waits for an API Management that nobody asked for."
  }
  assert {
    condition     = [output.GATEWAY_URL, output.GATEWAY_NAME, output.GATEWAY_ID, output.GATEWAY_IDENTITY_ID, output.GATEWAY_PRINCIPAL_ID] == ["", "", "", "", ""]
    error_message = "The scripts tell by these that there is none."
  }
}

run "refuses_what_could_not_be_reached_pulled_or_run_and_what_is_of_an_api_management_that_is_not_there" {
  command = plan
  variables {
    api_management = false
    existing_api_management = {
      id          = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-apim/providers/Microsoft.ApiManagement/service/apim-theirs"
      gateway_url = "https://api.contoso.com"
      location    = "westeurope"
      sku         = "PremiumV2"
    }
    named_values        = { tk-enforcement = "off" }
    private_network     = false
    zone_redundant      = true
    builtin_gateway_tag = "not a tag"
    builtin_gateway = {
      external        = false
      image           = "tollkeeper-gateway"
      cpu             = 2
      replicas        = { least = 1 }
      settings        = { ANTHROPIC_API_KEY = "sk-in-the-state" }
      secret_settings = ["gateway-keys"]
    }
  }
  expect_failures = [var.builtin_gateway, var.builtin_gateway_tag, var.existing_api_management, var.named_values]
}

run "refuses_a_network_of_others_without_a_subnet_for_either_gateway" {
  command = plan
  variables {
    builtin_gateway  = {}
    existing_network = { virtual_network_id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v", subnet_ids = { functions = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/b", endpoints = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/c" } }
  }
  expect_failures = [var.existing_api_management, var.builtin_gateway]
}
