resource "azuread_application" "this" {
  for_each                = local.registrations
  display_name            = "${var.name}-${var.environment}${each.value.suffix}"
  owners                  = var.owners
  sign_in_audience        = "AzureADMyOrg"
  prevent_duplicate_names = true
  group_membership_claims = [var.group_claims]

  api {
    requested_access_token_version = 2 # whose issuer and audience the function app and the policies expect

    oauth2_permission_scope {
      id                         = uuidv5("url", "https://tollkeeper/scopes/${each.key}")
      value                      = "user_impersonation"
      type                       = "User"
      admin_consent_display_name = "Act as the signed-in person"
      admin_consent_description  = "Call ${var.name}-${var.environment}${each.value.suffix} as the signed-in person."
    }
  }

  web {
    redirect_uris = each.value.redirect_uris
    implicit_grant {
      id_token_issuance_enabled = length(each.value.redirect_uris) > 0 # which the platform's sign-in asks for beside a code
    }
  }

  dynamic "app_role" {
    for_each = each.value.roles
    content {
      id                   = app_role.value.id
      value                = app_role.key
      display_name         = app_role.key
      description          = app_role.value.description
      allowed_member_types = app_role.value.members
    }
  }

  lifecycle {
    ignore_changes = [identifier_uris] # set below, because it holds the client id
  }
}

# Directories refuse URIs without the client id or one of their own domains.
resource "azuread_application_identifier_uri" "this" {
  for_each       = azuread_application.this
  application_id = each.value.id
  identifier_uri = "api://${each.value.client_id}"
}

# The function app's identity stands in for a client secret when people sign in.
resource "azuread_application_federated_identity_credential" "functions" {
  for_each       = toset(var.functions_principal_id == null ? [] : ["service"])
  application_id = azuread_application.this[each.key].id
  display_name   = "function-app"
  description    = "The function app signs people in for its dashboard."
  issuer         = "https://login.microsoftonline.com/${var.tenant_id}/v2.0"
  subject        = var.functions_principal_id
  audiences      = ["api://AzureADTokenExchange"]
}

resource "azuread_service_principal" "this" {
  for_each                     = azuread_application.this
  client_id                    = each.value.client_id
  owners                       = var.owners
  app_role_assignment_required = length(local.registrations[each.key].roles) > 0 # nobody else gets a token at all
}

resource "azuread_application_pre_authorized" "this" {
  for_each             = { for pair in setproduct(keys(local.registrations), var.signed_in_by) : join("/", pair) => { application = pair[0], client = pair[1] } }
  application_id       = azuread_application.this[each.value.application].id
  authorized_client_id = each.value.client
  permission_ids       = [azuread_application.this[each.value.application].oauth2_permission_scope_ids["user_impersonation"]]
}

resource "azuread_app_role_assignment" "this" {
  for_each            = merge([for role, ids in local.principals : { for id in ids : "${role}/${id}" => { role = role, principal = id } }]...)
  app_role_id         = azuread_service_principal.this["service"].app_role_ids[each.value.role]
  principal_object_id = each.value.principal
  resource_object_id  = azuread_service_principal.this["service"].object_id
}
