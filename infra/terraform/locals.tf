locals {
  shared = yamldecode(file("${path.module}/../names.yaml"))

  tags = merge({
    application    = "tollkeeper"
    environment    = var.environment
    "azd-env-name" = var.environment
  }, var.tags)

  # Some names are unique in all of Azure. The same inputs give the same suffix, so nothing moves from one apply to the next.
  suffix = substr(sha1("${lower(var.subscription_id)}/${var.name}/${var.environment}"), 0, 6)
  base   = "${var.name}-${var.environment}-${local.suffix}"

  names = {
    resource_group     = "rg-${var.name}-${var.environment}"
    functions_identity = "id-${var.name}-functions-${var.environment}-${local.suffix}"
    gateway_identity   = "id-${var.name}-gateway-${var.environment}-${local.suffix}"
    builtin_identity   = "id-${var.name}-builtin-${var.environment}-${local.suffix}"
    virtual_network    = "vnet-${local.base}"
    host_storage       = "st${var.name}host${local.suffix}"
    ledger_storage     = "st${var.name}ledger${local.suffix}"
    usage_namespace    = "evhns-${var.name}-usage-${var.environment}-${local.suffix}"
    llm_logs_namespace = "evhns-${var.name}-llmlogs-${var.environment}-${local.suffix}"
    redis              = "amr-${local.base}"
    key_vault          = "kv-${var.name}-${local.suffix}" # 24 characters at most; the suffix tells environments apart
    plan               = "asp-${local.base}"
    functions          = "func-${local.base}"
    gateway            = "apim-${local.base}"
    containers         = "cae-${local.base}"
    builtin            = "ca-${local.base}"
    registry           = "cr${var.name}${var.environment}${local.suffix}"
    models             = "aif-${local.base}" # one account per region: its key is appended
    workspace          = "log-${local.base}"
    insights           = "appi-${local.base}"
  }
}
