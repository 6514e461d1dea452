// The models of one region.
param accountName string
param location string
param tags object
param privateNetwork bool
param deployments object

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' = {
  name: accountName
  location: location
  tags: tags
  kind: 'AIServices'
  sku: { name: 'S0' }
  identity: { type: 'SystemAssigned' } // what projects ask for; it is granted nothing
  properties: {
    customSubDomainName: accountName // Entra ID and private endpoints need one
    allowProjectManagement: true
    disableLocalAuth: true
    publicNetworkAccess: privateNetwork ? 'Disabled' : 'Enabled'
  }

  @batchSize(1) // an account takes one deployment at a time
  resource models 'deployments' = [for deployment in items(deployments): {
    name: deployment.key
    sku: {
      name: deployment.value.?sku ?? 'GlobalStandard'
      capacity: deployment.value.?capacity ?? 50 // thousands of tokens a minute
    }
    properties: {
      versionUpgradeOption: 'OnceCurrentVersionExpired' // another version may have another price: until then a person decides
      model: {
        format: deployment.value.?format ?? 'OpenAI'
        name: deployment.value.model
        version: deployment.value.version
      }
    }
  }]
}
