variable "builtin_gateway" {
  description = "The built-in gateway on Azure Container Apps, beside API Management or in its place (api_management = false). Without it nothing of it is created. See docs/deployment.md."
  type = object({
    external          = optional(bool, true) # with private_network, false: reached from the network alone
    allowed_ip_ranges = optional(set(string), [])
    image             = optional(string) # of a registry that is there already; without it one is created, and `make deploy` builds
    registry_id       = optional(string) # that registry, where its images are not public
    cpu               = optional(number, 1)
    replicas          = optional(object({ least = optional(number, 2), most = optional(number, 10) }), {})
    calls_at_once     = optional(number, 100) # in one replica, before another is started
    settings          = optional(map(string), {})
    secret_settings   = optional(set(string), [])
  })
  default = null
  validation {
    condition     = var.builtin_gateway == null || try(var.builtin_gateway.external, true) || var.private_network
    error_message = "builtin_gateway: external = false needs private_network = true: without a network nobody could reach it."
  }
  validation {
    condition = alltrue([
      for range in try(var.builtin_gateway.allowed_ip_ranges, []) : can(cidrhost(strcontains(range, "/") ? range : "${range}/32", 0)) && can(regex("^[0-9.]+(/[0-9]+)?$", range))
    ])
    error_message = "builtin_gateway: expected allowed_ip_ranges such as 203.0.113.0/24 or 203.0.113.7."
  }
  validation {
    condition     = can(regex("^[a-z0-9.-]+\\.[a-z]+(/[a-z0-9._-]+)+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", coalesce(try(var.builtin_gateway.image, null), "a.io/b:c")))
    error_message = "builtin_gateway: expected an image with its registry and a tag or digest, such as contoso.azurecr.io/tollkeeper-gateway:1.4.0."
  }
  validation {
    condition     = can(regex("(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.ContainerRegistry/registries/[^/]+$", coalesce(try(var.builtin_gateway.registry_id, null), "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/r")))
    error_message = "builtin_gateway: expected a registry_id such as /subscriptions/.../providers/Microsoft.ContainerRegistry/registries/<name>."
  }
  validation {
    condition     = try(var.builtin_gateway.registry_id, null) == null || try(var.builtin_gateway.image, null) != null
    error_message = "builtin_gateway: registry_id is where `image` is pulled from; name the image too, or leave both out."
  }
  validation {
    condition     = contains([0.5, 0.75, 1], try(var.builtin_gateway.cpu, 1))
    error_message = "builtin_gateway: expected cpu 0.5, 0.75 or 1; it is one process, which uses no more. Memory is twice as many GiB."
  }
  validation {
    condition     = try(var.builtin_gateway.replicas.least, 2) >= 1 && try(var.builtin_gateway.replicas.least, 2) <= try(var.builtin_gateway.replicas.most, 10) && try(var.builtin_gateway.replicas.most, 10) <= 300
    error_message = "builtin_gateway: expected 1 <= replicas.least <= replicas.most <= 300: with none running, a call would wait for a start."
  }
  validation {
    condition     = !var.zone_redundant || try(var.builtin_gateway.replicas.least, 2) >= 2
    error_message = "builtin_gateway: with zone_redundant = true expected at least 2 replicas: one stands in one zone."
  }
  validation {
    condition     = try(var.builtin_gateway.calls_at_once, 100) >= 1 && try(var.builtin_gateway.calls_at_once, 100) <= 1000
    error_message = "builtin_gateway: expected calls_at_once from 1 to 1000."
  }
  validation {
    condition     = alltrue([for name in keys(try(var.builtin_gateway.settings, {})) : can(regex("^[A-Za-z][A-Za-z0-9_]*$", name)) && !can(regex("SECRET|_HEADERS$|_KEYS?$", name))])
    error_message = "builtin_gateway: expected settings that hold no secret; GATEWAY_KEYS, ..._API_KEY and OTEL_..._HEADERS belong to secret_settings."
  }
  validation {
    condition     = alltrue([for name in try(var.builtin_gateway.secret_settings, []) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "builtin_gateway: expected secret_settings in capitals, such as GATEWAY_KEYS or ANTHROPIC_API_KEY."
  }
  validation {
    condition     = var.builtin_gateway == null || var.existing_network == null || try(var.existing_network.subnet_ids.containers, null) != null
    error_message = "builtin_gateway: in a network of your own it needs a subnet too: existing_network.subnet_ids.containers, /27 or larger, delegated to Microsoft.App/environments."
  }
}

variable "builtin_gateway_tag" {
  description = "Tag of the image in the registry that is created here. `make deploy` builds it and says so; before the first build there is no app."
  type        = string
  default     = null
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", coalesce(var.builtin_gateway_tag, "t")))
    error_message = "builtin_gateway_tag: expected an image's tag."
  }
}
