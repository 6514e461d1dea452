variable "tenant_id" {
  description = "The directory that callers sign in to: that of the subscription."
  type        = string
}

variable "name" {
  description = "First part of the registrations' names, as in infra/terraform."
  type        = string
  default     = "tollkeeper"
}

variable "environment" {
  description = "Second part of the registrations' names, as in infra/terraform, such as dev."
  type        = string
}

variable "owners" {
  description = "Object ids of those who may change the registrations beside the directory's administrators."
  type        = set(string)
  default     = null
}

variable "group_claims" {
  description = "Which groups a token lists: SecurityGroup, all of the caller's; ApplicationGroup, those that are assigned to the application, for people in over 200 groups, whose tokens list none otherwise."
  type        = string
  default     = "SecurityGroup"
  validation {
    condition     = contains(["SecurityGroup", "ApplicationGroup"], var.group_claims)
    error_message = "group_claims: expected SecurityGroup or ApplicationGroup."
  }
}

variable "principals" {
  description = "Who has which app role of the function app: object ids of people and groups, and of the service principals of apps."
  type        = map(set(string))
  default     = {}
  nullable    = false
  validation {
    condition     = length(setsubtract(keys(var.principals), keys(local.roles))) == 0
    error_message = "principals: unknown app roles: ${join(", ", setsubtract(keys(var.principals), keys(local.roles)))}; expected some of ${join(", ", keys(local.roles))}."
  }
}

variable "gateway_principal_id" {
  description = "Object id of the gateway's identity, which gets Budget.Check: the output GATEWAY_PRINCIPAL_ID of infra/terraform, once there is one."
  type        = string
  default     = null
}

variable "functions_url" {
  description = "Address of the function app, for people to sign in to its dashboard: the output FUNCTIONS_URL of infra/terraform, once there is one."
  type        = string
  default     = null
  validation {
    condition     = var.functions_url == null || can(regex("^https://[^/]+", var.functions_url))
    error_message = "functions_url: expected an address such as https://func-tollkeeper-dev.azurewebsites.net."
  }
}

variable "public_urls" {
  description = "Further addresses under which people open the dashboard, such as the one that the setting PUBLIC_URL names: they are taken back to where they signed in."
  type        = set(string)
  default     = []
  nullable    = false
  validation {
    condition     = alltrue([for url in var.public_urls : can(regex("^https://[^/]+", url))])
    error_message = "public_urls: expected addresses such as https://tollkeeper.contoso.com."
  }
}

variable "functions_principal_id" {
  description = "Object id of the function app's identity, which signs people in instead of a secret: the output FUNCTIONS_PRINCIPAL_ID of infra/terraform."
  type        = string
  default     = null
}

variable "signed_in_by" {
  description = "Client ids of the apps through which people get tokens without being asked for consent. The default is the Azure CLI."
  type        = set(string)
  default     = ["04b07795-8ddb-461a-bbee-02f9e1bf7b46"]
  nullable    = false
}
