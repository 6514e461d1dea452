resource "azurerm_service_plan" "this" {
  name                   = local.names.plan
  resource_group_name    = local.resource_group.name
  location               = local.resource_group.location
  os_type                = "Linux"
  sku_name               = "FC1" # Flex Consumption
  zone_balancing_enabled = var.zone_redundant
  tags                   = local.tags
}

locals {
  functions_client_id = azurerm_user_assigned_identity.functions.client_id
  functions_host      = "${local.names.functions}.azurewebsites.net"
  functions_url       = "https://${local.functions_host}/api/v1"
  sign_in_setting     = "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID" # by this name the platform signs people in as the identity, not with a secret
  functions_audience  = coalesce(var.entra_audience, "api://${var.entra_client_id}")

  # A setting of the templates' own goes before one that is added under its name.
  secret_references = {
    for name in var.secret_settings :
    name => "@Microsoft.KeyVault(SecretUri=${azurerm_key_vault.this.vault_uri}secrets/${lower(replace(name, "_", "-"))}/)"
  }
  app_settings = merge({ PUBLIC_URL = "https://${local.functions_host}" }, var.settings, local.secret_references, local.shared.app_settings, {
    AzureWebJobsStorage__accountName          = azurerm_storage_account.host.name
    AzureWebJobsStorage__clientId             = local.functions_client_id
    EventHubs__fullyQualifiedNamespace        = "${azurerm_eventhub_namespace.usage.name}.servicebus.windows.net"
    EventHubs__clientId                       = local.functions_client_id
    LlmLogs__fullyQualifiedNamespace          = "${azapi_resource.llm_logs_namespace.name}.servicebus.windows.net"
    LlmLogs__clientId                         = local.functions_client_id
    USAGE_HUB                                 = azurerm_eventhub.usage.name
    USAGE_CONSUMER_GROUP                      = local.shared.consumer_group
    LLM_LOGS_HUB                              = azurerm_eventhub.llm_logs.name
    LLM_LOGS_CONSUMER_GROUP                   = local.shared.consumer_group
    LEDGER_TABLES_ENDPOINT                    = trimsuffix(azurerm_storage_account.ledger.primary_table_endpoint, "/")
    LEDGER_BLOBS_ENDPOINT                     = trimsuffix(azurerm_storage_account.ledger.primary_blob_endpoint, "/")
    LEDGER_RETENTION_DAYS                     = tostring(var.ledger_retention_days)
    CONFIG_URL                                = local.config_url
    REDIS_URL                                 = "rediss://${azurerm_managed_redis.this.hostname}:10000"
    AZURE_CLIENT_ID                           = local.functions_client_id
    RESERVATION_KEYS                          = "@Microsoft.KeyVault(SecretUri=${azurerm_key_vault.this.vault_uri}secrets/${local.shared.secrets.reservation_keys}/)"
    APPLICATIONINSIGHTS_CONNECTION_STRING     = azurerm_application_insights.this.connection_string
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING = "Authorization=AAD;ClientId=${local.functions_client_id}"
    (local.sign_in_setting)                   = local.functions_client_id
  })
  config_url = "${azurerm_storage_account.ledger.primary_blob_endpoint}${azurerm_storage_container.this["config"].name}"

  # In a private deployment the public endpoint is shut, or open to the machines that deploy and nobody else.
  functions_open = local.public || length(var.deployer_ip_ranges) > 0
  functions_restrictions = [
    for index, range in sort(local.public ? [] : var.deployer_ip_ranges) : {
      name      = "deployer-${index}"
      action    = "Allow"
      priority  = 100 + index
      ipAddress = strcontains(range, "/") ? range : "${range}/32"
    }
  ]
  functions_default_action = local.public ? "Allow" : "Deny"
}

# azurerm_function_app_flex_consumption always writes an account key into the settings. See docs/adr/014-azapi.md.
resource "azapi_resource" "functions" {
  type      = "Microsoft.Web/sites@2024-11-01"
  name      = local.names.functions
  parent_id = local.resource_group.id
  location  = local.resource_group.location
  tags      = merge(local.tags, { "azd-service-name" = "functions" })

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.functions.id]
  }

  body = {
    kind = "functionapp,linux"
    properties = {
      serverFarmId              = azurerm_service_plan.this.id
      httpsOnly                 = true
      clientAffinityEnabled     = false
      publicNetworkAccess       = local.functions_open ? "Enabled" : "Disabled"
      virtualNetworkSubnetId    = local.subnet_ids.functions
      keyVaultReferenceIdentity = azurerm_user_assigned_identity.functions.id

      functionAppConfig = merge({
        deployment = {
          storage = {
            type  = "blobContainer"
            value = "${azurerm_storage_account.host.primary_blob_endpoint}${azurerm_storage_container.this["packages"].name}"
            authentication = {
              type                           = "UserAssignedIdentity"
              userAssignedIdentityResourceId = azurerm_user_assigned_identity.functions.id
            }
          }
        }
        runtime = { name = "python", version = "3.12" }
        scaleAndConcurrency = {
          instanceMemoryMB     = var.functions.instance_memory_mb
          maximumInstanceCount = var.functions.maximum_instances
          alwaysReady = [
            for name, count in { http = var.functions.always_ready_http, "function:ingest" = var.functions.always_ready_ingest } :
            { name = name, instanceCount = count } if count > 0
          ]
          triggers = { http = { perInstanceConcurrency = var.functions.requests_at_once } }
        }
      }, local.site_update_strategy)

      siteConfig = {
        minTlsVersion                          = "1.2"
        scmMinTlsVersion                       = "1.2"
        ftpsState                              = "Disabled"
        http20Enabled                          = true
        remoteDebuggingEnabled                 = false
        appSettings                            = [for name, value in local.app_settings : { name = name, value = value }]
        ipSecurityRestrictionsDefaultAction    = local.functions_default_action
        ipSecurityRestrictions                 = local.functions_restrictions
        scmIpSecurityRestrictionsDefaultAction = local.functions_default_action
        scmIpSecurityRestrictions              = local.functions_restrictions
        scmIpSecurityRestrictionsUseMain       = false
      }
    }
  }

  # Azure takes siteUpdateStrategy, its published types do not know it. Whoever leaves it at Recreate gets the body checked.
  schema_validation_enabled = length(local.site_update_strategy) == 0
  ignore_casing             = true # Azure answers blobcontainer and serverfarms: a change in every plan, and a restart with every apply
  response_export_values    = ["properties.defaultHostName"]

  # The host and the Key Vault reference are read at the first start, and not again for a while after a refusal or where no way
  # leads to the vault.
  depends_on = [
    azapi_resource_action.reservation_keys,
    azurerm_managed_redis_access_policy_assignment.functions,
    azurerm_private_dns_zone_virtual_network_link.this,
    azurerm_private_endpoint.this,
    azurerm_role_assignment.this,
  ]
}

locals {
  site_update_strategy = {
    for type in [var.functions.site_update_strategy] : "siteUpdateStrategy" => { type = type } if type != "Recreate"
  }

  # A site takes one change at a time, and its parts and its private endpoint are made side by side.
  while_site_is_busy = { error_message_regex = ["another operation is in progress"] }
}

# Tokens of Entra ID only; the roles in them are asked for in functions/auth.py. Parts of every site, so they are updated, not
# created.
resource "azapi_update_resource" "functions_auth" {
  type      = "Microsoft.Web/sites/config@2024-11-01"
  name      = "authsettingsV2"
  parent_id = azapi_resource.functions.id

  body = {
    properties = {
      platform = { enabled = true, runtimeVersion = "~1" }
      globalValidation = {
        requireAuthentication       = true
        unauthenticatedClientAction = "Return401"
        excludedPaths               = concat(["/api/v1/dashboard"], var.public_health ? ["/api/v1/health"] : [])
      }
      httpSettings = { requireHttps = true }
      identityProviders = {
        azureActiveDirectory = {
          enabled = true
          registration = {
            clientId                = var.entra_client_id
            openIdIssuer            = "https://login.microsoftonline.com/${data.azurerm_client_config.current.tenant_id}/v2.0"
            clientSecretSettingName = local.sign_in_setting
          }
          validation = { allowedAudiences = distinct([local.functions_audience, var.entra_client_id]) }
        }
      }
      # People sign in for the dashboard, whose pages are fragments of one address. Its cookie says who they are; no token is kept.
      login = { tokenStore = { enabled = false }, preserveUrlFragmentsForLogins = true }
    }
  }
  response_export_values = []
  retry                  = local.while_site_is_busy
}

# Passwords for FTP and for the deployment site, which Azure would hand to whoever may read the site.
resource "azapi_update_resource" "functions_publishing" {
  for_each  = toset(["ftp", "scm"])
  type      = "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01"
  name      = each.key
  parent_id = azapi_resource.functions.id

  body = {
    properties = { allow = false }
  }
  response_export_values = []
  retry                  = local.while_site_is_busy
}
