# The gateway: who gets a key, what is refused and why, and that the policies are those that the tests execute.

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

  # A small configuration of its own: a team with products, one with a key only, one of people.
  config_path   = "./tests/config"
  config_digest = "c34b2339dfdf65840ade7e42441e2abd0b75acba4cbbdb92f4d4dce280c1abcf"
  model_regions = {
    swc = { location = "swedencentral", deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
  }
}

run "per_team" {
  command = plan

  assert {
    condition     = keys(azapi_resource.subscription) == ["gold-prod", "gold-test", "plain-prod"]
    error_message = "Every subscription of the team files exists, and no other: ${jsonencode(keys(azapi_resource.subscription))}"
  }
  assert {
    condition     = { for id, subscription in local.subscriptions : id => subscription.product } == { gold-prod = "gold", gold-test = "gold", plain-prod = "llm" }
    error_message = "A key is of its team's first product, and of the shared one where the team lists none: ${jsonencode(local.subscriptions)}"
  }
  assert {
    condition     = keys(azurerm_api_management_product_api.this) == ["gold", "llm", "silver"]
    error_message = "Every product opens the API: ${jsonencode(keys(azurerm_api_management_product_api.this))}"
  }
  assert {
    condition     = alltrue([for product in values(azurerm_api_management_product.this) : product.subscription_required && product.approval_required])
    error_message = "A product without subscription would let callers in whom nobody knows."
  }
  assert {
    condition     = alltrue([for subscription in values(azapi_resource.subscription) : subscription.body.properties.state == "active" && !subscription.body.properties.allowTracing])
    error_message = "Keys work, and show nobody what the policies do."
  }
  assert {
    condition     = output.SUBSCRIPTIONS == { gold = ["gold-prod", "gold-test"], people = [], plain = ["plain-prod"] }
    error_message = jsonencode(output.SUBSCRIPTIONS)
  }
}

run "one_private_region" {
  command = plan

  # The API, which asks for no subscription
  assert {
    condition     = azurerm_api_management_api.openai[0].path == "openai" && !azurerm_api_management_api.openai[0].subscription_required && azurerm_api_management_api.openai[0].subscription_key_parameter_names[0].header == "api-key"
    error_message = "Clients of OpenAI call /openai with a key in api-key, or with a token and no key at all."
  }
  assert {
    condition     = jsondecode(azurerm_api_management_api.openai[0].import[0].content_value).paths == yamldecode(file("../../apim-policies/openai-api.yaml")).paths
    error_message = "The operations are those of apim-policies/openai-api.yaml."
  }

  # The gateway leaves through the network
  assert {
    condition     = azurerm_api_management.this[0].virtual_network_type == "External" && azurerm_api_management.this[0].virtual_network_configuration[0].subnet_id == local.subnet_ids.gateway
    error_message = "Without the network the gateway reaches neither hub, nor models, nor the budget service."
  }
  assert {
    condition     = alltrue([for account in values(azurerm_cognitive_account.this) : !account.public_network_access_enabled && !account.local_auth_enabled])
    error_message = "Models take no keys, and calls from inside only."
  }

  # One region tells its own 429
  assert {
    condition     = azurerm_api_management_backend.models["swc"].circuit_breaker_rule[0].failure_condition[0].status_code_range[*].min == tolist([500])
    error_message = "Nothing else would serve the call: the caller gets the model's 429 with its Retry-After, not a 503."
  }

  # Policies are the tested files
  assert {
    condition     = toset(keys(azurerm_api_management_policy_fragment.this)) == toset([for file in fileset("../../apim-policies/fragments", "*.xml") : trimsuffix(file, ".xml")])
    error_message = "Every fragment file is a fragment, and nothing else is."
  }
  # tests/infra/test_raw_policies.py reads the files back from local.raw_policies.
  assert {
    condition     = alltrue([for name, fragment in azurerm_api_management_policy_fragment.this : fragment.format == "rawxml" && fragment.value == local.raw_policies[name]])
    error_message = "A fragment is not its file."
  }
  assert {
    condition     = azurerm_api_management_api_policy.openai[0].xml_content == local.raw_policies.openai
    error_message = "The API's policy is not the four section files."
  }

  # Named values are complete
  assert {
    condition     = toset(keys(azurerm_api_management_named_value.this)) == toset(yamldecode(file("../../apim-policies/named-values.yaml"))[*].name)
    error_message = "The gateway has every named value that the policies read, and no other."
  }
  assert {
    condition     = alltrue([for value in values(azurerm_api_management_named_value.this) : length(value.value) > 0 && !strcontains(value.value, "127.0.0.1")])
    error_message = "A named value is empty, or still has the laptop's address."
  }
  assert {
    condition = {
      for name in ["tk-service-url", "tk-service-audience", "tk-entra-audience", "tk-entra-issuer", "tk-entra-openid-config", "tk-identity-client-id"] :
      name => azurerm_api_management_named_value.this[name].value
      } == {
      tk-service-url         = local.functions_url
      tk-service-audience    = "api://00000000-0000-4000-8000-000000000011"
      tk-entra-audience      = "00000000-0000-4000-8000-000000000011"
      tk-entra-issuer        = "https://login.microsoftonline.com/00000000-0000-4000-8000-00000000000a/v2.0"
      tk-entra-openid-config = "https://login.microsoftonline.com/00000000-0000-4000-8000-00000000000a/v2.0/.well-known/openid-configuration"
      tk-identity-client-id  = azurerm_user_assigned_identity.gateway[0].client_id
    }
    error_message = "What Azure decides is Azure's, not the laptop's."
  }
  assert {
    condition     = azurerm_api_management_logger.usage[0].name == azurerm_api_management_named_value.this["tk-usage-logger"].value && azapi_resource.model_pool[0].name == azurerm_api_management_named_value.this["tk-backend-id"].value
    error_message = "Logger and pool have the names that the policies look for."
  }
  assert {
    condition     = azurerm_api_management_named_value.this["tk-deployments"].value == var.generated_named_values["tk-deployments"]
    error_message = "What the configuration says is on the gateway."
  }

  # Logs carry counts only
  assert {
    condition     = azapi_resource.llm_diagnostics[0].body.properties.largeLanguageModel == { logs = "enabled" } && azapi_resource.llm_diagnostics[0].body.properties.sampling.percentage == 100
    error_message = "The LLM log has the tokens of every call, and neither prompts nor answers."
  }
  assert {
    condition = alltrue([for side in [azapi_resource.llm_diagnostics[0].body.properties.frontend, azapi_resource.llm_diagnostics[0].body.properties.backend] :
    side.request.body.bytes == 0 && side.response.body.bytes == 0])
    error_message = "No bodies in the gateway's log."
  }
  assert {
    condition = alltrue([for side in [
      azurerm_api_management_api_diagnostic.insights[0].frontend_request, azurerm_api_management_api_diagnostic.insights[0].frontend_response,
      azurerm_api_management_api_diagnostic.insights[0].backend_request, azurerm_api_management_api_diagnostic.insights[0].backend_response,
    ] : side[0].body_bytes == 0])
    error_message = "No bodies in Application Insights."
  }
  assert {
    condition     = toset(azurerm_monitor_diagnostic_setting.llm_logs[0].enabled_log[*].category) == toset(["GatewayLlmLogs", "GatewayLogs"]) && azurerm_monitor_diagnostic_setting.llm_logs[0].eventhub_name == azurerm_eventhub.llm_logs.name
    error_message = "Both logs go to the hub: one has the tokens of streams, the other tells which were cut off."
  }

  # Loggers have no keys
  assert {
    condition     = azurerm_api_management_logger.usage[0].eventhub[0].connection_string == null && azurerm_api_management_logger.usage[0].eventhub[0].user_assigned_identity_client_id == azurerm_user_assigned_identity.gateway[0].client_id
    error_message = "Usage events are sent by the gateway's identity."
  }
  assert {
    condition     = azurerm_api_management_logger.usage[0].eventhub[0].endpoint_uri == "${azurerm_eventhub_namespace.usage.name}.servicebus.windows.net"
    error_message = "The logger's endpoint is the namespace without scheme or hub: ${azurerm_api_management_logger.usage[0].eventhub[0].endpoint_uri}"
  }
  assert {
    condition     = azurerm_api_management_logger.insights[0].application_insights[0].identity_client_id == azurerm_user_assigned_identity.gateway[0].client_id
    error_message = "Traces are sent by the gateway's identity."
  }
}

run "quick_start_gateway" {
  command = plan

  variables {
    private_network    = false
    api_management_sku = "Developer_1"
  }
  assert {
    condition     = azurerm_api_management.this[0].virtual_network_type == "None" && azurerm_api_management.this[0].sku_name == "Developer_1"
    error_message = "Without a private network every tier but Consumption is taken."
  }
  assert {
    condition     = alltrue([for account in values(azurerm_cognitive_account.this) : account.public_network_access_enabled && !account.local_auth_enabled])
    error_message = "Public, and still without keys."
  }
}

run "multi_region" {
  command = plan

  variables {
    model_regions = {
      frc = { location = "francecentral", priority = 2, weight = 3, deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
      swc = { location = "swedencentral", deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
    }
  }
  assert {
    condition     = { for key, account in azurerm_cognitive_account.this : key => account.location } == { frc = "francecentral", swc = "swedencentral" }
    error_message = "One account per region."
  }
  assert {
    condition     = keys(azurerm_cognitive_deployment.this) == ["frc/gpt-4o-weu", "swc/gpt-4o-weu"]
    error_message = "Every deployment in every region: ${jsonencode(keys(azurerm_cognitive_deployment.this))}"
  }
  assert {
    condition     = { for key, backend in azurerm_api_management_backend.models : key => endswith(backend.url, "-${key}.openai.azure.com/openai") } == { frc = true, swc = true }
    error_message = "Each backend is its region's account, up to and including /openai: ${jsonencode(values(azurerm_api_management_backend.models)[*].url)}"
  }
  assert {
    condition     = azurerm_api_management_named_value.this["tk-retry-count"].value == "1"
    error_message = "A throttled call is tried once in every other region."
  }
  assert {
    condition     = [for service in azapi_resource.model_pool[0].body.properties.pool.services : "${service.priority}/${service.weight}"] == ["2/3", "1/1"]
    error_message = "The pool goes by priority and weight: ${jsonencode(azapi_resource.model_pool[0].body.properties.pool.services)}"
  }
  assert {
    condition     = alltrue([for backend in values(azurerm_api_management_backend.models) : contains(backend.circuit_breaker_rule[0].failure_condition[0].status_code_range[*].min, 429)])
    error_message = "With several regions a throttled one rests."
  }
}

run "models_that_nobody_serves_are_warned_of" {
  command = plan

  variables {
    model_regions = {
      swc = { location = "swedencentral", deployments = { gpt-4o-mini = { model = "gpt-4o-mini", version = "2024-07-18" } } }
    }
  }
  expect_failures = [check.configured_deployments_exist]
}

run "bring_your_own_models" {
  command = plan

  variables {
    model_regions = {}
    existing_models = {
      theirs = {
        id       = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-ai/providers/Microsoft.CognitiveServices/accounts/theirs"
        endpoint = "https://theirs.openai.azure.com/"
      }
    }
  }
  assert {
    condition     = length(azurerm_cognitive_account.this) == 0 && azurerm_api_management_backend.models["theirs"].url == "https://theirs.openai.azure.com/openai"
    error_message = "No account is created, and theirs is the backend."
  }
  assert {
    condition     = azurerm_role_assignment.this["gateway-models-theirs"].scope == "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-ai/providers/Microsoft.CognitiveServices/accounts/theirs"
    error_message = "The gateway's identity may call it."
  }
}

run "existing_api_management" {
  command = plan

  variables {
    existing_api_management = {
      id          = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-apim/providers/Microsoft.ApiManagement/service/apim-theirs"
      gateway_url = "https://api.contoso.com"
      location    = "westeurope"
      sku         = "PremiumV2"
    }
    # Without a subnet for it: its owner has integrated it.
    existing_network = { virtual_network_id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v", subnet_ids = { functions = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/b", endpoints = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/c" } }
  }
  assert {
    condition     = length(azurerm_api_management.this) == 0 && azurerm_api_management_api.openai[0].api_management_name == "apim-theirs" && azurerm_api_management_api.openai[0].resource_group_name == "rg-apim"
    error_message = "Nothing is created beside theirs."
  }
  assert {
    condition     = azapi_resource.llm_logs_namespace.location == "westeurope" && azurerm_eventhub_namespace.usage.location == "swedencentral"
    error_message = "Diagnostic settings write to a namespace in the gateway's region only."
  }
  assert {
    condition     = azapi_resource.llm_diagnostics[0].parent_id == "${var.existing_api_management.id}/apis/openai" && azurerm_monitor_diagnostic_setting.llm_logs[0].target_resource_id == var.existing_api_management.id
    error_message = "Theirs writes the logs."
  }
  assert {
    condition     = output.GATEWAY_URL == "https://api.contoso.com" && output.GATEWAY_NAME == "apim-theirs"
    error_message = "Clients call theirs."
  }
}

run "named_values_are_overridden" {
  command = plan

  variables {
    named_values            = { tk-enforcement = "observe", tk-rate-calls = "60" }
    entra_gateway_client_id = "00000000-0000-4000-8000-000000000012"
  }
  assert {
    condition     = azurerm_api_management_named_value.this["tk-enforcement"].value == "observe" && azurerm_api_management_named_value.this["tk-rate-calls"].value == "60"
    error_message = "A person's word is the last."
  }
  assert {
    condition     = azurerm_api_management_named_value.this["tk-entra-audience"].value == "00000000-0000-4000-8000-000000000012" && azurerm_api_management_named_value.this["tk-service-audience"].value == "api://00000000-0000-4000-8000-000000000011"
    error_message = "Callers of models have an audience of their own, which is not the budget service's."
  }
}

run "tier_refusal" {
  command = plan

  variables {
    private_network    = false
    api_management_sku = "Consumption_0"
  }
  expect_failures = [var.api_management_sku]
}

run "refuses_a_tier_without_private_outbound_and_no_models" {
  command = plan

  variables {
    api_management_sku = "BasicV2_1"
    model_regions      = {}
  }
  expect_failures = [var.api_management_sku, var.model_regions]
}

run "refuses_an_existing_consumption_regions_that_differ_unknown_values_and_a_stale_config" {
  command = plan

  variables {
    existing_api_management = {
      id          = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-apim/providers/Microsoft.ApiManagement/service/apim-theirs"
      gateway_url = "https://api.contoso.com"
      location    = "westeurope"
      sku         = "Consumption"
    }
    model_regions = {
      frc = { location = "francecentral", deployments = { gpt-4o-frc = { model = "gpt-4o", version = "2024-11-20" } } }
      swc = { location = "swedencentral", deployments = { gpt-4o-weu = { model = "gpt-4o", version = "2024-11-20" } } }
    }
    named_values  = { tk-enforcment = "off" }
    config_digest = "0000000000000000000000000000000000000000000000000000000000000000"
  }
  expect_failures = [var.existing_api_management, var.model_regions, var.named_values, var.config_digest]
}
