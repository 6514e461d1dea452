// Where usage arrives and where it is kept: Event Hubs, storage, Redis, Key Vault.
param names object
param location string
param gatewayLocation string
param withGateway bool // API Management
param tags object
param privateNetwork bool
param deployerIpRanges string[]
param zoneRedundant bool
param throughputUnits { least: int, most: int }
param redis { sku: string, highAvailability: bool }
param functionsPrincipalId string
param builtinPrincipalId string // empty: there is no built-in gateway
param ledgerExportDays int
@secure()
param reservationKey string

var shared = loadYamlContent('../../names.yaml')
var publicNetworkAccess = privateNetwork ? 'Disabled' : 'Enabled'
var defaultAction = privateNetwork ? 'Deny' : 'Allow'
var recoveryDays = 30 // in which deleted and overwritten blobs and deleted containers can be brought back
var replication = zoneRedundant ? 'ZRS' : 'LRS'

// What the Functions host needs for itself: checkpoints, locks, packages.
resource host 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: names.hostStorage
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_${replication}' }
  properties: {
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    isLocalUserEnabled: false
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    publicNetworkAccess: publicNetworkAccess
    networkAcls: { defaultAction: defaultAction, bypass: 'AzureServices' }
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: { deleteRetentionPolicy: { enabled: true, days: 7 } } // an overwritten package can be brought back

    resource containers 'containers' = [for container in shared.containers.host: { name: container }]
  }
}

// The books. An account of its own, because the host's identity needs are far wider than those of the books.
resource ledger 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: names.ledgerStorage
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_${replication}' }
  properties: {
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    isLocalUserEnabled: false
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    publicNetworkAccess: empty(deployerIpRanges) ? publicNetworkAccess : 'Enabled'
    networkAcls: {
      defaultAction: defaultAction
      bypass: 'AzureServices' // capture of the hub and the cost export, each by its identity
      ipRules: [for address in deployerIpRanges: { value: address, action: 'Allow' }]
    }
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: {
      isVersioningEnabled: true // a statement or a configuration that was overwritten
      deleteRetentionPolicy: { enabled: true, days: recoveryDays }
      containerDeleteRetentionPolicy: { enabled: true, days: recoveryDays }
    }

    resource containers 'containers' = [for container in shared.containers.ledger: { name: container }]
  }

  resource tableService 'tableServices' existing = {
    name: 'default'

    resource tables 'tables' = [for table in shared.tables: { name: '${shared.table_prefix}${table}' }]
  }

  resource lifecycle 'managementPolicies' = {
    name: 'default'
    properties: {
      policy: {
        rules: [
          {
            name: 'capture'
            enabled: true
            type: 'Lifecycle'
            definition: {
              filters: { blobTypes: ['blockBlob'], prefixMatch: ['usage-capture/'] }
              actions: { baseBlob: { delete: { daysAfterCreationGreaterThan: 90 } } }
            }
          }
          {
            name: 'old-versions'
            enabled: true
            type: 'Lifecycle'
            definition: {
              filters: { blobTypes: ['blockBlob'] }
              actions: { version: { delete: { daysAfterCreationGreaterThan: recoveryDays } } }
            }
          }
        ]
      }
    }
    dependsOn: [blobs]
  }
}

resource usage 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: names.usageNamespace
  location: location
  tags: tags
  sku: { name: 'Standard', tier: 'Standard', capacity: throughputUnits.least }
  identity: { type: 'SystemAssigned' } // capture writes as this
  properties: {
    isAutoInflateEnabled: true
    maximumThroughputUnits: throughputUnits.most
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: publicNetworkAccess
  }

  resource hub 'eventhubs' = {
    name: shared.hubs.usage.name
    properties: {
      partitionCount: shared.hubs.usage.partitions
      retentionDescription: { cleanupPolicy: 'Delete', retentionTimeInHours: shared.hubs.usage.retention_hours }
      captureDescription: {
        enabled: true
        encoding: 'Avro'
        intervalInSeconds: 300
        sizeLimitInBytes: 104857600
        skipEmptyArchives: true
        destination: {
          name: 'EventHubArchive.AzureBlockBlob'
          identity: { type: 'SystemAssigned' }
          properties: {
            archiveNameFormat: '{Namespace}/{EventHub}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}/{PartitionId}'
            blobContainer: captured.name
            storageAccountResourceId: ledger.id
          }
        }
      }
    }
    dependsOn: [captureWrites] // capture is refused while its identity may not write

    resource groups 'consumergroups' = [for group in shared.hubs.usage.consumer_groups: { name: group }]
  }
}

// The nightly export of the ledger: parts are added and read, and for this long neither changed nor deleted, whoever asks.
resource exported 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  parent: ledger::blobs
  name: 'ledger-export'

  resource immutability 'immutabilityPolicies' = {
    name: 'default'
    properties: { immutabilityPeriodSinceCreationInDays: ledgerExportDays, allowProtectedAppendWrites: false }
    dependsOn: [ledger::blobs::containers]
  }
}

resource captured 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  parent: ledger::blobs
  name: 'usage-capture'
}

resource captureWrites 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: captured
  name: guid(captured.id, usage.id, shared.azure_roles['Storage Blob Data Contributor'])
  properties: {
    principalId: usage.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(
      'Microsoft.Authorization/roleDefinitions',
      shared.azure_roles['Storage Blob Data Contributor']
    )
  }
  dependsOn: [ledger::blobs::containers]
}

// The one namespace with keys: diagnostic settings write by an access rule and know no identity, and only to a namespace in
// the gateway's region. Azure Monitor is let in as a trusted service, everything else comes by the private endpoint. Without API
// Management nobody writes there, and there are no keys: it stays for the function that reads it.
resource llmLogs 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: names.llmLogsNamespace
  location: gatewayLocation
  tags: tags
  sku: { name: 'Standard', tier: 'Standard', capacity: throughputUnits.least }
  properties: {
    isAutoInflateEnabled: true
    maximumThroughputUnits: throughputUnits.most
    disableLocalAuth: !withGateway
    minimumTlsVersion: '1.2'
    publicNetworkAccess: publicNetworkAccess
  }

  resource network 'networkRuleSets' = {
    name: 'default'
    properties: {
      defaultAction: defaultAction
      publicNetworkAccess: publicNetworkAccess
      trustedServiceAccessEnabled: true
    }
  }

  resource hub 'eventhubs' = {
    name: shared.hubs.llm_logs.name
    properties: {
      partitionCount: shared.hubs.llm_logs.partitions
      retentionDescription: { cleanupPolicy: 'Delete', retentionTimeInHours: shared.hubs.llm_logs.retention_hours }
    }

    resource groups 'consumergroups' = [for group in shared.hubs.llm_logs.consumer_groups: { name: group }]
  }

  resource sendRule 'authorizationRules' = if (withGateway) {
    name: 'azure-monitor' // for the gateway's diagnostic setting, which asks for all three rights
    properties: { rights: ['Listen', 'Manage', 'Send'] }
  }
}

resource counters 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: names.redis
  location: location
  tags: tags
  sku: { name: redis.sku }
  properties: {
    highAvailability: redis.highAvailability ? 'Enabled' : 'Disabled'
    minimumTlsVersion: '1.2'
    publicNetworkAccess: publicNetworkAccess
  }

  resource database 'databases' = {
    name: 'default'
    properties: {
      accessKeysAuthentication: 'Disabled'
      clientProtocol: 'Encrypted'
      clusteringPolicy: 'EnterpriseCluster' // one address, so a client needs to know nothing of shards
      evictionPolicy: 'NoEviction' // an evicted counter is spend forgotten
      port: 10000
    }

    resource functionsAccess 'accessPolicyAssignments' = {
      name: 'functions'
      properties: { accessPolicyName: 'default', user: { objectId: functionsPrincipalId } }
    }
    resource builtinAccess 'accessPolicyAssignments' = if (!empty(builtinPrincipalId)) {
      name: 'builtin'
      properties: { accessPolicyName: 'default', user: { objectId: builtinPrincipalId } }
      dependsOn: [functionsAccess] // Redis makes one change at a time
    }
  }
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: names.keyVault
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enablePurgeProtection: true
    publicNetworkAccess: publicNetworkAccess
    networkAcls: { defaultAction: defaultAction, bypass: 'None' }
  }
}

// The key that signs reservations. A later deployment brings another random value, which must not replace it: calls in
// flight would lose their reservations.
@onlyIfNotExists()
resource reservationKeys 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = {
  parent: vault
  name: shared.secrets.reservation_keys
  properties: { value: reservationKey }
}
