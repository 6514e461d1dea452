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
  description = "When the log alerts fire."
  type = object({
    cost_anomaly_score = optional(number, 3)    # in quartile ranges beyond the usual, per tenant and team
    coverage           = optional(number, 0.95) # least measured share of a day's cost
    drift_usd          = optional(number, 0)    # what counters may be off by
    error_rate         = optional(number, 0.05) # failed share of the calls of 15 minutes, per model
    ingest_lag_seconds = optional(number, 300)
    latency_ms         = optional(number, 30000) # 95th percentile of 15 minutes, per model
    usage_spike        = optional(number, 3)     # times the usual calls of an hour, per tenant and team
  })
  default  = {}
  nullable = false
}

variable "monthly_cost_budget" {
  description = "The last net: what the resource group may cost in a calendar month, in the currency of the invoice. It tells people; it stops nothing."
  type        = number

  validation {
    condition     = var.monthly_cost_budget > 0
    error_message = "monthly_cost_budget: must be over 0."
  }
}
