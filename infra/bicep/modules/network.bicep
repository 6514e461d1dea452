// The private network: a subnet and a security group each for the functions, the private endpoints and the gateways.
param names object
param location string
param tags object
param addressSpace string
param withGateway bool // a subnet for API Management
param withContainers bool // one for the built-in gateway
param containersOpen bool // to callers from outside

var subnets = concat(withGateway ? [
  { key: 'gateway', index: 0, delegation: 'Microsoft.Web/serverFarms', rules: [] } // outbound integration of the v2 tiers
] : [], [
  { key: 'functions', index: 1, delegation: 'Microsoft.App/environments', rules: [] } // Flex Consumption
  { key: 'endpoints', index: 2, delegation: '', rules: endpointRules }
], withContainers ? [
  { key: 'containers', index: 3, delegation: 'Microsoft.App/environments', rules: containersOpen ? callRules : [] }
] : [])
var prefixes = map(range(0, 4), i => cidrSubnet(addressSpace, parseCidr(addressSpace).cidr + 2, i))

// Each endpoint takes connections from those who have business with it. Azure's own last rule would let in the whole network.
var endpointRules = concat([
  { name: 'allow-https', access: 'Allow', protocol: 'Tcp', priority: 100, from: 'VirtualNetwork', port: '443' }
  { name: 'allow-hubs', access: 'Allow', protocol: 'Tcp', priority: 110, from: 'VirtualNetwork', port: '5671' }
  { name: 'allow-redis', access: 'Allow', protocol: 'Tcp', priority: 120, from: prefixes[1], port: '10000' }
  { name: 'deny-other', access: 'Deny', protocol: '*', priority: 4096, from: '*', port: '*' }
], withContainers ? [{ name: 'allow-redis-builtin', access: 'Allow', protocol: 'Tcp', priority: 130, from: prefixes[3], port: '10000' }] : [])

// The environment's load balancer hands calls on under another port.
var callRules = [
  { name: 'allow-calls', access: 'Allow', protocol: 'Tcp', priority: 100, from: 'Internet', to: prefixes[3], ports: ['443', '31443'] }
]

resource groups 'Microsoft.Network/networkSecurityGroups@2025-05-01' = [for subnet in subnets: {
  name: 'nsg-${subnet.key}-${names.base}'
  location: location
  tags: tags
  properties: {
    securityRules: [for rule in subnet.rules: {
      name: rule.name
      properties: {
        priority: rule.priority
        direction: 'Inbound'
        access: rule.access
        protocol: rule.protocol
        sourceAddressPrefix: rule.from
        sourcePortRange: '*'
        destinationAddressPrefix: rule.?to ?? '*'
        destinationPortRange: rule.?port
        destinationPortRanges: rule.?ports
      }
    }]
  }
}]

resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = {
  name: names.virtualNetwork
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [addressSpace] }
    subnets: [for (subnet, i) in subnets: {
      name: 'snet-${subnet.key}'
      properties: {
        addressPrefix: prefixes[subnet.index]
        networkSecurityGroup: { id: groups[i].id }
        privateEndpointNetworkPolicies: 'Enabled' // without it the rules do not hold for endpoints
        delegations: empty(subnet.delegation) ? [] : [{ name: 'delegation', properties: { serviceName: subnet.delegation } }]
      }
    }]
  }
}
