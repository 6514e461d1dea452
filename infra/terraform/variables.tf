# Where

variable "subscription_id" {
  description = "The subscription that everything is created in."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", var.subscription_id))
    error_message = "subscription_id: expected the subscription's UUID, as `az account show --query id` prints it."
  }
}

variable "name" {
  description = "First part of every resource's name."
  type        = string
  default     = "tollkeeper"
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{2,9}$", var.name))
    error_message = "name: expected 3 to 10 lower-case letters and digits, a letter first; storage accounts allow no more."
  }
}

variable "environment" {
  description = "Tells deployments in one subscription apart, such as dev and prod."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,7}$", var.environment))
    error_message = "environment: expected 2 to 8 lower-case letters and digits, a letter first, such as dev."
  }
}

variable "location" {
  description = "Azure region of everything but the models, such as swedencentral."
  type        = string
  validation {
    condition     = can(regex("^[a-z]+[a-z0-9]*$", var.location))
    error_message = "location: expected a region's short name such as swedencentral, as `az account list-locations` prints it."
  }
}

variable "tags" {
  description = "Tags of every resource, beside application, environment and azd-env-name."
  type        = map(string)
  default     = {}
  nullable    = false
  validation {
    condition     = length(setintersection(keys(var.tags), ["application", "environment", "azd-env-name", "azd-service-name"])) == 0
    error_message = "tags: application, environment, azd-env-name and azd-service-name are set by the template; leave them out."
  }
}

variable "existing_resource_group_name" {
  description = "A resource group to use. Without it one is created."
  type        = string
  default     = null
  validation {
    condition     = can(regex("^[-\\w.()]{0,89}[-\\w()]$", coalesce(var.existing_resource_group_name, "rg")))
    error_message = "existing_resource_group_name: expected the group's name, not its id."
  }
}

variable "existing_log_analytics_workspace_id" {
  description = "A Log Analytics workspace to use. Without it one is created."
  type        = string
  default     = null
  validation {
    condition     = can(regex("(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.OperationalInsights/workspaces/[^/]+$", coalesce(var.existing_log_analytics_workspace_id, "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/workspaces/w")))
    error_message = "existing_log_analytics_workspace_id: expected /subscriptions/.../resourceGroups/.../providers/Microsoft.OperationalInsights/workspaces/<name>."
  }
}

# Network

variable "private_network" {
  description = "true: private endpoints, no public access but the gateway's. false: the quick start, public endpoints that take Entra ID tokens only."
  type        = bool
  default     = true
  nullable    = false
}

variable "address_space" {
  description = "Address range of the virtual network, /24 or larger. It must not overlap with networks it is peered with."
  type        = string
  default     = "10.64.0.0/24"
  nullable    = false
  validation {
    condition     = can(cidrhost(var.address_space, 0)) && can(regex("^[0-9.]+/(8|9|1[0-9]|2[0-4])$", var.address_space))
    error_message = "address_space: expected an IPv4 range from /8 to /24, such as 10.64.0.0/24."
  }
}

variable "existing_network" {
  description = "A virtual network to use, with a subnet each for the functions (delegated to Microsoft.App/environments) and the private endpoints; for an API Management that is created also gateway (Microsoft.Web/serverFarms), for builtin_gateway containers (Microsoft.App/environments). Without it one is created."
  type = object({
    virtual_network_id = string
    subnet_ids         = object({ gateway = optional(string), functions = string, endpoints = string, containers = optional(string) })
  })
  default = null
  validation {
    condition = var.existing_network == null ? true : (
      can(regex("(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Network/virtualNetworks/[^/]+$", var.existing_network.virtual_network_id)) &&
      alltrue([for id in values(var.existing_network.subnet_ids) : id == null ? true : startswith(lower(id), "${lower(var.existing_network.virtual_network_id)}/subnets/")])
    )
    error_message = "existing_network: expected the id of a virtual network (/subscriptions/.../virtualNetworks/<name>) and of subnets in it (<that id>/subnets/<name>)."
  }
  validation {
    condition     = var.existing_network == null ? true : length(distinct(compact(values(var.existing_network.subnet_ids)))) == length(compact(values(var.existing_network.subnet_ids)))
    error_message = "existing_network: expected a different subnet for each; a delegated subnet serves one thing only."
  }
  validation {
    condition     = var.existing_network == null || var.private_network
    error_message = "existing_network: nothing uses it while private_network is false; set private_network = true or leave it out."
  }
}

variable "existing_private_dns_zone_ids" {
  description = "Private DNS zones to use, as {zone name = id}, linked to the network by their owner. Zones that are not named here are created."
  type        = map(string)
  default     = {}
  nullable    = false
  validation {
    condition = alltrue([
      for zone, id in var.existing_private_dns_zone_ids :
      startswith(zone, "privatelink.") && endswith(lower(id), "/providers/microsoft.network/privatednszones/${lower(zone)}")
    ])
    error_message = "existing_private_dns_zone_ids: expected {\"privatelink.blob.core.windows.net\" = \"/subscriptions/.../privateDnsZones/privatelink.blob.core.windows.net\"}, with the zone of the key at the end of the id."
  }
  validation {
    condition     = length(setsubtract(keys(var.existing_private_dns_zone_ids), values(local.zone_names))) == 0
    error_message = "existing_private_dns_zone_ids: nothing looks up ${join(", ", setsubtract(keys(var.existing_private_dns_zone_ids), values(local.zone_names)))}; expected some of ${join(", ", values(local.zone_names))}."
  }
}

variable "deployer_ip_ranges" {
  description = "Public IPv4 addresses or ranges that may reach the function app and the ledger's storage of a private deployment, for a pipeline outside the network."
  type        = set(string)
  default     = []
  nullable    = false
  validation {
    condition = alltrue([
      for range in var.deployer_ip_ranges : can(cidrhost(strcontains(range, "/") ? range : "${range}/32", 0)) && can(regex("^[0-9.]+(/(8|9|1[0-9]|2[0-9]|30))?$", range))
    ])
    error_message = "deployer_ip_ranges: expected addresses such as 203.0.113.7 or ranges from /8 to /30; storage refuses /31 and /32, so write those as addresses."
  }
  validation {
    condition     = length(var.deployer_ip_ranges) == 0 || var.private_network
    error_message = "deployer_ip_ranges: nothing uses them while private_network is false; leave them out."
  }
  validation {
    condition = !anytrue([
      for range in var.deployer_ip_ranges : can(regex("^(10\\.|127\\.|192\\.168\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.)", range))
    ])
    error_message = "deployer_ip_ranges: private addresses never arrive at a public endpoint; name the public address that the pipeline leaves from."
  }
}

# Who

variable "entra_client_id" { # not set? make entra ENV=<environment>
  description = "Client id of the function app's registration in Entra ID, which infra/entra creates."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", var.entra_client_id))
    error_message = "entra_client_id: expected the application (client) id, a UUID: the output client_id of infra/entra."
  }
}

variable "entra_audience" {
  description = "Audience of the function app's tokens. Without it: api://<entra_client_id>."
  type        = string
  default     = null
  validation {
    condition     = can(regex("^(api://|https://)?[A-Za-z0-9][A-Za-z0-9./_-]*$", coalesce(var.entra_audience, "api://default")))
    error_message = "entra_audience: expected an application id URI such as api://tollkeeper, or a client id."
  }
}

variable "config_publishers" {
  description = "Object ids of people, groups or pipelines that may publish the configuration. Without any: whoever applies, which changes with every other hand."
  type        = set(string)
  default     = []
  nullable    = false
  validation {
    condition     = alltrue([for id in var.config_publishers : can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", id))])
    error_message = "config_publishers: expected object ids (UUIDs) from Entra ID; of an app, the one of its service principal."
  }
}

variable "public_health" {
  description = "Whether /api/v1/health answers without a token, as probes of load balancers want. It names states of dependencies, no addresses."
  type        = bool
  default     = false
  nullable    = false
}

# How much

variable "zone_redundant" {
  description = "Spread storage and functions over availability zones. It can be chosen at the first deployment only."
  type        = bool
  default     = true
  nullable    = false
}

variable "ledger_replication" {
  description = "Replication of the ledger's storage account. Without it: ZRS, or LRS where zone_redundant is false. GZRS also keeps a copy in the paired region."
  type        = string
  default     = null
  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "GZRS"], coalesce(var.ledger_replication, "ZRS"))
    error_message = "ledger_replication: expected LRS, ZRS, GRS or GZRS."
  }
  validation {
    condition     = !var.zone_redundant || endswith(coalesce(var.ledger_replication, "ZRS"), "ZRS")
    error_message = "ledger_replication: with zone_redundant = true expected ZRS or GZRS; LRS and GRS keep the ledger in one zone."
  }
}

variable "ledger_retention_days" {
  description = "Days after which the retention job deletes ledger hours. 0 keeps them for ever."
  type        = number
  default     = 0
  nullable    = false
  validation {
    condition     = var.ledger_retention_days == 0 || (var.ledger_retention_days >= 62 && var.ledger_retention_days <= 36500 && floor(var.ledger_retention_days) == var.ledger_retention_days)
    error_message = "ledger_retention_days: expected 0, or a whole number from 62 to 36500; statements of the month before are written anew every night."
  }
}

variable "ledger_export" {
  description = "The nightly export of the ledger: for how many days nobody can change or delete a part of it, and whether nobody can shorten that any more. A lock cannot be taken back, and keeps the storage account from being deleted until the last day has passed."
  type        = object({ days = optional(number, 365), locked = optional(bool, false) })
  default     = {}
  nullable    = false
  validation {
    condition     = var.ledger_export.days >= 1 && var.ledger_export.days <= 146000 && floor(var.ledger_export.days) == var.ledger_export.days
    error_message = "ledger_export: expected days from 1 to 146000."
  }
}

variable "capture_retention_days" {
  description = "Days that the raw usage events of Event Hubs Capture are kept."
  type        = number
  default     = 90
  nullable    = false
  validation {
    condition     = var.capture_retention_days >= 8 && var.capture_retention_days <= 3650 && floor(var.capture_retention_days) == var.capture_retention_days
    error_message = "capture_retention_days: expected a whole number from 8 to 3650; the hub itself keeps events for 7 days."
  }
}

variable "recovery_days" {
  description = "Days that deleted and overwritten blobs and deleted containers can be brought back."
  type        = number
  default     = 30
  nullable    = false
  validation {
    condition     = var.recovery_days >= 7 && var.recovery_days <= 365 && floor(var.recovery_days) == var.recovery_days
    error_message = "recovery_days: expected a whole number from 7 to 365."
  }
}

variable "throughput_units" {
  description = "Throughput units of the hubs' namespaces (1 MB/s or 1,000 events/s in each): those they are created with, and the limit to which they grow by themselves. They do not shrink by themselves."
  type        = object({ least = optional(number, 1), most = optional(number, 4) })
  default     = {}
  nullable    = false
  validation {
    condition     = 1 <= var.throughput_units.least && var.throughput_units.least < var.throughput_units.most && var.throughput_units.most <= 40
    error_message = "throughput_units: expected 1 <= least < most <= 40."
  }
}

variable "redis" {
  description = "Azure Managed Redis: its SKU, and whether a second node stands by (without one a failure loses the counters, which are then rebuilt from the ledger). Both can only be changed by creating it anew."
  type        = object({ sku = optional(string, "Balanced_B1"), high_availability = optional(bool, true) })
  default     = {}
  nullable    = false
  validation {
    condition     = can(regex("^(Balanced_B(0|1|3|5|10|20|50|100)|MemoryOptimized_M(10|20|50|100)|ComputeOptimized_X(3|5|10|20|50|100))$", var.redis.sku))
    error_message = "redis: expected a sku such as Balanced_B1, MemoryOptimized_M10 or ComputeOptimized_X3. Flash SKUs are too slow for the check."
  }
}

variable "functions" {
  description = "The function app: memory of an instance, how many run always and at most, how many requests one instance takes at once, and how a new version comes in."
  type = object({
    instance_memory_mb   = optional(number, 2048)
    maximum_instances    = optional(number, 40)
    always_ready_http    = optional(number, 2)
    always_ready_ingest  = optional(number, 2)
    requests_at_once     = optional(number, 32)
    site_update_strategy = optional(string, "RollingUpdate")
  })
  default  = {}
  nullable = false
  validation {
    condition     = contains([512, 2048, 4096], var.functions.instance_memory_mb)
    error_message = "functions: expected instance_memory_mb 512, 2048 or 4096."
  }
  validation {
    condition     = var.functions.maximum_instances >= 1 && var.functions.maximum_instances <= 1000 && floor(var.functions.maximum_instances) == var.functions.maximum_instances
    error_message = "functions: expected maximum_instances from 1 to 1000."
  }
  validation {
    condition     = var.functions.always_ready_http >= 1 && var.functions.always_ready_ingest >= 0 && max(var.functions.always_ready_http, var.functions.always_ready_ingest) <= var.functions.maximum_instances
    error_message = "functions: expected always_ready_http of at least 1, because a cold start is longer than a gateway waits for a check, and neither it nor always_ready_ingest above maximum_instances."
  }
  validation {
    condition     = !var.zone_redundant || (var.functions.always_ready_http >= 2 && contains([0, 2, 3, 4, 5, 6, 7, 8, 9, 10], min(var.functions.always_ready_ingest, 10)))
    error_message = "functions: with zone_redundant = true expected at least 2 always_ready_http, and 0 or at least 2 always_ready_ingest: one instance stands in one zone."
  }
  validation {
    condition     = var.functions.requests_at_once >= 1 && var.functions.requests_at_once <= 1000 && floor(var.functions.requests_at_once) == var.functions.requests_at_once
    error_message = "functions: expected requests_at_once from 1 to 1000. Azure's default for Python is 1, which starts an instance for each call."
  }
  validation {
    condition     = contains(["RollingUpdate", "Recreate"], var.functions.site_update_strategy)
    error_message = "functions: expected site_update_strategy RollingUpdate, or Recreate where a region does not offer it yet."
  }
}

variable "settings" {
  description = "Further settings of the function app by name, none of them secret, such as MAIL_FROM, COMMUNICATION_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT, or PUBLIC_URL for a domain of your own. docs/configuration.md lists them; those that the templates make go before them."
  type        = map(string)
  default     = {}
  nullable    = false
  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^[A-Za-z][A-Za-z0-9_]*$", name)) && !can(regex("^ALERT_|^SMTP_URL$|SECRET|_HEADERS$|_KEY$", name))])
    error_message = "settings: expected names of settings that hold no secret; ALERT_..., SMTP_URL, HELICONE_WEBHOOK_SECRET, PSEUDONYM_KEY and OTEL_..._HEADERS belong to secret_settings."
  }
}

variable "secret_settings" {
  description = "Settings of the function app whose values stand in the Key Vault, by name, such as ALERT_SLACK_FINOPS, SMTP_URL, PSEUDONYM_KEY or OTEL_EXPORTER_OTLP_HEADERS. The secret has the setting's name in lower case with dashes, alert-slack-finops; put it there first, because the app does not start without those it reads, but for ALERT_...: it is never in the state."
  type        = set(string)
  default     = []
  nullable    = false
  validation {
    condition     = alltrue([for name in var.secret_settings : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "secret_settings: expected names in capitals, such as ALERT_SLACK_FINOPS."
  }
}

variable "reservation_keys_version" {
  description = "Raise it to replace the key that signs reservations at once, as after a leak: calls in flight then lose theirs. A planned rotation is described in docs/operations.md."
  type        = number
  default     = 1
  nullable    = false
  validation {
    condition     = var.reservation_keys_version >= 1 && floor(var.reservation_keys_version) == var.reservation_keys_version
    error_message = "reservation_keys_version: expected a whole number from 1, higher than the last."
  }
}
