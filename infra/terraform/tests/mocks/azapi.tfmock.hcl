# The same for azapi, whose resources are of many types: a test that needs another answer overrides it for one address.

mock_resource "azapi_resource" {
  defaults = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.Web/sites/func-test"
    output = {
      properties = { defaultHostName = "func-test.azurewebsites.net" }
    }
    identity = {
      principal_id = "00000000-0000-4000-8000-000000000006"
      tenant_id    = "00000000-0000-4000-8000-00000000000a"
    }
  }
}

override_resource {
  target          = azapi_resource.llm_logs_namespace
  override_during = plan
  values = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.EventHub/namespaces/evhns-test"
  }
}

override_resource {
  target          = azapi_resource.llm_logs_send_rule
  override_during = plan
  values = {
    id = "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/rg-test/providers/Microsoft.EventHub/namespaces/evhns-test/authorizationRules/azure-monitor"
  }
}
