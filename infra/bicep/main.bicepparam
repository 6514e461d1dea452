using 'main.bicep'

// The quick start's values stand once, in the file that azd gives to Terraform; its ${...} are read here from the environment.
var quickStart = loadJsonContent('../terraform/main.tfvars.json')

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME')
param location = readEnvironmentVariable('AZURE_LOCATION')
param entraClientId = readEnvironmentVariable('ENTRA_CLIENT_ID')
param entraGatewayClientId = readEnvironmentVariable('ENTRA_GATEWAY_CLIENT_ID', '')
param alertEmails = split(readEnvironmentVariable('ALERT_EMAIL'), ',')

param monthlyCostBudget = quickStart.monthly_cost_budget
param costExport = quickStart.cost_export
param privateNetwork = quickStart.private_network
param zoneRedundant = quickStart.zone_redundant
param apiManagementSku = quickStart.api_management_sku
param redis = { sku: quickStart.redis.sku, highAvailability: quickStart.redis.high_availability }
param throughputUnits = quickStart.throughput_units
param logRetentionDays = quickStart.log_retention_days
param functions = {
  instanceMemoryMB: 2048
  maximumInstances: 40
  alwaysReadyHttp: quickStart.functions.always_ready_http
  alwaysReadyIngest: quickStart.functions.always_ready_ingest
  requestsAtOnce: 32
  siteUpdateStrategy: quickStart.functions.site_update_strategy
}
param modelRegions = {
  first: {
    location: readEnvironmentVariable('AZURE_LOCATION')
    deployments: quickStart.model_regions.first.deployments
  }
}

param generatedNamedValues = loadJsonContent('../terraform/config.auto.tfvars.json', 'generated_named_values')

// One line for each file of config/teams: Bicep loads no file whose name it must look up.
param teams = [
  loadYamlContent('../../config/teams/research.yaml')
  loadYamlContent('../../config/teams/search.yaml')
  loadYamlContent('../../config/teams/support.yaml')
]
