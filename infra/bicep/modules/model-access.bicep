// Lets the gateway use the models of one account, which may be of another resource group.
param accountName string
param gatewayPrincipalId string

var role = loadYamlContent('../../names.yaml', 'azure_roles')['Cognitive Services OpenAI User']

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' existing = { name: accountName }

resource gatewayUsesModels 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: account
  name: guid(account.id, gatewayPrincipalId, role)
  properties: {
    principalId: gatewayPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
  }
}
