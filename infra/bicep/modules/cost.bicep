// What Azure itself bills: the last net under the budgets of teams, and the figures to compare the ledger with. Both are made
// once: Azure refuses another start date for a budget, and a change of an export that does not quote its version.
param names object
param location string
param environmentName string
param actionGroupId string
param monthlyCostBudget int
param madeAt string
param exported bool

resource ledger 'Microsoft.Storage/storageAccounts@2025-01-01' existing = { name: names.ledgerStorage }

var notice = {
  enabled: true
  operator: 'GreaterThanOrEqualTo'
  contactEmails: []
  contactGroups: [actionGroupId]
}

@onlyIfNotExists()
resource budget 'Microsoft.Consumption/budgets@2024-08-01' = {
  name: 'budget-${names.base}'
  properties: {
    category: 'Cost'
    amount: monthlyCostBudget
    timeGrain: 'Monthly'
    timePeriod: { startDate: '${substring(madeAt, 0, 7)}-01T00:00:00Z' }
    notifications: {
      forecast: union(notice, { thresholdType: 'Forecasted', threshold: 100 })
      most: union(notice, { thresholdType: 'Actual', threshold: 80 })
      all: union(notice, { thresholdType: 'Actual', threshold: 100 })
    }
  }
}

// Cost Management lets the identity write to the container, by the rights of whoever deploys: a second assignment would be refused.
@onlyIfNotExists()
resource costExport 'Microsoft.CostManagement/exports@2025-03-01' = if (exported) {
  name: 'focus-${names.base}'
  location: location
  identity: { type: 'SystemAssigned' }
  properties: {
    format: 'Csv'
    compressionMode: 'gzip'
    dataOverwriteBehavior: 'OverwritePreviousReport'
    partitionData: true
    definition: {
      type: 'FocusCost'
      timeframe: 'MonthToDate'
      dataSet: { granularity: 'Daily', configuration: { dataVersion: '1.0' } }
    }
    deliveryInfo: {
      destination: {
        type: 'AzureBlob'
        resourceId: ledger.id
        container: 'cost-exports'
        rootFolderPath: environmentName
      }
    }
    schedule: {
      status: 'Active'
      recurrence: 'Daily'
      recurrencePeriod: { from: dateTimeAdd(madeAt, 'P1D'), to: '2099-12-31T00:00:00Z' } // a start in the past is refused
    }
  }
}
