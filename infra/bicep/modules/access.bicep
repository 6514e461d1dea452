// Who may do what with which store. Capture's right stands beside it in data.bicep, the models' in model-access.bicep.
param names object
param functionsPrincipalId string
param gatewayPrincipalId string
param configPublishers string[]

var roleIds = mapValues(
  loadYamlContent('../../names.yaml', 'azure_roles'),
  id => subscriptionResourceId('Microsoft.Authorization/roleDefinitions', id)
)

var accountGrants = [
  { account: names.hostStorage, role: roleIds['Storage Blob Data Owner'] } // the host: checkpoints, locks, its package
  { account: names.hostStorage, role: roleIds['Storage Table Data Contributor'] } // events of its own health
  { account: names.ledgerStorage, role: roleIds['Storage Table Data Contributor'] }
]
resource accounts 'Microsoft.Storage/storageAccounts@2025-01-01' existing = [for grant in accountGrants: { name: grant.account }]
resource onAccounts 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (grant, i) in accountGrants: {
  scope: accounts[i]
  name: guid(accounts[i].id, functionsPrincipalId, grant.role)
  properties: { principalId: functionsPrincipalId, principalType: 'ServicePrincipal', roleDefinitionId: grant.role }
}]

var publisherGrants = map(configPublishers, publisher => {
  container: 'config'
  role: roleIds['Storage Blob Data Contributor']
  principal: publisher
  type: null // a person, a group or a pipeline
})
var containerGrants = concat(publisherGrants, map([
  { container: 'statements', role: roleIds['Storage Blob Data Contributor'] }
  { container: 'tollkeeper-dead-letters', role: roleIds['Storage Blob Data Contributor'] }
  { container: 'config', role: roleIds['Storage Blob Data Reader'] }
], grant => { container: grant.container, role: grant.role, principal: functionsPrincipalId, type: 'ServicePrincipal' }))
resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = [for grant in containerGrants: {
  name: '${names.ledgerStorage}/default/${grant.container}'
}]
resource onContainers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (grant, i) in containerGrants: {
  scope: containers[i]
  name: guid(containers[i].id, grant.principal, grant.role)
  properties: { principalId: grant.principal, principalType: grant.type, roleDefinitionId: grant.role }
}]

// Ingest reads; true-ups, POST /usage and replays write. The gateway writes usage.
var hubGrants = [
  { namespace: names.usageNamespace, role: roleIds['Azure Event Hubs Data Receiver'], principal: functionsPrincipalId }
  { namespace: names.usageNamespace, role: roleIds['Azure Event Hubs Data Sender'], principal: functionsPrincipalId }
  { namespace: names.usageNamespace, role: roleIds['Azure Event Hubs Data Sender'], principal: gatewayPrincipalId }
  { namespace: names.llmLogsNamespace, role: roleIds['Azure Event Hubs Data Receiver'], principal: functionsPrincipalId }
  { namespace: names.llmLogsNamespace, role: roleIds['Azure Event Hubs Data Sender'], principal: functionsPrincipalId }
]
resource namespaces 'Microsoft.EventHub/namespaces@2024-01-01' existing = [for grant in hubGrants: { name: grant.namespace }]
resource onHubs 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (grant, i) in hubGrants: {
  scope: namespaces[i]
  name: guid(namespaces[i].id, grant.principal, grant.role)
  properties: { principalId: grant.principal, principalType: 'ServicePrincipal', roleDefinitionId: grant.role }
}]

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = { name: names.keyVault }
resource onVault 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, functionsPrincipalId, roleIds['Key Vault Secrets User'])
  properties: {
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleIds['Key Vault Secrets User']
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = { name: names.insights }
resource onInsights 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principal in [functionsPrincipalId, gatewayPrincipalId]: {
  scope: insights
  name: guid(insights.id, principal, roleIds['Monitoring Metrics Publisher'])
  properties: {
    principalId: principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleIds['Monitoring Metrics Publisher']
  }
}]

resource costExport 'Microsoft.CostManagement/exports@2025-03-01' existing = { name: 'focus-${names.base}' }
resource costExports 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  name: '${names.ledgerStorage}/default/cost-exports'
}
resource costExportWrites 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: costExports
  name: guid(costExports.id, costExport.id, roleIds['Storage Blob Data Contributor'])
  properties: {
    principalId: costExport.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleIds['Storage Blob Data Contributor']
  }
}
