# The built-in gateway on Azure Container Apps. Nothing of this file is created while builtin_gateway is null.

locals {
  has_builtin      = var.builtin_gateway != null
  builtin          = { for one in var.builtin_gateway[*] : "builtin" => one } # for_each of what there is one of, or none
  builtin_internal = local.has_builtin && !try(var.builtin_gateway.external, true)
  own_registry     = local.has_builtin && try(var.builtin_gateway.image, null) == null

  # Before its first build there is nothing that an app could be started from.
  builtin_image = !local.has_builtin ? null : local.own_registry ? (
    var.builtin_gateway_tag == null ? null : "${azurerm_container_registry.this[0].login_server}/${local.shared.image}:${var.builtin_gateway_tag}"
  ) : var.builtin_gateway.image
  has_builtin_app = local.has_builtin && (!local.own_registry || var.builtin_gateway_tag != null)

  builtin_registry = local.own_registry ? {
    id     = azurerm_container_registry.this[0].id
    server = azurerm_container_registry.this[0].login_server
    } : try({
      id     = coalesce(var.builtin_gateway.registry_id)
      server = split("/", var.builtin_gateway.image)[0]
  }, null)
  pulls_by_identity = local.own_registry || try(var.builtin_gateway.registry_id, null) != null

  # What both processes must go by alike: they count in one Redis, and each other's reservations and names must mean the same.
  builtin_same_settings = { for name, value in var.settings : name => value if contains(local.shared.same_settings, name) }
  builtin_secrets = merge({ RESERVATION_KEYS = local.shared.secrets.reservation_keys }, {
    for name in setunion(try(var.builtin_gateway.secret_settings, []), setintersection(var.secret_settings, local.shared.same_settings)) :
    name => lower(replace(name, "_", "-"))
  })

  # A setting of the templates' own goes before one that is added under its name.
  builtin_settings = { for key in keys(local.builtin) : key => merge(
    { for url in local.first_model_endpoint[*] : "AZURE_OPENAI_ENDPOINT" => url },
    local.builtin_same_settings,
    var.builtin_gateway.settings,
    local.shared.builtin_settings,
    {
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING = "Authorization=AAD;ClientId=${azurerm_user_assigned_identity.builtin[0].client_id}"
      APPLICATIONINSIGHTS_CONNECTION_STRING     = azurerm_application_insights.this.connection_string
      AZURE_CLIENT_ID                           = azurerm_user_assigned_identity.builtin[0].client_id
      CONFIG_URL                                = local.config_url
      ENTRA_AUDIENCE                            = coalesce(var.entra_gateway_client_id, var.entra_client_id)
      ENTRA_ISSUER                              = local.entra_issuer
      EventHubs__fullyQualifiedNamespace        = "${azurerm_eventhub_namespace.usage.name}.servicebus.windows.net"
      GATEWAY_NAME                              = local.names.builtin
      REDIS_URL                                 = "rediss://${azurerm_managed_redis.this.hostname}:10000"
      USAGE_HUB                                 = azurerm_eventhub.usage.name
    },
  ) }

  # Where config/models.yaml lists no endpoints, the account of the lowest priority serves.
  nearest_first        = sort([for key, model in local.models : format("%03d %s", model.priority, key)])
  first_model_endpoint = length(local.nearest_first) == 0 ? null : local.models[split(" ", local.nearest_first[0])[1]].endpoint
}

# The built-in gateway works as this identity, towards models, the usage hub, Redis, configuration, its secrets and telemetry.
resource "azurerm_user_assigned_identity" "builtin" {
  count               = local.has_builtin ? 1 : 0
  name                = local.names.builtin_identity
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  tags                = local.tags
}

# It holds the image and nothing else: code that is no secret, pushed and pulled with tokens of Entra ID. It stays reachable in a
# private deployment, because what builds there for us has no way into the network.
resource "azurerm_container_registry" "this" {
  count                  = local.own_registry ? 1 : 0
  name                   = local.names.registry
  resource_group_name    = local.resource_group.name
  location               = local.resource_group.location
  sku                    = "Basic"
  admin_enabled          = false
  anonymous_pull_enabled = false
  tags                   = local.tags
}

resource "azurerm_container_app_environment" "this" {
  count               = local.has_builtin ? 1 : 0
  name                = local.names.containers
  resource_group_name = local.resource_group.name
  location            = local.resource_group.location
  logs_destination    = "azure-monitor" # by diagnostic setting: the other way takes the workspace's key, which is off
  tags                = local.tags

  infrastructure_subnet_id           = local.subnet_ids.containers
  infrastructure_resource_group_name = var.private_network ? "${local.resource_group.name}-containers" : null
  internal_load_balancer_enabled     = var.private_network ? local.builtin_internal : null
  zone_redundancy_enabled            = var.private_network ? var.zone_redundant : null
  public_network_access              = local.builtin_internal ? "Disabled" : "Enabled"

  workload_profile {
    name                  = "Consumption"
    workload_profile_type = "Consumption"
  }
}

resource "azurerm_container_app" "builtin" {
  count                        = local.has_builtin_app ? 1 : 0
  name                         = local.names.builtin
  resource_group_name          = local.resource_group.name
  container_app_environment_id = azurerm_container_app_environment.this[0].id
  workload_profile_name        = "Consumption"
  revision_mode                = "Single" # a new revision takes over when its probes pass
  max_inactive_revisions       = 5
  tags                         = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.builtin[0].id]
  }

  dynamic "registry" {
    for_each = local.pulls_by_identity ? [local.builtin_registry.server] : []
    content {
      server   = registry.value
      identity = azurerm_user_assigned_identity.builtin[0].id
    }
  }

  dynamic "secret" {
    for_each = local.builtin_secrets
    content {
      name                = secret.value
      identity            = azurerm_user_assigned_identity.builtin[0].id
      key_vault_secret_id = "${azurerm_key_vault.this.vault_uri}secrets/${secret.value}"
    }
  }

  ingress {
    external_enabled           = true # to the environment's own address, which is the network's where that is internal
    target_port                = local.shared.builtin_settings.GATEWAY_PORT
    transport                  = "auto"
    allow_insecure_connections = false
    client_certificate_mode    = "ignore"

    traffic_weight {
      latest_revision = true
      percentage      = 100
    }

    dynamic "ip_security_restriction" {
      for_each = sort(var.builtin_gateway.allowed_ip_ranges)
      content {
        name             = "allowed-${ip_security_restriction.key}"
        action           = "Allow"
        ip_address_range = strcontains(ip_security_restriction.value, "/") ? ip_security_restriction.value : "${ip_security_restriction.value}/32"
      }
    }
  }

  template {
    min_replicas                     = var.builtin_gateway.replicas.least
    max_replicas                     = var.builtin_gateway.replicas.most
    termination_grace_period_seconds = local.shared.termination_seconds
    cooldown_period_in_seconds       = 300

    # Streams are open for minutes and cost little; calls in flight tell of load before the processor does.
    http_scale_rule {
      name                = "calls"
      concurrent_requests = tostring(var.builtin_gateway.calls_at_once)
    }
    custom_scale_rule {
      name             = "cpu"
      custom_rule_type = "cpu"
      metadata         = { type = "Utilization", value = "70" }
    }

    # On the replica's own disk: it outlives the container's restarts, not the replica. See docs/adr/028-spool-on-the-replica.md.
    volume {
      name         = "spool"
      storage_type = "EmptyDir"
    }

    container {
      name   = "gateway"
      image  = local.builtin_image
      cpu    = var.builtin_gateway.cpu
      memory = "${2 * var.builtin_gateway.cpu}Gi"

      volume_mounts {
        name = "spool"
        path = local.shared.builtin_settings.SPOOL_DIR
      }

      dynamic "env" {
        for_each = local.builtin_settings["builtin"]
        content {
          name  = env.key
          value = env.value
        }
      }
      dynamic "env" {
        for_each = local.builtin_secrets
        content {
          name        = env.key
          secret_name = env.value
        }
      }

      # /health says that the process serves, whatever its dependencies do: a restart would cure none of them.
      startup_probe {
        transport               = "HTTP"
        path                    = "/health"
        port                    = local.shared.builtin_settings.GATEWAY_PORT
        interval_seconds        = 5
        timeout                 = 3
        failure_count_threshold = 30
      }
      liveness_probe {
        transport               = "HTTP"
        path                    = "/health"
        port                    = local.shared.builtin_settings.GATEWAY_PORT
        interval_seconds        = 15
        timeout                 = 5
        failure_count_threshold = 4
      }
      readiness_probe {
        transport               = "HTTP"
        path                    = "/health"
        port                    = local.shared.builtin_settings.GATEWAY_PORT
        interval_seconds        = 5
        timeout                 = 3
        failure_count_threshold = 3
      }
    }
  }

  # It reads its secrets and its configuration at the start, and pulls its image before.
  depends_on = [
    azapi_resource_action.reservation_keys,
    azurerm_managed_redis_access_policy_assignment.builtin,
    azurerm_private_dns_zone_virtual_network_link.this,
    azurerm_private_endpoint.this,
    azurerm_role_assignment.this,
  ]
}

resource "azurerm_managed_redis_access_policy_assignment" "builtin" {
  count            = local.has_builtin ? 1 : 0
  managed_redis_id = azurerm_managed_redis.this.id
  object_id        = azurerm_user_assigned_identity.builtin[0].principal_id

  depends_on = [azurerm_managed_redis_access_policy_assignment.functions] # Redis makes one change at a time
}

# An internal environment is found by names that only this network knows.

resource "azurerm_private_dns_zone" "containers" {
  count               = local.builtin_internal ? 1 : 0
  name                = azurerm_container_app_environment.this[0].default_domain
  resource_group_name = local.resource_group.name
  tags                = local.tags
}

resource "azurerm_private_dns_a_record" "containers" {
  count               = local.builtin_internal ? 1 : 0
  name                = "*"
  private_dns_zone_id = azurerm_private_dns_zone.containers[0].id
  ttl                 = 300
  records             = [azurerm_container_app_environment.this[0].static_ip_address]
}

resource "azurerm_private_dns_zone_virtual_network_link" "containers" {
  count               = local.builtin_internal ? 1 : 0
  name                = local.names.virtual_network
  private_dns_zone_id = azurerm_private_dns_zone.containers[0].id
  virtual_network_id  = local.virtual_network_id
  tags                = local.tags
}
