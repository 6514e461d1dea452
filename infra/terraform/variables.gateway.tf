# Models

variable "model_regions" {
  description = "One account of Azure AI Foundry per entry, with its deployments. Calls go to the lowest priority that answers, and are shared there by weight."
  type = map(object({
    location = string
    priority = optional(number, 1)
    weight   = optional(number, 1)
    deployments = map(object({
      model    = string
      version  = string
      format   = optional(string, "OpenAI")
      sku      = optional(string, "GlobalStandard")
      capacity = optional(number, 50) # thousands of tokens per minute
    }))
  }))
  default  = {}
  nullable = false
  validation {
    condition     = alltrue([for key in keys(var.model_regions) : can(regex("^[a-z][a-z0-9]{0,9}$", key))])
    error_message = "model_regions: expected keys of up to 10 lower-case letters and digits, such as swc; they become part of the accounts' names."
  }
  validation {
    condition     = length(distinct([for region in values(var.model_regions) : sort(keys(region.deployments))])) <= 1
    error_message = "model_regions: expected the same deployment names in every region, because the pool sends a call for any of them to any region."
  }
  validation {
    condition     = alltrue([for region in values(var.model_regions) : region.priority >= 1 && region.priority <= 100 && region.weight >= 1 && region.weight <= 100])
    error_message = "model_regions: expected priority and weight from 1 to 100."
  }
  validation {
    condition     = length(var.model_regions) + length(var.existing_models) > 0 || !var.api_management
    error_message = "model_regions: expected at least one region here, or an account in existing_models: without models API Management has nowhere to send a call."
  }
  validation {
    condition     = length(setintersection(keys(var.model_regions), keys(var.existing_models))) == 0
    error_message = "model_regions: a key stands in existing_models too; each names one backend, so use different ones."
  }
}

variable "existing_models" {
  description = "Accounts of Azure AI Foundry or Azure OpenAI that others run, as further backends. Each must have every deployment that config/models.yaml names."
  type = map(object({
    id       = string
    endpoint = string
    priority = optional(number, 1)
    weight   = optional(number, 1)
  }))
  default  = {}
  nullable = false
  validation {
    condition     = alltrue([for account in values(var.existing_models) : can(regex("(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.CognitiveServices/accounts/[^/]+$", account.id))])
    error_message = "existing_models: expected ids such as /subscriptions/.../providers/Microsoft.CognitiveServices/accounts/<name>."
  }
  validation {
    condition     = alltrue([for account in values(var.existing_models) : can(regex("^https://[a-z0-9.-]+/?$", account.endpoint))])
    error_message = "existing_models: expected endpoints such as https://<name>.openai.azure.com, without a path; the template appends /openai."
  }
  validation {
    condition     = alltrue([for account in values(var.existing_models) : account.priority >= 1 && account.priority <= 100 && account.weight >= 1 && account.weight <= 100])
    error_message = "existing_models: expected priority and weight from 1 to 100."
  }
}

# Gateway

variable "api_management" {
  description = "Whether calls come through API Management: one that is created, or existing_api_management. false creates nothing of it: callers use the built-in gateway, which builtin_gateway puts beside the function app or you run elsewhere."
  type        = bool
  default     = true
  nullable    = false
}

variable "api_management_sku" {
  description = "Tier and units of API Management, such as StandardV2_1."
  type        = string
  default     = "StandardV2_1"
  nullable    = false
  validation {
    condition     = can(regex("^(Consumption_0|(Developer|Basic|BasicV2|Standard|StandardV2|Premium|PremiumV2)_[1-9][0-9]*)$", var.api_management_sku))
    error_message = "api_management_sku: expected <tier>_<units>, such as StandardV2_1."
  }
  validation {
    condition     = !startswith(var.api_management_sku, "Consumption")
    error_message = "api_management_sku: Consumption cannot gate models. It writes no LLM log, so streams could not be measured; it relays no streams, knows no llm-token-limit, and takes policies of up to 16 KiB. Use StandardV2_1."
  }
  validation {
    condition     = !var.api_management || !var.private_network || var.existing_api_management != null || can(regex("^(Consumption|StandardV2|PremiumV2)_", var.api_management_sku))
    error_message = "api_management_sku: with private_network = true expected StandardV2 or PremiumV2. Basic, BasicV2 and Standard have no way into a virtual network, so the gateway would reach neither the budget service nor the models; Developer and Premium are injected into one instead of integrated with it, which takes another subnet and rules than this template makes. Use StandardV2_1, or private_network = false."
  }
}

variable "existing_api_management" {
  description = "An API Management to use. Its owner attaches the gateway's identity (output GATEWAY_IDENTITY_ID) and, where private_network is true, integrates it with the network."
  type = object({
    id          = string
    gateway_url = string
    location    = string
    sku         = string
  })
  default = null
  validation {
    condition     = var.existing_api_management != null || !var.api_management || var.existing_network == null || try(var.existing_network.subnet_ids.gateway, null) != null
    error_message = "existing_api_management: in a network of your own one that is created needs a subnet: existing_network.subnet_ids.gateway, /27 or larger, delegated to Microsoft.Web/serverFarms. Or set api_management = false."
  }
  validation {
    condition     = var.existing_api_management == null || var.api_management
    error_message = "existing_api_management: nothing uses it while api_management is false; leave one of the two out."
  }
  validation {
    condition     = var.existing_api_management == null || can(regex("(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.ApiManagement/service/[^/]+$", var.existing_api_management.id))
    error_message = "existing_api_management: expected an id such as /subscriptions/.../providers/Microsoft.ApiManagement/service/<name>."
  }
  validation {
    condition     = var.existing_api_management == null || can(regex("^https://[^/]+$", var.existing_api_management.gateway_url))
    error_message = "existing_api_management: expected a gateway_url such as https://<name>.azure-api.net, without a path."
  }
  validation {
    condition     = var.existing_api_management == null || can(regex("^(Developer|Basic|BasicV2|Standard|StandardV2|Premium|PremiumV2)$", var.existing_api_management.sku))
    error_message = "existing_api_management: expected a sku such as StandardV2. Consumption cannot gate models: it writes no LLM log, relays no streams, knows no llm-token-limit, and takes policies of up to 16 KiB."
  }
  validation {
    condition     = var.existing_api_management == null || !var.private_network || !can(regex("^(Basic|BasicV2|Standard)$", var.existing_api_management.sku))
    error_message = "existing_api_management: Basic, BasicV2 and Standard have no way into a virtual network, so with private_network = true the gateway would reach neither the budget service nor the models."
  }
}

variable "publisher" {
  description = "Whom API Management names as its publisher. Without an address: the first of alert_emails."
  type        = object({ name = optional(string, "Tollkeeper"), email = optional(string) })
  default     = {}
  nullable    = false
}

variable "request_sampling_percentage" {
  description = "Share of the calls that Application Insights traces; errors always are. No figure of the product rests on it."
  type        = number
  default     = 10
  nullable    = false
  validation {
    condition     = var.request_sampling_percentage >= 0 && var.request_sampling_percentage <= 100
    error_message = "request_sampling_percentage: expected 0 to 100."
  }
}

variable "entra_gateway_client_id" {
  description = "Client id of the registration in Entra ID that callers of models ask tokens for, which infra/entra creates. Without it: entra_client_id, whose tokens are for holders of one of its app roles only."
  type        = string
  default     = null
  validation {
    condition     = var.entra_gateway_client_id == null || can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", var.entra_gateway_client_id))
    error_message = "entra_gateway_client_id: expected the application (client) id, a UUID: the output gateway_client_id of infra/entra."
  }
}

# What the gateway must know

variable "config_path" {
  description = "The configuration: the directory with teams, tenants and models. Relative to this module."
  type        = string
  default     = "../../config"
  nullable    = false
}

variable "config_digest" {
  description = "What generated_named_values were made from. `make named-values` writes both to config.auto.tfvars.json."
  type        = string
  validation {
    condition     = var.config_digest == local.config_digest
    error_message = "config_digest: tenants, teams or models changed after config.auto.tfvars.json was written, so the gateway would go by the old ones. Run `make named-values`."
  }
}

variable "generated_named_values" {
  description = "Named values that are made from the configuration."
  type        = map(string)
  validation {
    condition     = toset(keys(var.generated_named_values)) == toset([for value in local.named_value_list : value.name if try(value.generated, false)])
    error_message = "generated_named_values: expected exactly the values that apim-policies/named-values.yaml marks as generated. Run `make named-values`."
  }
}

variable "named_values" {
  description = "Named values of apim-policies/named-values.yaml to set to something else than default, Azure or the configuration say; such as {tk-enforcement = \"off\"} in an emergency."
  type        = map(string)
  default     = {}
  nullable    = false
  validation {
    condition     = length(setsubtract(keys(var.named_values), local.named_value_list[*].name)) == 0
    error_message = "named_values: unknown: ${join(", ", setsubtract(keys(var.named_values), local.named_value_list[*].name))}. apim-policies/named-values.yaml lists those that the policies read."
  }
  validation {
    condition     = var.api_management || length(var.named_values) == 0
    error_message = "named_values: they are API Management's, and there is none with api_management = false. The built-in gateway goes by the configuration alone."
  }
  validation {
    condition     = alltrue([for value in values(var.named_values) : length(value) >= 1 && length(value) <= 4096])
    error_message = "named_values: API Management takes 1 to 4,096 characters; - stands for none."
  }
}
