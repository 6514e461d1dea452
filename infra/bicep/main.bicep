// The same ground as infra/terraform, for those who deploy with Bicep. infra/README.md says what differs.
targetScope = 'subscription'

// Where

@description('First part of every resource\'s name: lower-case letters and digits.')
@minLength(3)
@maxLength(10)
param name string = 'tollkeeper'

@description('Tells deployments in one subscription apart, such as dev and prod.')
@minLength(2)
@maxLength(8)
param environmentName string

@description('Azure region of everything but the models, such as swedencentral.')
param location string

@description('Tags of every resource, beside application, environment and azd-env-name.')
param tags object = {}

@description('A resource group to use. Without it one is created.')
param existingResourceGroupName string = ''

@description('A Log Analytics workspace to use. Without it one is created.')
param existingWorkspaceId string = ''

// Network

@description('true: private endpoints, no public access but the gateway\'s. false: the quick start, public endpoints that take Entra ID tokens only.')
param privateNetwork bool = true

@description('Address range of the virtual network, /24 or larger.')
param addressSpace string = '10.64.0.0/24'

@description('A virtual network to use, with a subnet each for the functions (delegated to Microsoft.App/environments) and the private endpoints; for an API Management that is created also gateway (Microsoft.Web/serverFarms), for builtinGateway containers (Microsoft.App/environments). Without it one is created.')
param existingNetwork {
  virtualNetworkId: string
  subnetIds: { gateway: string?, functions: string, endpoints: string, containers: string? }
}?

@description('Private DNS zones to use, as {zone name: id}, linked to the network by their owner. Zones that are not named here are created.')
param existingPrivateDnsZoneIds object = {}

@description('Public addresses or ranges that may reach the function app and the ledger\'s storage of a private deployment, for a pipeline outside the network.')
param deployerIpRanges string[] = []

// Who

@description('Client id of the function app\'s registration in Entra ID.')
@minLength(36)
@maxLength(36)
param entraClientId string

@description('Client id of the registration that callers of models ask tokens for. Without it: entraClientId, whose tokens are for holders of one of its app roles only.')
param entraGatewayClientId string = ''

@description('Audience of the function app\'s tokens. Without it: api://<entraClientId>.')
param entraAudience string = ''

@description('Object ids of people, groups or pipelines that may publish the configuration. Without any: whoever deploys.')
param configPublishers string[] = []

@description('Whether /api/v1/health answers without a token.')
param publicHealth bool = false

@description('Who is told when something is wrong.')
@minLength(1)
param alertEmails string[]

@description('Also told, by POST in the common alert schema. It may hold a token.')
@secure()
param alertWebhookUrl string = ''

// How much

@description('Spread storage and functions over availability zones. It can be chosen at the first deployment only.')
param zoneRedundant bool = true

@description('Days after which the retention job deletes ledger hours. 0 keeps them for ever.')
@minValue(0)
@maxValue(36500)
param ledgerRetentionDays int = 0

@description('The nightly export of the ledger: for how many days nobody can change or delete a part of it. Bicep cannot lock that; az storage container immutability-policy lock does.')
param ledgerExport { @minValue(1) @maxValue(146000) days: int } = { days: 365 }

@description('Throughput units of the hubs\' namespaces: those paid for, and the limit they grow to by themselves.')
param throughputUnits { least: int, most: int } = { least: 1, most: 4 }

@description('Azure Managed Redis: its SKU, and whether a second node stands by.')
param redis { sku: string, highAvailability: bool } = { sku: 'Balanced_B1', highAvailability: true }

@description('The function app: memory of an instance, how many run always and at most, how many requests one instance takes at once, and how a new version comes in.')
param functions {
  instanceMemoryMB: int
  maximumInstances: int
  alwaysReadyHttp: int
  alwaysReadyIngest: int
  requestsAtOnce: int
  siteUpdateStrategy: 'RollingUpdate' | 'Recreate'
} = {
  instanceMemoryMB: 2048
  maximumInstances: 40
  alwaysReadyHttp: 2
  alwaysReadyIngest: 2
  requestsAtOnce: 32
  siteUpdateStrategy: 'RollingUpdate'
}

@description('Further settings of the function app by name, none of them secret, such as MAIL_FROM or OTEL_EXPORTER_OTLP_ENDPOINT. Those that the template makes go before them.')
param settings object = {}

@description('Settings of the function app whose values stand in the Key Vault, by name, such as ALERT_SLACK_FINOPS; the secret is called alert-slack-finops and must be there first.')
param secretSettings string[] = []

@description('Thresholds other than those of infra/alerts/alerts.yaml, by the alert\'s name there, such as {latency: 60000}.')
param alertThresholds object = {}

@description('How long the workspace keeps logs.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 90

@description('Whether API Management writes one row per call into the workspace: over 100 GB a day at 1,000 calls a second.')
param gatewayLogs bool = true

@description('What the resource group may cost in a calendar month, in the currency of the invoice. It tells people; it stops nothing.')
@minValue(1)
param monthlyCostBudget int

@description('Whether Azure writes its own cost figures (FOCUS) into the ledger\'s storage every day. Only subscriptions under an Enterprise or Microsoft Customer Agreement can, from two days of age; Azure refuses others.')
param costExport bool = true

// Models and gateway

@description('One account of Azure AI Foundry per entry: {swc: {location, priority, weight, deployments: {gpt-4o: {model, version, sku, capacity}}}}.')
param modelRegions object = {}

@description('Accounts that others run, as further backends: {key: {id, endpoint, priority, weight}}.')
param existingModels object = {}

@description('Whether calls come through API Management: one that is created, or existingApiManagement. false creates nothing of it: callers use the built-in gateway, which builtinGateway puts beside the function app or you run elsewhere.')
param apiManagement bool = true

@description('Tier and units of API Management, such as StandardV2_1.')
param apiManagementSku string = 'StandardV2_1'

@description('An API Management to use. Its owner attaches the gateway\'s identity and integrates it with the network.')
param existingApiManagement { id: string, gatewayUrl: string, location: string }?

@description('The built-in gateway on Azure Container Apps, beside API Management or in its place (apiManagement: false). Without it nothing of it is created. Without image a registry is made for it.')
param builtinGateway {
  external: bool?
  allowedIpRanges: string[]?
  image: string?
  registryId: string?
  cpu: ('0.5' | '0.75' | '1')?
  callsAtOnce: int?
  settings: object?
  secretSettings: string[]?
  replicas: { least: int, most: int }?
}?

@description('Tag of the image in the registry that is created here. Without it there is no app yet.')
param builtinGatewayTag string = ''

@description('Named values that are made from the configuration, which `make named-values` writes.')
param generatedNamedValues object

@description('Named values to set to something else than default, Azure or the configuration say; such as {tk-enforcement: off} in an emergency.')
param namedValues object = {}

@description('The files of config/teams.')
param teams array

@description('Leave it alone: the first deployment\'s value becomes the key that signs reservations, later ones are not used.')
@secure()
param reservationKey string = '${newGuid()}${newGuid()}'

@description('Leave it alone: the first deployment\'s value is when cost budget and cost export begin, later ones are not used.')
param madeAt string = utcNow('yyyy-MM-ddTHH:mm:ssZ')

var shared = loadYamlContent('../names.yaml')
var groupName = empty(existingResourceGroupName) ? 'rg-${name}-${environmentName}' : existingResourceGroupName
var allTags = union(tags, { application: 'tollkeeper', environment: environmentName, 'azd-env-name': environmentName })
var suffix = take(uniqueString(subscription().id, name, environmentName), 6)
var base = '${name}-${environmentName}-${suffix}'
var names = {
  base: base
  functionsIdentity: 'id-${name}-functions-${environmentName}-${suffix}'
  gatewayIdentity: 'id-${name}-gateway-${environmentName}-${suffix}'
  builtinIdentity: 'id-${name}-builtin-${environmentName}-${suffix}'
  virtualNetwork: 'vnet-${base}'
  hostStorage: 'st${name}host${suffix}'
  ledgerStorage: 'st${name}ledger${suffix}'
  usageNamespace: 'evhns-${name}-usage-${environmentName}-${suffix}'
  llmLogsNamespace: 'evhns-${name}-llmlogs-${environmentName}-${suffix}'
  redis: 'amr-${base}'
  keyVault: 'kv-${name}-${suffix}' // 24 characters at most; the suffix tells environments apart
  plan: 'asp-${base}'
  functions: 'func-${base}'
  gateway: 'apim-${base}'
  containers: 'cae-${base}'
  builtin: 'ca-${base}'
  registry: 'cr${name}${environmentName}${suffix}'
  models: 'aif-${base}' // one account per region: its key is appended
  workspace: 'log-${base}'
  insights: 'appi-${base}'
}
var resources = '${subscription().id}/resourceGroups/${groupName}/providers' // ids of what the modules make begin with this

// Refusals, each with its reason

var tier = split(apiManagementSku, '_')[0]
var gatewaySku = !apiManagement ? '' : tier == 'Consumption'
  ? fail('apiManagementSku: Consumption cannot gate models. It writes no LLM log, so streams could not be measured; it relays no streams, knows no llm-token-limit, and takes policies of up to 16 KiB. Use StandardV2_1.')
  : privateNetwork && !contains(['StandardV2', 'PremiumV2'], tier)
      ? fail('apiManagementSku: with privateNetwork expected StandardV2 or PremiumV2. The other tiers have no way into a virtual network, or are injected into one instead of integrated with it. Use StandardV2_1, or privateNetwork = false.')
      : apiManagementSku
var hasApiManagement = apiManagement || (existingApiManagement == null && empty(namedValues))
  ? apiManagement
  : fail('apiManagement: with false nothing uses existingApiManagement and namedValues; leave them out. The built-in gateway goes by the configuration alone.')
var createsGateway = hasApiManagement && existingApiManagement == null

// The group and what everything else refers to

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = if (empty(existingResourceGroupName)) {
  name: groupName
  location: location
  tags: allTags
}

module sharedParts 'modules/shared.bicep' = {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    existingWorkspaceId: existingWorkspaceId
    logRetentionDays: logRetentionDays
    alertEmails: alertEmails
    alertWebhookUrl: alertWebhookUrl
    withGateway: hasApiManagement
    withBuiltin: builtinGateway != null
  }
  dependsOn: [group]
}

// Network

var ownNetworkId = '${resources}/Microsoft.Network/virtualNetworks/${names.virtualNetwork}'
var network = existingNetwork ?? {
  virtualNetworkId: ownNetworkId
  subnetIds: {
    gateway: '${ownNetworkId}/subnets/snet-gateway'
    functions: '${ownNetworkId}/subnets/snet-functions'
    endpoints: '${ownNetworkId}/subnets/snet-endpoints'
    containers: '${ownNetworkId}/subnets/snet-containers'
  }
}

module ownNetwork 'modules/network.bicep' = if (privateNetwork && existingNetwork == null) {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    addressSpace: addressSpace
    withGateway: hasApiManagement
    withContainers: builtinGateway != null
    containersOpen: builtinExternal
  }
  dependsOn: [group]
}

var zones = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  table: 'privatelink.table.${environment().suffixes.storage}'
  hubs: 'privatelink.servicebus.windows.net'
  redis: 'privatelink.redis.azure.net'
  vault: 'privatelink.vaultcore.azure.net'
  functions: 'privatelink.azurewebsites.net'
  models: ['privatelink.openai.azure.com', 'privatelink.cognitiveservices.azure.com', 'privatelink.services.ai.azure.com']
}
var host = '${resources}/Microsoft.Storage/storageAccounts/${names.hostStorage}'
var ledger = '${resources}/Microsoft.Storage/storageAccounts/${names.ledgerStorage}'
var hubs = '${resources}/Microsoft.EventHub/namespaces'
var endpoints = [
  { key: 'host-blob', id: host, subresource: 'blob', zones: [zones.blob] }
  { key: 'host-table', id: host, subresource: 'table', zones: [zones.table] }
  { key: 'ledger-blob', id: ledger, subresource: 'blob', zones: [zones.blob] }
  { key: 'ledger-table', id: ledger, subresource: 'table', zones: [zones.table] }
  { key: 'usage', id: '${hubs}/${names.usageNamespace}', subresource: 'namespace', zones: [zones.hubs] }
  { key: 'llm-logs', id: '${hubs}/${names.llmLogsNamespace}', subresource: 'namespace', zones: [zones.hubs] }
  { key: 'redis', id: '${resources}/Microsoft.Cache/redisEnterprise/${names.redis}', subresource: 'redisEnterprise', zones: [zones.redis] }
  { key: 'vault', id: '${resources}/Microsoft.KeyVault/vaults/${names.keyVault}', subresource: 'vault', zones: [zones.vault] }
]
var functionsEndpoint = { key: 'functions', id: '${resources}/Microsoft.Web/sites/${names.functions}', subresource: 'sites', zones: [zones.functions] }
var modelEndpoints = map(createdModels, model => {
  key: 'models-${model.key}'
  id: model.id
  subresource: 'account'
  zones: zones.models
})

module privateEndpoints 'modules/endpoints.bicep' = if (privateNetwork) {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    network: network
    existingZoneIds: existingPrivateDnsZoneIds
    endpoints: concat(endpoints, modelEndpoints)
  }
  dependsOn: [ownNetwork, data, ai] // an account refuses endpoints while it is busy with a deployment
}

// Apart from the others, because the app comes between: it waits for them, and this one for the app.
module functionsPrivateEndpoint 'modules/endpoints.bicep' = if (privateNetwork) {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    network: network
    existingZoneIds: existingPrivateDnsZoneIds
    endpoints: [functionsEndpoint]
  }
  dependsOn: [ownNetwork, functionApp]
}

// Stores

module data 'modules/data.bicep' = {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    gatewayLocation: gatewayLocation
    withGateway: hasApiManagement
    tags: allTags
    privateNetwork: privateNetwork
    deployerIpRanges: deployerIpRanges
    zoneRedundant: zoneRedundant
    throughputUnits: throughputUnits
    redis: redis
    functionsPrincipalId: sharedParts.outputs.functionsPrincipalId
    builtinPrincipalId: sharedParts.outputs.builtinPrincipalId
    ledgerExportDays: ledgerExport.days
    reservationKey: reservationKey
  }
}

module cost 'modules/cost.bicep' = {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    environmentName: environmentName
    actionGroupId: sharedParts.outputs.actionGroupId
    monthlyCostBudget: monthlyCostBudget
    madeAt: madeAt
    exported: costExport
  }
  dependsOn: [data]
}

module access 'modules/access.bicep' = {
  scope: resourceGroup(groupName)
  params: {
    names: names
    functionsPrincipalId: sharedParts.outputs.functionsPrincipalId
    gatewayPrincipalId: sharedParts.outputs.gatewayPrincipalId
    configPublishers: empty(configPublishers) ? array(deployer().objectId) : configPublishers
  }
  dependsOn: [data]
}

// Functions

var functionsUrl = 'https://${names.functions}.azurewebsites.net/api/v1'
var audience = empty(entraAudience) ? 'api://${entraClientId}' : entraAudience

module functionApp 'modules/functions.bicep' = {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    privateNetwork: privateNetwork
    deployerIpRanges: deployerIpRanges
    subnetId: privateNetwork ? network.subnetIds.functions : ''
    zoneRedundant: zoneRedundant
    functions: functions
    ledgerRetentionDays: ledgerRetentionDays
    entraClientId: entraClientId
    audience: audience
    publicHealth: publicHealth
    settings: settings
    secretSettings: secretSettings
  }
  // Host and Key Vault reference are read at the first start, and not again for a while after a refusal or where no way leads to
  // the vault.
  dependsOn: [ownNetwork, access, privateEndpoints]
}

// Models

var createdModels = map(items(modelRegions), region => {
  key: region.key
  id: '${resources}/Microsoft.CognitiveServices/accounts/${names.models}-${region.key}'
  // The account's own `endpoint` is its cognitiveservices.azure.com address, which does not serve /openai/v1.
  endpoint: 'https://${names.models}-${region.key}.openai.azure.com'
  priority: region.value.?priority ?? 1
  weight: region.value.?weight ?? 1
})
var models = concat(createdModels, map(items(existingModels), model => {
  key: model.key
  id: model.value.id
  endpoint: 'https://${split(model.value.endpoint, '/')[2]}' // with or without a slash at its end
  priority: model.value.?priority ?? 1
  weight: model.value.?weight ?? 1
}))

module ai 'modules/ai.bicep' = [for region in items(modelRegions): {
  scope: resourceGroup(groupName)
  params: {
    accountName: '${names.models}-${region.key}'
    location: region.value.location
    tags: allTags
    privateNetwork: privateNetwork
    deployments: region.value.deployments
  }
  dependsOn: [group]
}]

module modelAccess 'modules/model-access.bicep' = [for model in models: if (hasApiManagement) {
  scope: resourceGroup(split(model.id, '/')[2], split(model.id, '/')[4])
  params: { accountName: split(model.id, '/')[8], gatewayPrincipalId: sharedParts.outputs.gatewayPrincipalId }
  dependsOn: [ai]
}]

// The built-in gateway

var hasBuiltinApp = builtinGateway != null && !empty(builtinGateway.?image ?? builtinGatewayTag)
var issuer = '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
var modelsAudience = empty(entraGatewayClientId) ? entraClientId : entraGatewayClientId // tokens of version 2 are for a client id
var builtinExternal = builtinGateway.?external ?? true
var sameSettings = shared.same_settings // given to one, given to both: they count in one Redis
var builtinSecrets = union(['RESERVATION_KEYS'], builtinGateway.?secretSettings ?? [], filter(secretSettings, one => contains(sameSettings, one)))
var sharedSettings = toObject(filter(items(settings), one => contains(sameSettings, one.key)), one => one.key, one => one.value)
var nearest = sort(models, (a, b) => a.priority < b.priority || (a.priority == b.priority && a.key < b.key))

module builtin 'modules/builtin.bicep' = if (builtinGateway != null) {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    zoneRedundant: zoneRedundant
    subnetId: privateNetwork ? network.subnetIds.?containers ?? fail('builtinGateway: existingNetwork.subnetIds lacks containers') : ''
    external: builtinExternal
    infrastructureGroup: '${groupName}-containers'
    allowedIpRanges: builtinGateway.?allowedIpRanges ?? []
    image: builtinGateway.?image ?? ''
    tag: builtinGatewayTag
    registryId: builtinGateway.?registryId ?? ''
    cpu: builtinGateway.?cpu ?? '1'
    replicas: builtinGateway.?replicas ?? { least: 2, most: 10 }
    callsAtOnce: builtinGateway.?callsAtOnce ?? 100
    settings: union(sharedSettings, builtinGateway.?settings ?? {})
    secretNames: builtinSecrets
    principalId: sharedParts.outputs.builtinPrincipalId
    clientId: sharedParts.outputs.builtinClientId
    insightsConnectionString: sharedParts.outputs.insightsConnectionString
    entraIssuer: issuer
    entraAudience: modelsAudience
    modelEndpoint: empty(nearest) ? '' : nearest[0].endpoint
    workspaceId: sharedParts.outputs.workspaceId
    virtualNetworkId: network.virtualNetworkId
  }
  dependsOn: [ownNetwork, data, privateEndpoints, builtinPulls, builtinModels]
}

module builtinPulls 'modules/pull-access.bicep' = if (!empty(builtinGateway.?registryId ?? '')) {
  scope: resourceGroup(split(builtinGateway!.registryId!, '/')[2], split(builtinGateway!.registryId!, '/')[4])
  params: { registryName: split(builtinGateway!.registryId!, '/')[8], principalId: sharedParts.outputs.builtinPrincipalId }
}

module builtinModels 'modules/model-access.bicep' = [for model in models: if (builtinGateway != null) {
  scope: resourceGroup(split(model.id, '/')[2], split(model.id, '/')[4])
  params: { accountName: split(model.id, '/')[8], gatewayPrincipalId: sharedParts.outputs.builtinPrincipalId }
  dependsOn: [ai]
}]

// Gateway

var gatewayId = existingApiManagement.?id ?? '${resources}/Microsoft.ApiManagement/service/${names.gateway}'
var gatewayLocation = existingApiManagement.?location ?? location

module gateway 'modules/gateway.bicep' = if (createsGateway) {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    sku: gatewaySku
    publisherEmail: alertEmails[0]
    subnetId: createsGateway && privateNetwork ? network.subnetIds.?gateway ?? fail('existingNetwork: subnetIds lacks gateway, which API Management needs') : ''
  }
  dependsOn: [ownNetwork, sharedParts]
}

// Later ones win. No named value is a secret: the gateway's own identity opens every door behind it.
module api 'modules/api.bicep' = if (hasApiManagement) {
  scope: resourceGroup(split(gatewayId, '/')[2], split(gatewayId, '/')[4])
  params: {
    gatewayName: split(gatewayId, '/')[8]
    models: models
    teams: teams
    namedValues: union(
      toObject(loadYamlContent('../../apim-policies/named-values.yaml'), value => value.name, value => string(value.default)),
      {
        'tk-retry-count': string(max(1, length(models) - 1)) // once for every other backend
        'tk-service-url': functionsUrl
        'tk-service-audience': audience
        'tk-identity-client-id': sharedParts.outputs.gatewayClientId
        'tk-entra-openid-config': '${issuer}/.well-known/openid-configuration'
        'tk-entra-issuer': issuer
        'tk-entra-audience': modelsAudience
      },
      generatedNamedValues,
      namedValues
    )
    usageNamespace: names.usageNamespace
    gatewayClientId: sharedParts.outputs.gatewayClientId
    insightsId: '${resources}/Microsoft.Insights/components/${names.insights}'
    insightsConnectionString: sharedParts.outputs.insightsConnectionString
    llmLogsRuleId: '${hubs}/${names.llmLogsNamespace}/authorizationRules/azure-monitor'
    workspaceId: gatewayLogs ? sharedParts.outputs.workspaceId : ''
  }
  dependsOn: [gateway, access, modelAccess] // the identity must be allowed to send before API Management tries it
}

// Watching

module monitoring 'modules/monitoring.bicep' = {
  scope: resourceGroup(groupName)
  params: {
    names: names
    location: location
    tags: allTags
    environmentName: environmentName
    workspaceId: sharedParts.outputs.workspaceId
    actionGroupId: sharedParts.outputs.actionGroupId
    alertThresholds: alertThresholds
    gatewayId: hasApiManagement ? gatewayId : ''
    builtinId: hasBuiltinApp ? '${resources}/Microsoft.App/containerApps/${names.builtin}' : ''
    gatewayTier: createsGateway ? tier : ''
  }
  dependsOn: [data, api, builtin]
}

output AZURE_SUBSCRIPTION_ID string = subscription().subscriptionId
output AZURE_RESOURCE_GROUP string = groupName
output GATEWAY_URL string = !hasApiManagement ? '' : existingApiManagement.?gatewayUrl ?? 'https://${names.gateway}.azure-api.net'
output GATEWAY_NAME string = hasApiManagement ? split(gatewayId, '/')[8] : ''
output GATEWAY_ID string = hasApiManagement ? gatewayId : ''
output GATEWAY_IDENTITY_ID string = hasApiManagement ? '${resources}/Microsoft.ManagedIdentity/userAssignedIdentities/${names.gatewayIdentity}' : ''
output GATEWAY_PRINCIPAL_ID string = sharedParts.outputs.gatewayPrincipalId
output BUILTIN_GATEWAY_URL string = builtinGateway == null ? '' : builtin!.outputs.url
output BUILTIN_GATEWAY_ID string = builtinGateway == null ? '' : builtin!.outputs.appId
output CONTAINER_REGISTRY_ID string = builtinGateway == null ? '' : builtin!.outputs.registryId
output FUNCTIONS_URL string = functionsUrl
output FUNCTIONS_NAME string = names.functions
output SERVICE_FUNCTIONS_NAME string = names.functions
output FUNCTIONS_AUDIENCE string = audience
output FUNCTIONS_PRINCIPAL_ID string = sharedParts.outputs.functionsPrincipalId
output CONFIG_URL string = 'https://${names.ledgerStorage}.blob.${environment().suffixes.storage}/config'
output LEDGER_ACCOUNT string = names.ledgerStorage
output USAGE_NAMESPACE string = '${names.usageNamespace}.servicebus.windows.net'
output USAGE_HUB string = shared.hubs.usage.name
output LLM_LOGS_NAMESPACE string = '${names.llmLogsNamespace}.servicebus.windows.net'
output LLM_LOGS_HUB string = shared.hubs.llm_logs.name
output LOG_ANALYTICS_WORKSPACE_ID string = sharedParts.outputs.workspaceId
output WORKBOOK_ID string = monitoring.outputs.workbookId
output MODEL_DEPLOYMENTS array = union(flatten(map(items(modelRegions), region => objectKeys(region.value.deployments))), [])
output SUBSCRIPTIONS object = toObject(teams, team => team.team, team => team.?identities.?subscriptions ?? [])
