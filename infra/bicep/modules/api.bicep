// What apim-policies says, on API Management: loggers, backends, named values, fragments, the API, products, subscriptions.
param gatewayName string
param models array // { key, id, endpoint, priority, weight }
param teams array
param namedValues object
param usageNamespace string
param gatewayClientId string
param insightsId string
param insightsConnectionString string // an address: the component takes no keys
param llmLogsRuleId string
param workspaceId string // empty: no row per call

var shared = loadYamlContent('../../names.yaml')

resource gateway 'Microsoft.ApiManagement/service@2024-05-01' existing = { name: gatewayName }

// Loggers

resource usageLogger 'Microsoft.ApiManagement/service/loggers@2024-05-01' = {
  parent: gateway
  name: namedValues['tk-usage-logger']
  properties: {
    loggerType: 'azureEventHub'
    credentials: {
      name: shared.hubs.usage.name
      endpointAddress: '${usageNamespace}.servicebus.windows.net'
      identityClientId: gatewayClientId
    }
  }
}

resource insightsLogger 'Microsoft.ApiManagement/service/loggers@2024-05-01' = {
  parent: gateway
  name: 'insights-logger'
  properties: {
    loggerType: 'applicationInsights'
    credentials: { connectionString: insightsConnectionString, identityClientId: gatewayClientId }
    resourceId: insightsId
  }
}

resource monitorLogger 'Microsoft.ApiManagement/service/loggers@2024-05-01' = {
  parent: gateway
  name: 'azuremonitor'
  properties: { loggerType: 'azureMonitor', isBuffered: true }
}

// Models

// With nowhere else to go, the caller is told better by the model's 429 and its Retry-After than by a 503.
var failing = concat([{ min: 500, max: 599 }], length(models) > 1 ? [{ min: 429, max: 429 }] : [])

resource backends 'Microsoft.ApiManagement/service/backends@2024-05-01' = [for model in models: {
  parent: gateway
  name: 'models-${model.key}'
  properties: {
    protocol: 'http'
    url: '${model.endpoint}/openai'
    circuitBreaker: {
      rules: [
        {
          name: 'failing'
          tripDuration: 'PT1M'
          acceptRetryAfter: true
          failureCondition: {
            count: 3
            interval: 'PT1M'
            errorReasons: ['BackendConnectionFailure', 'Timeout']
            statusCodeRanges: failing
          }
        }
      ]
    }
  }
}]

resource pool 'Microsoft.ApiManagement/service/backends@2024-05-01' = {
  parent: gateway
  name: namedValues['tk-backend-id']
  properties: {
    type: 'Pool'
    pool: {
      services: [for (model, i) in models: { id: backends[i].id, priority: model.priority, weight: model.weight }]
    }
  }
}

// Policies. Named values, logger and backends come first, then fragments, then the API and its policy: each refuses a name that
// is not there yet.

var fragments = {
  'tk-answer-headers': loadTextContent('../../../apim-policies/fragments/tk-answer-headers.xml')
  'tk-answer-problem': loadTextContent('../../../apim-policies/fragments/tk-answer-problem.xml')
  'tk-apply-decision': loadTextContent('../../../apim-policies/fragments/tk-apply-decision.xml')
  'tk-authenticate': loadTextContent('../../../apim-policies/fragments/tk-authenticate.xml')
  'tk-check-budget': loadTextContent('../../../apim-policies/fragments/tk-check-budget.xml')
  'tk-decide': loadTextContent('../../../apim-policies/fragments/tk-decide.xml')
  'tk-explain-error': loadTextContent('../../../apim-policies/fragments/tk-explain-error.xml')
  'tk-hide-upstream-refusal': loadTextContent('../../../apim-policies/fragments/tk-hide-upstream-refusal.xml')
  'tk-identify': loadTextContent('../../../apim-policies/fragments/tk-identify.xml')
  'tk-include-usage': loadTextContent('../../../apim-policies/fragments/tk-include-usage.xml')
  'tk-limit-rate': loadTextContent('../../../apim-policies/fragments/tk-limit-rate.xml')
  'tk-limit-size': loadTextContent('../../../apim-policies/fragments/tk-limit-size.xml')
  'tk-read-request': loadTextContent('../../../apim-policies/fragments/tk-read-request.xml')
  'tk-read-usage': loadTextContent('../../../apim-policies/fragments/tk-read-usage.xml')
  'tk-refuse': loadTextContent('../../../apim-policies/fragments/tk-refuse.xml')
  'tk-release': loadTextContent('../../../apim-policies/fragments/tk-release.xml')
  'tk-remember-team': loadTextContent('../../../apim-policies/fragments/tk-remember-team.xml')
  'tk-route': loadTextContent('../../../apim-policies/fragments/tk-route.xml')
  'tk-usage-event': loadTextContent('../../../apim-policies/fragments/tk-usage-event.xml')
  'tk-use-backend': loadTextContent('../../../apim-policies/fragments/tk-use-backend.xml')
}
var sections = [
  loadTextContent('../../../apim-policies/inbound-policy.xml')
  loadTextContent('../../../apim-policies/backend-policy.xml')
  loadTextContent('../../../apim-policies/outbound-policy.xml')
  loadTextContent('../../../apim-policies/on-error-policy.xml')
]
// Without its servers: an import from text refuses an address that is relative to where the text came from.
var openapi = loadYamlContent('../../../apim-policies/openai-api.yaml')
var definition = { openapi: openapi.openapi, info: openapi.info, paths: openapi.paths }

resource values 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = [for value in items(namedValues): {
  parent: gateway
  name: value.key
  properties: { displayName: value.key, value: value.value, secret: false }
}]

resource policyFragments 'Microsoft.ApiManagement/service/policyFragments@2024-05-01' = [for fragment in items(fragments): {
  parent: gateway
  name: fragment.key
  properties: { format: 'xml', value: fragment.value }
  dependsOn: [pool, usageLogger, values]
}]

resource api 'Microsoft.ApiManagement/service/apis@2024-05-01' = {
  parent: gateway
  name: 'openai'
  properties: {
    displayName: 'OpenAI'
    path: 'openai'
    protocols: ['https']
    subscriptionRequired: false // or callers with a token alone would be turned away before any policy runs
    subscriptionKeyParameterNames: { header: 'api-key', query: 'subscription-key' }
    format: 'openapi+json'
    value: string(definition)
  }

  resource policy 'policies' = {
    name: 'policy'
    properties: { format: 'xml', value: '<policies>\n${join(sections, '')}</policies>\n' }
    dependsOn: [pool, policyFragments, usageLogger, values]
  }
}

// Diagnostics. Bodies would be prompts and answers; reading a stream's would hold it back.

var noContent = { request: { headers: [], body: { bytes: 0 } }, response: { headers: [], body: { bytes: 0 } } }

resource llmDiagnostics 'Microsoft.ApiManagement/service/apis/diagnostics@2024-10-01-preview' = {
  parent: api
  name: 'azuremonitor'
  properties: {
    loggerId: monitorLogger.id
    alwaysLog: 'allErrors'
    verbosity: 'information'
    logClientIp: false
    sampling: { samplingType: 'fixed', percentage: 100 } // streams are billed by it
    frontend: noContent
    backend: noContent
    largeLanguageModel: { logs: 'enabled' }
  }
}

resource insightsDiagnostics 'Microsoft.ApiManagement/service/apis/diagnostics@2024-05-01' = {
  parent: api
  name: 'applicationinsights'
  properties: {
    loggerId: insightsLogger.id
    alwaysLog: 'allErrors'
    verbosity: 'information'
    httpCorrelationProtocol: 'W3C'
    logClientIp: false
    sampling: { samplingType: 'fixed', percentage: 10 } // no figure of the product rests on it
    frontend: noContent
    backend: noContent
  }
}

// The one diagnostic setting that writes to a hub: it takes a shared access rule and no identity.
resource llmLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: gateway
  name: 'llm-logs'
  properties: {
    eventHubAuthorizationRuleId: llmLogsRuleId
    eventHubName: shared.hubs.llm_logs.name
    logs: [
      { category: 'GatewayLlmLogs', enabled: true } // the tokens of streams
      { category: 'GatewayLogs', enabled: true } // which calls were cut off
    ]
  }
}

resource requestLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (!empty(workspaceId)) {
  scope: gateway
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [{ category: 'GatewayLogs', enabled: true }]
  }
}

// Who has keys

var teamProducts = flatten(map(teams, team => team.?identities.?products ?? []))
var productNames = contains(teamProducts, 'llm')
  ? fail('teams: one lists the product llm, which the subscriptions of all teams without a product share; every one of their calls would be billed to it.')
  : union(['llm'], teamProducts)
var subscriptions = flatten(map(teams, team => map(team.?identities.?subscriptions ?? [], subscription => {
  name: subscription
  product: team.?identities.?products[?0] ?? 'llm' // a key's product says whose it is where the team lists products
})))

resource products 'Microsoft.ApiManagement/service/products@2024-05-01' = [for product in productNames: {
  parent: gateway
  name: product
  properties: {
    displayName: product
    state: 'published'
    subscriptionRequired: true
    approvalRequired: true // a key that somebody gave himself would be of no team
  }
}]

resource productApis 'Microsoft.ApiManagement/service/products/apis@2024-05-01' = [for (product, i) in productNames: {
  parent: products[i]
  name: api.name
}]

// Keys are fetched with listSecrets by whoever needs one; no output tells them.
resource keys 'Microsoft.ApiManagement/service/subscriptions@2024-05-01' = [for subscription in subscriptions: {
  parent: gateway
  name: subscription.name
  properties: {
    displayName: subscription.name
    scope: '${gateway.id}/products/${subscription.product}'
    state: 'active'
    allowTracing: false
  }
  dependsOn: [products]
}]
