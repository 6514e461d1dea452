// The private endpoints, and the DNS zones that their names are looked up in.
param names object
param location string
param tags object
param network object // virtualNetworkId, subnetIds
param existingZoneIds object
param endpoints array // { key, id, subresource, zones }

var zones = union(flatten(map(endpoints, endpoint => endpoint.zones)), [])
var ownZones = filter(zones, zone => !contains(existingZoneIds, zone))
var group = resourceGroup().id
var ownZoneIds = toObject(zones, zone => zone, zone => '${group}/providers/Microsoft.Network/privateDnsZones/${zone}')
var zoneIds = union(ownZoneIds, existingZoneIds)

resource dnsZones 'Microsoft.Network/privateDnsZones@2024-06-01' = [for zone in ownZones: {
  name: zone
  location: 'global'
  tags: tags
}]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [for (zone, i) in ownZones: {
  parent: dnsZones[i]
  name: names.virtualNetwork
  location: 'global'
  tags: tags
  properties: { registrationEnabled: false, virtualNetwork: { id: network.virtualNetworkId } }
}]

resource privateEndpoints 'Microsoft.Network/privateEndpoints@2025-05-01' = [for endpoint in endpoints: {
  name: 'pep-${endpoint.key}-${names.base}'
  location: location
  tags: tags
  properties: {
    subnet: { id: network.subnetIds.endpoints }
    privateLinkServiceConnections: [
      { name: endpoint.key, properties: { privateLinkServiceId: endpoint.id, groupIds: [endpoint.subresource] } }
    ]
  }
}]

resource registrations 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2025-05-01' = [for (endpoint, i) in endpoints: {
  parent: privateEndpoints[i]
  name: 'default'
  dependsOn: [dnsZones]
  properties: {
    privateDnsZoneConfigs: [for zone in endpoint.zones: { name: zone, properties: { privateDnsZoneId: zoneIds[zone] } }]
  }
}]
