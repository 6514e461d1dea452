// Who may do what with which store. Capture's right stands beside it in data.bicep, the models' in model-access.bicep; the cost
// export's is given by Cost Management when it makes the export.
param names object
param functionsPrincipalId string
param gatewayPrincipalId string // empty: there is no API Management
param configPublishers string[] // people, groups or pipelines

var roleIds = mapValues(
  loadYamlContent('../../names.yaml', 'azure_roles'),
  id => subscriptionResourceId('Microsoft.Authorization/roleDefinitions', id)
)
var gateways = empty(gatewayPrincipalId) ? [] : [gatewayPrincipalId]

// The host: checkpoints, locks, its package; events of its own health
resource host 'Microsoft.Storage/storageAccounts@2025-01-01' existing = { name: names.hostStorage }
var hostRoles = ['Storage Blob Data Owner', 'Storage Table Data Contributor']
resource onHost 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in hostRoles: {
  scope: host
  name: guid(host.id, functionsPrincipalId, role)
  properties: { principalId: functionsPrincipalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds[role] }
}]

// The books
resource ledger 'Microsoft.Storage/storageAccounts@2025-01-01' existing = { name: names.ledgerStorage }
resource onLedger 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: ledger
  name: guid(ledger.id, functionsPrincipalId, 'Storage Table Data Contributor')
  properties: {
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleIds['Storage Table Data Contributor']
  }
}

var containerGrants = [
  { container: 'config', role: 'Storage Blob Data Contributor' } // budgets are edited in the dashboard
  { container: 'ledger-export', role: 'Storage Blob Data Contributor' }
  { container: 'cost-exports', role: 'Storage Blob Data Reader' }
  { container: 'statements', role: 'Storage Blob Data Contributor' }
  { container: 'tollkeeper-dead-letters', role: 'Storage Blob Data Contributor' }
]
resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = [for grant in containerGrants: {
  name: '${names.ledgerStorage}/default/${grant.container}'
}]
resource onContainers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (grant, i) in containerGrants: {
  scope: containers[i]
  name: guid(containers[i].id, functionsPrincipalId, grant.role)
  properties: { principalId: functionsPrincipalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds[grant.role] }
}]
resource onConfig 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for publisher in configPublishers: {
  scope: containers[0]
  name: guid(containers[0].id, publisher, 'Storage Blob Data Contributor')
  properties: { principalId: publisher, roleDefinitionId: roleIds['Storage Blob Data Contributor'] }
}]

// The hubs: ingest reads; true-ups, POST /usage and replays write. The gateway writes usage.
var receive = 'Azure Event Hubs Data Receiver'
var send = 'Azure Event Hubs Data Sender'
resource usage 'Microsoft.EventHub/namespaces@2024-01-01' existing = { name: names.usageNamespace }
var usageGrants = concat([
  { role: receive, principal: functionsPrincipalId }
  { role: send, principal: functionsPrincipalId }
], map(gateways, gateway => { role: send, principal: gateway }))
resource onUsage 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for grant in usageGrants: {
  scope: usage
  name: guid(usage.id, grant.principal, grant.role)
  properties: { principalId: grant.principal, principalType: 'ServicePrincipal', roleDefinitionId: roleIds[grant.role] }
}]
resource llmLogs 'Microsoft.EventHub/namespaces@2024-01-01' existing = { name: names.llmLogsNamespace }
resource onLlmLogs 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in [receive, send]: {
  scope: llmLogs
  name: guid(llmLogs.id, functionsPrincipalId, role)
  properties: { principalId: functionsPrincipalId, principalType: 'ServicePrincipal', roleDefinitionId: roleIds[role] }
}]

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = { name: names.keyVault }
resource onVault 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, functionsPrincipalId, 'Key Vault Secrets User')
  properties: {
    principalId: functionsPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleIds['Key Vault Secrets User']
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = { name: names.insights }
var senders = concat([functionsPrincipalId], gateways)
resource onInsights 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principal in senders: {
  scope: insights
  name: guid(insights.id, principal, 'Monitoring Metrics Publisher')
  properties: {
    principalId: principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleIds['Monitoring Metrics Publisher']
  }
}]
