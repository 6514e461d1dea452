# Production: a private network, three zones, a second copy of everything that answers calls, models in two regions.
#
# Yours to add, here or as TF_VAR_<name>: subscription_id, alert_emails; where `make entra` did not make the registrations,
# entra_client_id and entra_gateway_client_id; config_publishers, so that an apply by another hand changes nothing;
# deployer_ip_ranges where the pipeline runs outside the network.

environment         = "prod"
location            = "westeurope"
monthly_cost_budget = 10000

private_network    = true
address_space      = "10.64.0.0/24"
zone_redundant     = true
ledger_replication = "GZRS"
api_management_sku = "StandardV2_2"
redis              = { sku = "Balanced_B3", high_availability = true }
throughput_units   = { least = 2, most = 20 }
functions          = { maximum_instances = 100, always_ready_http = 4, always_ready_ingest = 4 }

capture_retention_days = 400
log_retention_days     = 90
gateway_logs           = false

# Deployments of config/models.yaml that Azure still creates. The second region takes over while the first refuses or is away.
model_regions = {
  swc = {
    location = "swedencentral" # which gets new models first
    priority = 1
    deployments = {
      "gpt-5.4-mini"             = { model = "gpt-5.4-mini", version = "2026-03-17", capacity = 300 }
      "gpt-5.4-nano"             = { model = "gpt-5.4-nano", version = "2026-03-17", capacity = 1000 }
      text-embedding-3-small-weu = { model = "text-embedding-3-small", version = "1", capacity = 350 }
      text-embedding-3-large-weu = { model = "text-embedding-3-large", version = "1", capacity = 350 }
    }
  }
  weu = {
    location = "westeurope"
    priority = 2
    deployments = {
      "gpt-5.4-mini"             = { model = "gpt-5.4-mini", version = "2026-03-17", capacity = 300 }
      "gpt-5.4-nano"             = { model = "gpt-5.4-nano", version = "2026-03-17", capacity = 1000 }
      text-embedding-3-small-weu = { model = "text-embedding-3-small", version = "1", capacity = 350 }
      text-embedding-3-large-weu = { model = "text-embedding-3-large", version = "1", capacity = 350 }
    }
  }
}
