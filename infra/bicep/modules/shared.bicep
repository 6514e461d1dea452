// What the other modules refer to: the identities, where telemetry goes, and who is told.
param names object
param location string
param tags object
param existingWorkspaceId string
param logRetentionDays int
param alertEmails string[]
@secure()
param alertWebhookUrl string
param withGateway bool
param withBuiltin bool

var identityNames = concat([names.functionsIdentity], withGateway ? [names.gatewayIdentity] : [], withBuiltin ? [names.builtinIdentity] : [])
var lastIdentity = length(identityNames) - 1
resource identities 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = [for name in identityNames: {
  name: name
  location: location
  tags: tags
}]

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' = if (empty(existingWorkspaceId)) {
  name: names.workspace
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: logRetentionDays
    features: { disableLocalAuth: true }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: names.insights
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: empty(existingWorkspaceId) ? workspace.id : existingWorkspaceId
    DisableLocalAuth: true
    SamplingPercentage: 100 // the workbook sums log records: one that is left out is spend that nobody sees
  }
}

resource actionGroup 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-${names.base}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'tollkeeper'
    emailReceivers: [for address in alertEmails: { name: address, emailAddress: address, useCommonAlertSchema: true }]
    webhookReceivers: empty(alertWebhookUrl) ? [] : [{ name: 'webhook', serviceUri: alertWebhookUrl, useCommonAlertSchema: true }]
  }
}

output workspaceId string = empty(existingWorkspaceId) ? workspace.id : existingWorkspaceId
output functionsPrincipalId string = identities[0].properties.principalId
output gatewayPrincipalId string = withGateway ? identities[1].properties.principalId : ''
output gatewayClientId string = withGateway ? identities[1].properties.clientId : ''
output builtinPrincipalId string = withBuiltin ? identities[lastIdentity].properties.principalId : ''
output builtinClientId string = withBuiltin ? identities[lastIdentity].properties.clientId : ''
output insightsConnectionString string = insights.properties.ConnectionString
output actionGroupId string = actionGroup.id
