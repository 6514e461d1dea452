// The built-in gateway on Azure Container Apps: what it runs in and what it may do. Its identity is made in shared.bicep, its user
// of Redis in data.bicep. main.bicep leaves this out where it is not asked for.
param names object
param location string
param tags object
param zoneRedundant bool
param subnetId string // empty: no private network
param external bool
param infrastructureGroup string
param allowedIpRanges string[]
param image string // empty: of the registry that is made here
param tag string // of that image; empty: there is none yet, so no app either
param registryId string // of `image`, where its images are not public
param cpu string
param replicas { least: int, most: int }
param callsAtOnce int
param settings object
param secretNames array // names of settings; each has a secret of its own
param principalId string
param clientId string
param entraIssuer string
param entraAudience string // of the tokens of those who call models
param insightsConnectionString string
param modelEndpoint string // empty: config/models.yaml says where models are
param workspaceId string
param virtualNetworkId string

var shared = loadYamlContent('../../names.yaml')
var roleIds = mapValues(shared.azure_roles, id => subscriptionResourceId('Microsoft.Authorization/roleDefinitions', id))
var isPrivate = !empty(subnetId)
var ownRegistry = empty(image)
var hasApp = !ownRegistry || !empty(tag)

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = { name: names.builtinIdentity }
resource redis 'Microsoft.Cache/redisEnterprise@2025-07-01' existing = { name: names.redis }
resource usage 'Microsoft.EventHub/namespaces@2024-01-01' existing = { name: names.usageNamespace }
resource insights 'Microsoft.Insights/components@2020-02-02' existing = { name: names.insights }
resource ledger 'Microsoft.Storage/storageAccounts@2025-01-01' existing = { name: names.ledgerStorage }
resource config 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  name: '${names.ledgerStorage}/default/config'
}
resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = { name: names.keyVault }
resource secrets 'Microsoft.KeyVault/vaults/secrets@2024-11-01' existing = [for name in secretNames: {
  name: '${names.keyVault}/${toLower(replace(name, '_', '-'))}'
}]

// It holds the image and nothing else: code that is no secret, pushed and pulled with tokens of Entra ID.
resource registry 'Microsoft.ContainerRegistry/registries@2025-04-01' = if (ownRegistry) {
  name: names.registry
  location: location
  tags: tags
  sku: { name: 'Basic' }
  properties: { adminUserEnabled: false, anonymousPullEnabled: false }
}

// What it may do. It faces the internet: of the vault it reads the secrets that it is told of, and of storage the configuration.
resource onConfig 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: config
  name: guid(config.id, principalId, 'Storage Blob Data Reader')
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds['Storage Blob Data Reader'] }
}
resource onUsage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: usage
  name: guid(usage.id, principalId, 'Azure Event Hubs Data Sender')
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds['Azure Event Hubs Data Sender'] }
}
resource onInsights 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: insights
  name: guid(insights.id, principalId, 'Monitoring Metrics Publisher')
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds['Monitoring Metrics Publisher'] }
}
resource onSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (name, i) in secretNames: {
  scope: secrets[i]
  name: guid(secrets[i].id, principalId, 'Key Vault Secrets User')
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds['Key Vault Secrets User'] }
}]
resource onRegistry 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (ownRegistry) {
  scope: registry
  name: guid(registry.id, principalId, 'AcrPull')
  properties: { principalId: principalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds.AcrPull }
}

resource environment 'Microsoft.App/managedEnvironments@2025-07-01' = {
  name: names.containers
  location: location
  tags: tags
  properties: {
    appLogsConfiguration: { destination: 'azure-monitor' } // by diagnostic setting: the other way takes the workspace's key, which is off
    infrastructureResourceGroup: isPrivate ? infrastructureGroup : null
    publicNetworkAccess: external ? 'Enabled' : 'Disabled'
    vnetConfiguration: isPrivate ? { infrastructureSubnetId: subnetId, internal: !external } : null
    workloadProfiles: [{ name: 'Consumption', workloadProfileType: 'Consumption' }]
    zoneRedundant: isPrivate && zoneRedundant
  }
}

resource log 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: environment
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    logs: [{ category: 'ContainerAppConsoleLogs', enabled: true }, { category: 'ContainerAppSystemLogs', enabled: true }]
  }
}

// A setting of the template's own goes before one that is added under its name.
var nearestModels = empty(modelEndpoint) ? {} : { AZURE_OPENAI_ENDPOINT: modelEndpoint }
var variables = union(nearestModels, settings, shared.builtin_settings, {
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD;ClientId=${clientId}'
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  AZURE_CLIENT_ID: clientId
  CONFIG_URL: '${ledger.properties.primaryEndpoints.blob}config'
  ENTRA_AUDIENCE: entraAudience
  ENTRA_ISSUER: entraIssuer
  EventHubs__fullyQualifiedNamespace: '${names.usageNamespace}.servicebus.windows.net'
  GATEWAY_NAME: names.builtin
  REDIS_URL: 'rediss://${redis.properties.hostName}:10000'
  USAGE_HUB: shared.hubs.usage.name
})
var plain = map(items(variables), setting => { name: setting.key, value: setting.value })
var secret = map(secretNames, name => { name: name, secretRef: toLower(replace(name, '_', '-')) })
var port = int(shared.builtin_settings.GATEWAY_PORT)
var probe = { path: '/health', port: port, scheme: 'HTTP' } // whatever its dependencies do: a restart would cure none of them
var pulled = ownRegistry
  ? [{ server: registry!.properties.loginServer, identity: identity.id }]
  : empty(registryId) ? [] : [{ server: split(image, '/')[0], identity: identity.id }]

resource app 'Microsoft.App/containerApps@2025-07-01' = if (hasApp) {
  name: names.builtin
  location: location
  tags: tags
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single' // a new revision takes over when its probes pass
      maxInactiveRevisions: 5
      registries: pulled
      secrets: map(secretNames, name => {
        name: toLower(replace(name, '_', '-'))
        identity: identity.id
        keyVaultUrl: '${vault.properties.vaultUri}secrets/${toLower(replace(name, '_', '-'))}'
      })
      ingress: {
        external: true // to the environment's own address, which is the network's where that is internal
        targetPort: port
        transport: 'auto'
        allowInsecure: false
        clientCertificateMode: 'ignore'
        traffic: [{ latestRevision: true, weight: 100 }]
        ipSecurityRestrictions: [for (range, i) in allowedIpRanges: {
          name: 'allowed-${i}'
          action: 'Allow'
          ipAddressRange: contains(range, '/') ? range : '${range}/32'
        }]
      }
    }
    template: {
      terminationGracePeriodSeconds: shared.termination_seconds
      scale: {
        minReplicas: replicas.least
        maxReplicas: replicas.most
        cooldownPeriod: 300
        rules: [
          { name: 'calls', http: { metadata: { concurrentRequests: string(callsAtOnce) } } }
          { name: 'cpu', custom: { type: 'cpu', metadata: { type: 'Utilization', value: '70' } } }
        ]
      }
      volumes: [{ name: 'spool', storageType: 'EmptyDir' }] // it outlives the container's restarts, not the replica
      containers: [
        {
          name: 'gateway'
          image: ownRegistry ? '${registry!.properties.loginServer}/${shared.image}:${tag}' : image
          resources: { cpu: json(cpu), memory: { '0.5': '1Gi', '0.75': '1.5Gi', '1': '2Gi' }[cpu] }
          volumeMounts: [{ volumeName: 'spool', mountPath: shared.builtin_settings.SPOOL_DIR }]
          env: concat(plain, secret)
          probes: [
            { type: 'Startup', httpGet: probe, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 30 }
            { type: 'Liveness', httpGet: probe, periodSeconds: 15, timeoutSeconds: 5, failureThreshold: 4 }
            { type: 'Readiness', httpGet: probe, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 3 }
          ]
        }
      ]
    }
  }
  dependsOn: [onConfig, onUsage, onInsights, onSecrets, onRegistry] // it reads its secrets and its configuration at the start
}

// An internal environment is found by names that only this network knows.
module dns 'builtin-dns.bicep' = if (!external) {
  params: {
    domain: environment.properties.defaultDomain
    address: environment.properties.staticIp
    virtualNetworkId: virtualNetworkId
    linkName: names.virtualNetwork
    tags: tags
  }
}

output appId string = hasApp ? app.id : ''
output url string = hasApp ? 'https://${app!.properties.configuration.ingress.fqdn}' : ''
output registryId string = ownRegistry ? registry.id : ''
