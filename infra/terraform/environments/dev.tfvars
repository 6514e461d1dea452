# The quick start: public endpoints that take Entra ID tokens only, one zone, the smallest sizes. Nothing here is for real bills.
#
# Yours to add, here or as TF_VAR_<name>: subscription_id, alert_emails, and, where `make entra` did not make the registrations,
# entra_client_id and entra_gateway_client_id.

environment         = "dev"
location            = "westeurope"
monthly_cost_budget = 500
cost_export         = false # a subscription for trying things out is seldom of a kind that can

private_network    = false
zone_redundant     = false
api_management_sku = "BasicV2_1"
redis              = { sku = "Balanced_B0", high_availability = false }
throughput_units   = { least = 1, most = 2 }
functions          = { always_ready_http = 1, always_ready_ingest = 0, site_update_strategy = "Recreate" }

capture_retention_days = 30
recovery_days          = 7
log_retention_days     = 30

# Deployments of config/models.yaml that Azure still creates, each with 10,000 tokens a minute.
model_regions = {
  swc = {
    location = "swedencentral" # which gets new models first
    deployments = {
      "gpt-5.4-mini"             = { model = "gpt-5.4-mini", version = "2026-03-17", capacity = 10 }
      "gpt-5.4-nano"             = { model = "gpt-5.4-nano", version = "2026-03-17", capacity = 10 }
      text-embedding-3-small-weu = { model = "text-embedding-3-small", version = "1", capacity = 10 }
      text-embedding-3-large-weu = { model = "text-embedding-3-large", version = "1", capacity = 10 }
    }
  }
}
