variable "log_retention_days" {
  description = "How long the workspace keeps logs. What the workbook shows of the past ends here; the ledger keeps its own."
  type        = number
  default     = 90

  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730
    error_message = "log_retention_days: Log Analytics keeps 30 to 730 days."
  }
}

variable "gateway_logs" {
  description = "Whether API Management writes one row per call into the workspace. Neither workbook nor alerts read them; at 1,000 calls a second they are over 100 GB a day."
  type        = bool
  default     = true
}

variable "alert_emails" {
  description = "Who is told when something is wrong."
  type        = list(string)

  validation {
    condition     = length(var.alert_emails) > 0 && alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alert_emails: name at least one e-mail address; alerts that nobody gets are none."
  }
}

variable "alert_webhook_url" {
  description = "Also told, by POST in the common alert schema; such as a chat channel's incoming webhook. It may hold a token."
  type        = string
  default     = null
  sensitive   = true
}

variable "alert_thresholds" {
  description = "Thresholds other than those of infra/alerts/alerts.yaml, by the alert's name there, such as { latency = 60000 }."
  type        = map(number)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.alert_thresholds), keys(merge(values(yamldecode(file("${path.module}/../alerts/alerts.yaml")))...)))) == 0
    error_message = "alert_thresholds: names an alert that is not in infra/alerts/alerts.yaml."
  }
}

variable "monthly_cost_budget" {
  description = "The last net: what the resource group may cost in a calendar month, in the currency of the invoice. It tells people; it stops nothing."
  type        = number

  validation {
    condition     = var.monthly_cost_budget > 0
    error_message = "monthly_cost_budget: must be over 0."
  }
}

variable "cost_export" {
  description = "Whether Azure writes its own cost figures (FOCUS) into the ledger's storage every day. Only subscriptions under an Enterprise or Microsoft Customer Agreement can, from two days of age; Azure refuses others."
  type        = bool
  default     = true
  nullable    = false
}
