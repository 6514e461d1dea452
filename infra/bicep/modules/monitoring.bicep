// Who is told what, the workbook, and who did what to the parts that hold money or let somebody in.
param names object
param location string
param tags object
param environmentName string
param workspaceId string
param actionGroupId string
param alertThresholds object
param gatewayId string // empty: there is no API Management
param builtinId string // empty: there is no built-in gateway, or no app of it yet
param gatewayTier string // empty: its owner watches the capacity of an existing one

resource insights 'Microsoft.Insights/components@2020-02-02' existing = { name: names.insights }
resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = { name: names.keyVault }
resource usage 'Microsoft.EventHub/namespaces@2024-01-01' existing = { name: names.usageNamespace }
resource llmLogs 'Microsoft.EventHub/namespaces@2024-01-01' existing = { name: names.llmLogsNamespace }
resource redis 'Microsoft.Cache/redisEnterprise@2025-07-01' existing = {
  name: names.redis

  resource database 'databases' existing = { name: 'default' }
}
resource ledger 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: names.ledgerStorage

  resource blobs 'blobServices' existing = { name: 'default' }
  resource tables 'tableServices' existing = { name: 'default' }
}

var alerts = loadYamlContent('../../alerts/alerts.yaml')
var queries = {
  cost_anomaly: loadTextContent('../../alerts/cost_anomaly.kql')
  coverage: loadTextContent('../../alerts/coverage.kql')
  dead_letters: loadTextContent('../../alerts/dead_letters.kql')
  drift: loadTextContent('../../alerts/drift.kql')
  error_rate: loadTextContent('../../alerts/error_rate.kql')
  events_backlog: loadTextContent('../../alerts/events_backlog.kql')
  function_errors: loadTextContent('../../alerts/function_errors.kql')
  ingest_lag: loadTextContent('../../alerts/ingest_lag.kql')
  latency: loadTextContent('../../alerts/latency.kql')
  notices_given_up: loadTextContent('../../alerts/notices_given_up.kql')
  silence: loadTextContent('../../alerts/silence.kql')
  unpriced: loadTextContent('../../alerts/unpriced.kql')
  usage_spike: loadTextContent('../../alerts/usage_spike.kql')
}
var metered = union(
  { usage_hub: [usage.id], llm_logs_hub: [llmLogs.id], redis: [redis.id] },
  empty(gatewayId) ? {} : { gateway: [gatewayId] },
  empty(builtinId) ? {} : { builtin: [builtinId] },
  empty(gatewayTier) ? {} : contains(gatewayTier, 'V2') ? { gateway_v2: [gatewayId] } : { gateway_classic: [gatewayId] }
)

var workbookText = loadTextContent('../../workbooks/tollkeeper.workbook.json')

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid('tollkeeper/${names.base}')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Tollkeeper ${environmentName}'
    category: 'workbook'
    sourceId: toLower(workspaceId)
    serializedData: replace(replace(workbookText, '{insights}', toLower(insights.id)), '{workspace}', toLower(workspaceId))
  }
}

resource logAlerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for alert in items(alerts.log_alerts): {
  name: '${replace(alert.key, '_', '-')}-${names.base}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: 'Tollkeeper ${environmentName}: ${replace(alert.key, '_', ' ')}'
    description: skip(split(queries[alert.key], '\n')[0], 3) // what follows the // of the first line
    enabled: true
    autoMitigate: true
    scopes: [workspaceId]
    severity: alert.value.severity
    evaluationFrequency: alert.value.every
    windowSize: alert.value.looks_back
    skipQueryValidation: true // a new workspace has none of the tables until the first record arrives
    criteria: {
      allOf: [
        {
          query: replace(queries[alert.key], '{insights}', toLower(insights.id))
          metricMeasureColumn: alert.value.measure
          timeAggregation: 'Maximum'
          operator: 'GreaterThan'
          threshold: alertThresholds[?alert.key] ?? alert.value.over
          dimensions: map(alert.value.dimensions, name => { name: name, operator: 'Include', values: ['*'] })
        }
      ]
    }
    actions: { actionGroups: [actionGroupId] }
  }
}]

var meteredAlerts = filter(items(alerts.metric_alerts), alert => contains(metered, alert.value.resource))

resource metricAlerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [for alert in meteredAlerts: {
  name: '${alert.key}-${names.base}'
  location: 'global'
  tags: tags
  properties: {
    description: alert.value.description
    enabled: true
    autoMitigate: true
    scopes: metered[alert.value.resource]
    severity: alert.value.severity
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'Metric1'
          metricNamespace: alert.value.namespace
          metricName: alert.value.metric
          timeAggregation: alert.value.aggregation
          operator: 'GreaterThan'
          threshold: alertThresholds[?alert.key] ?? alert.value.over
          dimensions: map(items(alert.value.?dimension ?? {}), dimension => {
            name: dimension.key
            operator: 'Include'
            values: dimension.value
          })
        }
      ]
    }
    actions: [{ actionGroupId: actionGroupId }]
  }
}]

// Metrics stay out: Azure keeps them for 93 days by itself.
var hubLogs = [{ category: 'OperationalLogs', enabled: true }, { category: 'AutoScaleLogs', enabled: true }]
var captureLogs = [{ category: 'ArchiveLogs', enabled: true }] // why a capture failed
var deletions = [{ category: 'StorageDelete', enabled: true }] // rows are only ever added

resource vaultLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
  name: 'workspace'
  properties: { workspaceId: workspaceId, logs: [{ category: 'AuditEvent', enabled: true }] }
}
resource usageLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: usage
  name: 'workspace'
  properties: { workspaceId: workspaceId, logs: concat(hubLogs, captureLogs) }
}
resource llmLogsLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: llmLogs
  name: 'workspace'
  properties: { workspaceId: workspaceId, logs: hubLogs }
}
resource tablesLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: ledger::tables
  name: 'workspace'
  properties: { workspaceId: workspaceId, logs: deletions }
}
resource blobsLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: ledger::blobs
  name: 'workspace'
  properties: { workspaceId: workspaceId, logs: deletions }
}
resource redisLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: redis::database
  name: 'workspace'
  properties: { workspaceId: workspaceId, logs: [{ category: 'ConnectionEvents', enabled: true }] }
}

output workbookId string = workbook.id
