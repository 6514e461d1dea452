// API Management. main.bicep leaves this out where one is there already.
param names object
param location string
param tags object
param sku string
param publisherEmail string
param subnetId string // empty: no private network

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = { name: names.gatewayIdentity }

resource gateway 'Microsoft.ApiManagement/service@2024-05-01' = {
  name: names.gateway
  location: location
  tags: tags
  sku: { name: split(sku, '_')[0], capacity: int(split(sku, '_')[1]) }
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    publisherName: 'Tollkeeper'
    publisherEmail: publisherEmail
    virtualNetworkType: empty(subnetId) ? 'None' : 'External' // External: its calls leave through the subnet
    virtualNetworkConfiguration: empty(subnetId) ? null : { subnetResourceId: subnetId }
  }
}

