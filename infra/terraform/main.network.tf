# The private network. Nothing of this file is created while private_network is false.

locals {
  own_network = var.private_network && var.existing_network == null

  # Delegations: the gateway's is for the outbound integration of the v2 tiers, the functions' for Flex Consumption. Azure gives
  # each service its own action and takes no other: a wrong one here would be a change in every plan.
  subnets = merge({
    functions = { index = 1, delegation = { name = "Microsoft.App/environments", action = "join/action" } }
    endpoints = { index = 2, delegation = null }
    }, !var.api_management ? {} : {
    gateway = { index = 0, delegation = { name = "Microsoft.Web/serverFarms", action = "action" } }
    }, !local.has_builtin ? {} : {
    containers = { index = 3, delegation = { name = "Microsoft.App/environments", action = "join/action" } }
  })

  # Through the association, so that whatever moves into a subnet finds its security group there: API Management refuses one without.
  subnet_ids = {
    for key in ["gateway", "functions", "endpoints", "containers"] :
    key => !contains(keys(local.subnets), key) ? null : local.own_network ? azurerm_subnet_network_security_group_association.this[key].subnet_id : try(var.existing_network.subnet_ids[key], null)
  }
  virtual_network_id = local.own_network ? azurerm_virtual_network.this[0].id : try(var.existing_network.virtual_network_id, null)

  # Only the private endpoints take connections, each from those who have business with them, and the built-in gateway where it is
  # called from outside. The other subnets are for going out: to the endpoints, and to Entra ID, Azure Monitor and the gateway's own dependencies, which have none.
  endpoint_rules = merge({
    https = { priority = 100, from = "VirtualNetwork", ports = ["443"] }
    hubs  = { priority = 110, from = "VirtualNetwork", ports = ["5671"] }
    redis = { priority = 120, from = try(one(azurerm_subnet.this["functions"].address_prefixes), null), ports = ["10000"] }
    }, !local.has_builtin ? {} : {
    redis-builtin = { priority = 130, from = try(one(azurerm_subnet.this["containers"].address_prefixes), null), ports = ["10000"] }
  })

  zone_names = {
    blob      = "privatelink.blob.core.windows.net"
    table     = "privatelink.table.core.windows.net"
    hubs      = "privatelink.servicebus.windows.net"
    redis     = "privatelink.redis.azure.net"
    vault     = "privatelink.vaultcore.azure.net"
    functions = "privatelink.azurewebsites.net"
    openai    = "privatelink.openai.azure.com"
    cognitive = "privatelink.cognitiveservices.azure.com"
    foundry   = "privatelink.services.ai.azure.com"
  }

  # The private endpoints of all that the function app needs, with the zones their names are looked up in.
  private_endpoints = {
    for key, endpoint in merge({
      host-blob    = { id = azurerm_storage_account.host.id, subresource = "blob", zones = [local.zone_names.blob] }
      host-table   = { id = azurerm_storage_account.host.id, subresource = "table", zones = [local.zone_names.table] }
      ledger-blob  = { id = azurerm_storage_account.ledger.id, subresource = "blob", zones = [local.zone_names.blob] }
      ledger-table = { id = azurerm_storage_account.ledger.id, subresource = "table", zones = [local.zone_names.table] }
      usage        = { id = azurerm_eventhub_namespace.usage.id, subresource = "namespace", zones = [local.zone_names.hubs] }
      llm-logs     = { id = azapi_resource.llm_logs_namespace.id, subresource = "namespace", zones = [local.zone_names.hubs] }
      redis        = { id = azurerm_managed_redis.this.id, subresource = "redisEnterprise", zones = [local.zone_names.redis] }
      vault        = { id = azurerm_key_vault.this.id, subresource = "vault", zones = [local.zone_names.vault] }
      }, {
      for key, account in azurerm_cognitive_account.this : "models-${key}" => {
        id          = account.id
        subresource = "account"
        zones       = [local.zone_names.openai, local.zone_names.cognitive, local.zone_names.foundry]
      }
    }) : key => endpoint if var.private_network
  }

  zones     = toset(concat(flatten([for endpoint in local.private_endpoints : endpoint.zones]), var.private_network ? [local.zone_names.functions] : []))
  own_zones = setsubtract(local.zones, keys(var.existing_private_dns_zone_ids))
  zone_ids  = merge({ for zone in local.own_zones : zone => azurerm_private_dns_zone.this[zone].id }, var.existing_private_dns_zone_ids)
}

resource "azurerm_virtual_network" "this" {
  count               = local.own_network ? 1 : 0
  name                = local.names.virtual_network
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  address_space       = [var.address_space]
  tags                = local.tags
}

resource "azurerm_subnet" "this" {
  for_each                          = { for key, subnet in local.subnets : key => subnet if local.own_network }
  name                              = "snet-${each.key}"
  resource_group_name               = local.resource_group.name
  virtual_network_name              = azurerm_virtual_network.this[0].name
  address_prefixes                  = [cidrsubnet(var.address_space, 2, each.value.index)] # a /24 gives each 59 addresses
  private_endpoint_network_policies = "Enabled"                                            # without it the rules below do not hold for endpoints

  dynamic "delegation" {
    for_each = each.value.delegation[*]
    content {
      name = "delegation"
      service_delegation {
        name    = delegation.value.name
        actions = ["Microsoft.Network/virtualNetworks/subnets/${delegation.value.action}"]
      }
    }
  }
}

resource "azurerm_network_security_group" "this" {
  for_each            = azurerm_subnet.this
  name                = "nsg-${each.key}-${local.base}"
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  tags                = local.tags
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each                  = azurerm_subnet.this
  subnet_id                 = each.value.id
  network_security_group_id = azurerm_network_security_group.this[each.key].id
}

resource "azurerm_network_security_rule" "endpoints_allow" {
  for_each                    = { for key, rule in local.endpoint_rules : key => rule if local.own_network }
  name                        = "allow-${each.key}"
  resource_group_name         = local.resource_group.name
  network_security_group_name = azurerm_network_security_group.this["endpoints"].name
  priority                    = each.value.priority
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_address_prefix       = each.value.from
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_ranges     = each.value.ports
}

# The environment's load balancer hands calls on under another port.
resource "azurerm_network_security_rule" "containers_https" {
  count                       = local.own_network && local.has_builtin && !local.builtin_internal ? 1 : 0
  name                        = "allow-calls"
  resource_group_name         = local.resource_group.name
  network_security_group_name = azurerm_network_security_group.this["containers"].name
  priority                    = 100
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_address_prefix       = "Internet"
  source_port_range           = "*"
  destination_address_prefix  = one(azurerm_subnet.this["containers"].address_prefixes)
  destination_port_ranges     = ["443", "31443"]
}

# Azure's own last rule lets everything in the network reach everything.
resource "azurerm_network_security_rule" "endpoints_deny" {
  count                       = local.own_network ? 1 : 0
  name                        = "deny-other"
  resource_group_name         = local.resource_group.name
  network_security_group_name = azurerm_network_security_group.this["endpoints"].name
  priority                    = 4096
  direction                   = "Inbound"
  access                      = "Deny"
  protocol                    = "*"
  source_address_prefix       = "*"
  source_port_range           = "*"
  destination_address_prefix  = "*"
  destination_port_range      = "*"
}

resource "azurerm_private_dns_zone" "this" {
  for_each            = local.own_zones
  name                = each.key
  resource_group_name = local.resource_group.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each            = azurerm_private_dns_zone.this
  name                = local.names.virtual_network
  private_dns_zone_id = each.value.id
  virtual_network_id  = local.virtual_network_id
  tags                = local.tags
}

resource "azurerm_private_endpoint" "this" {
  for_each            = local.private_endpoints
  name                = "pep-${each.key}-${local.base}"
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  subnet_id           = local.subnet_ids.endpoints
  tags                = local.tags

  private_service_connection {
    name                           = each.key
    is_manual_connection           = false
    private_connection_resource_id = each.value.id
    subresource_names              = [each.value.subresource]
  }

  private_dns_zone_group {
    name                 = "default"
    private_dns_zone_ids = [for zone in each.value.zones : local.zone_ids[zone]]
  }

  # An account takes no endpoint while one of its models is being deployed, and Redis makes one change at a time.
  depends_on = [
    azurerm_cognitive_deployment.this,
    azurerm_managed_redis_access_policy_assignment.builtin,
    azurerm_managed_redis_access_policy_assignment.functions,
  ]
}

# Apart from the others, because the app comes between: it waits for them, and this one for the app.
resource "azurerm_private_endpoint" "functions" {
  count               = var.private_network ? 1 : 0
  name                = "pep-functions-${local.base}"
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  subnet_id           = local.subnet_ids.endpoints
  tags                = local.tags

  private_service_connection {
    name                           = "functions"
    is_manual_connection           = false
    private_connection_resource_id = azapi_resource.functions.id
    subresource_names              = ["sites"]
  }

  private_dns_zone_group {
    name                 = "default"
    private_dns_zone_ids = [local.zone_ids[local.zone_names.functions]]
  }
}
