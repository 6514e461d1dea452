// The function app: it decides about calls and books what they cost. No setting holds a key.
param names object
param location string
param tags object
param privateNetwork bool
param deployerIpRanges string[]
param subnetId string // empty: no private network
param zoneRedundant bool
param functions object
param ledgerRetentionDays int
param entraClientId string
param audience string
param publicHealth bool
param settings object
param secretSettings string[]

var shared = loadYamlContent('../../names.yaml')

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = { name: names.functionsIdentity }
resource host 'Microsoft.Storage/storageAccounts@2025-01-01' existing = { name: names.hostStorage }
resource ledger 'Microsoft.Storage/storageAccounts@2025-01-01' existing = { name: names.ledgerStorage }
resource redis 'Microsoft.Cache/redisEnterprise@2025-07-01' existing = { name: names.redis }
resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = { name: names.keyVault }
resource insights 'Microsoft.Insights/components@2020-02-02' existing = { name: names.insights }

var tables = ledger.properties.primaryEndpoints.table
var blobs = ledger.properties.primaryEndpoints.blob

// By this name the platform signs people in as the identity, not with a secret.
var signInSetting = 'OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID'

// A setting of the template's own goes before one that is added under its name.
var secretReferences = toObject(
  secretSettings,
  name => name,
  name => '@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/${toLower(replace(name, '_', '-'))}/)'
)
var appSettings = union({ PUBLIC_URL: 'https://${names.functions}.azurewebsites.net' }, settings, secretReferences, shared.app_settings, {
  AzureWebJobsStorage__accountName: names.hostStorage
  AzureWebJobsStorage__clientId: identity.properties.clientId
  EventHubs__fullyQualifiedNamespace: '${names.usageNamespace}.servicebus.windows.net'
  EventHubs__clientId: identity.properties.clientId
  LlmLogs__fullyQualifiedNamespace: '${names.llmLogsNamespace}.servicebus.windows.net'
  LlmLogs__clientId: identity.properties.clientId
  USAGE_HUB: shared.hubs.usage.name
  USAGE_CONSUMER_GROUP: shared.consumer_group
  LLM_LOGS_HUB: shared.hubs.llm_logs.name
  LLM_LOGS_CONSUMER_GROUP: shared.consumer_group
  LEDGER_TABLES_ENDPOINT: substring(tables, 0, length(tables) - 1) // without the slash at its end
  LEDGER_BLOBS_ENDPOINT: substring(blobs, 0, length(blobs) - 1)
  LEDGER_RETENTION_DAYS: string(ledgerRetentionDays)
  CONFIG_URL: '${blobs}config'
  REDIS_URL: 'rediss://${redis.properties.hostName}:10000'
  AZURE_CLIENT_ID: identity.properties.clientId
  RESERVATION_KEYS: '@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/${shared.secrets.reservation_keys}/)'
  APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD;ClientId=${identity.properties.clientId}'
  '${signInSetting}': identity.properties.clientId
})

// In a private deployment the public endpoint is shut, or open to the machines that deploy and nobody else.
var defaultAction = privateNetwork ? 'Deny' : 'Allow'
var deployers = privateNetwork ? deployerIpRanges : []
var restrictions = [for (address, i) in deployers: {
  name: 'deployer-${i}'
  action: 'Allow'
  priority: 100 + i
  ipAddress: contains(address, '/') ? address : '${address}/32'
}]
var alwaysReady = [
  { name: 'function:ingest', instanceCount: functions.alwaysReadyIngest }
  { name: 'http', instanceCount: functions.alwaysReadyHttp }
]

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: names.plan
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true, zoneRedundant: zoneRedundant }
}

resource app 'Microsoft.Web/sites@2024-11-01' = {
  name: names.functions
  location: location
  tags: union(tags, { 'azd-service-name': 'functions' })
  kind: 'functionapp,linux'
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    publicNetworkAccess: privateNetwork && empty(deployerIpRanges) ? 'Disabled' : 'Enabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    keyVaultReferenceIdentity: identity.id
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${host.properties.primaryEndpoints.blob}packages'
          authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identity.id }
        }
      }
      runtime: { name: 'python', version: '3.12' }
      scaleAndConcurrency: {
        instanceMemoryMB: functions.instanceMemoryMB
        maximumInstanceCount: functions.maximumInstances
        alwaysReady: filter(alwaysReady, part => part.instanceCount > 0)
        triggers: { http: { perInstanceConcurrency: functions.requestsAtOnce } }
      }
      #disable-next-line BCP037 // Azure takes it, its published types do not know it
      ...(functions.siteUpdateStrategy == 'Recreate' ? {} : { siteUpdateStrategy: { type: functions.siteUpdateStrategy } })
    }
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      remoteDebuggingEnabled: false
      appSettings: map(items(appSettings), setting => { name: setting.key, value: string(setting.value) })
      ipSecurityRestrictionsDefaultAction: defaultAction
      ipSecurityRestrictions: restrictions
      scmIpSecurityRestrictionsDefaultAction: defaultAction
      scmIpSecurityRestrictions: restrictions
      scmIpSecurityRestrictionsUseMain: false
    }
  }

  // Tokens of Entra ID only; the roles in them are asked for in functions/auth.py.
  resource auth 'config' = {
    name: 'authsettingsV2'
    properties: {
      platform: { enabled: true, runtimeVersion: '~1' }
      globalValidation: {
        requireAuthentication: true
        unauthenticatedClientAction: 'Return401'
        excludedPaths: concat(['/api/v1/dashboard'], publicHealth ? ['/api/v1/health'] : [])
      }
      httpSettings: { requireHttps: true }
      identityProviders: {
        azureActiveDirectory: {
          enabled: true
          registration: {
            clientId: entraClientId
            clientSecretSettingName: signInSetting
            openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
          }
          validation: { allowedAudiences: union([audience], [entraClientId]) }
        }
      }
      // People sign in for the dashboard, whose pages are fragments of one address. Its cookie says who they are; no token is kept.
      login: { tokenStore: { enabled: false }, preserveUrlFragmentsForLogins: true }
    }
  }

  // Passwords for FTP and for the deployment site, which Azure would hand to whoever may read the site. One after the other: a
  // site takes one change at a time.
  @batchSize(1)
  resource publishing 'basicPublishingCredentialsPolicies' = [for protocol in ['ftp', 'scm']: {
    name: protocol
    properties: { allow: false }
    dependsOn: [auth]
  }]
}
