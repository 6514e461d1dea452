locals {
  # What functions/auth.py asks for. An id is made of the role's name, so that it stays when the registration is made anew.
  roles = {
    for value, role in {
      "Budget.Check"     = { members = ["Application"], description = "Ask whether a call fits its budgets, and give back what was held for it. For gateways." }
      "Usage.Write"      = { members = ["Application"], description = "Send usage events. For gateways and importers." }
      "Chargeback.Read"  = { members = ["Application", "User"], description = "Read figures and statements: of the own teams, or of a tenant for those whom it lists as finance." }
      "Chargeback.Admin" = { members = ["Application", "User"], description = "Read everything, correct usage, replay dead letters, reset budgets." }
    } : value => merge(role, { id = uuidv5("url", "https://tollkeeper/roles/${value}") })
  }

  # The gateway's identity comes from another root, after the registrations: scripts/azure/entra.py carries it here.
  principals = merge(var.principals, {
    "Budget.Check" = setunion(lookup(var.principals, "Budget.Check", []), compact([var.gateway_principal_id]))
  })

  # The function app is for holders of a role. Callers of models hold none: the gateway knows them by what their team lists. They
  # ask for tokens of a registration of their own, so that what one of the two is sent is worth nothing at the other.
  registrations = {
    service = { suffix = "", roles = local.roles, redirect_uris = local.sign_in }
    gateway = { suffix = "-models", roles = {}, redirect_uris = [] }
  }

  # Where the platform takes people back to who sign in for the dashboard. It stands beside the routes.
  sign_in = [for url in distinct(concat(compact([var.functions_url]), sort(var.public_urls))) : "${regex("^https://[^/]+", url)}/.auth/login/aad/callback"]
}
