"""What a budget check is asked, and who the call belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from shared.config.identity import resolve_identity
from shared.config.model import Config, Tenant
from shared.errors import Forbidden, InvalidRequest
from shared.routing.deployments import DEFAULT_PROVIDER, Deployments, Served
from shared.scopes import CONTROL_CHARACTER, validate_scopes, validate_tenant

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Label = Annotated[str, msgspec.Meta(max_length=128)]


class CheckRequest(msgspec.Struct, kw_only=True):
    """The body of `POST /budget/check`. Either `tenant` and `scopes`, or `identity`; with identity, `scopes` are what
    the client asserted."""

    model: Name  # as the caller named it: a model's id or one of its deployments
    tenant: str | None = None
    scopes: dict[str, str] = msgspec.field(default_factory=dict)
    identity: dict[str, Any] | None = None
    operation: Label = "chat"
    tools: list[Label] | None = None
    input_tokens: Count | None = None
    input_bytes: Count | None = None
    max_output_tokens: Count | None = None  # of all choices together
    choices: Choices = 1  # answers asked for at once (OpenAI's `n`); each is billed
    request_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    deadline: Annotated[datetime, msgspec.Meta(tz=True)] | None = None  # until when the caller waits for the answer
    provider: Label = ""  # of the model; when stated, only this provider's deployments are looked at
    deployment: Label = ""  # where the gateway sends the call unless another model serves it
    region: Label = ""
    service_tier: Label = ""  # as the call asks for it: priority, flex, ...
    capabilities: Annotated[list[Label], msgspec.Meta(max_length=32)] | None = None  # that `model: auto` must have
    required_region: Label = ""  # serve it from endpoints there only
    required_data_zone: Label = ""
    attempt: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1  # after the first: a fallback of one and the same call


def resolve_caller(request: CheckRequest, config: Config) -> tuple[Tenant, dict[str, str]]:
    """The tenant and the scopes that are charged.

    Raises Forbidden for an unknown tenant or identity and for a client-asserted scope the tenant does not list:
    otherwise a header could put one team's spend on another team's budget.
    """
    asserted = validate_scopes(request.scopes)
    _require_billable_names(request)
    if request.identity is None:
        if request.tenant is None:
            raise InvalidRequest("tenant: required unless `identity` is given", param="tenant")
        if not asserted:
            raise InvalidRequest("scopes: at least one is required unless `identity` is given", param="scopes")
        return known_tenant(config, request.tenant), asserted
    return identified_caller(config, request.identity, asserted)


def identified_caller(
    config: Config, identity: Mapping[str, Any], asserted: Mapping[str, str]
) -> tuple[Tenant, dict[str, str]]:
    """The tenant and the scopes of a validated identity, with the scopes that its client asserted.

    The same for a check and for an event that no check went before: neither lets a client name what it may not.
    Raises InvalidRequest for a malformed identity, Forbidden as `resolve_caller` does.
    """
    tenant_id, scopes = resolve_identity(config, identity)
    tenant = known_tenant(config, tenant_id)
    for scope_type in asserted:
        if scope_type not in tenant.client_asserted_scopes:
            allowed = ", ".join(sorted(tenant.client_asserted_scopes)) or "none"
            raise Forbidden(
                f"scopes.{scope_type}: clients of this tenant may assert only: {allowed}",
                code="scope_not_allowed",
                param=f"scopes.{scope_type}",
            )
    return tenant, validate_scopes({**asserted, **scopes})


def canonical(request: CheckRequest, deployments: Deployments) -> CheckRequest:
    """The request for the model that the caller's name means, with the provider and the deployment that serve it.

    A name that config does not know stays as it is: it may be allowed, and then it is held at the guard price.
    """
    served = deployments.named(request.model, request.provider)
    if served is None:
        served = Served(request.model, request.provider or DEFAULT_PROVIDER, request.model)
    deployment = deployments.spelled(request.deployment) or served.deployment
    return replace(request, model=served.model, provider=served.provider, deployment=deployment)


def _require_billable_names(request: CheckRequest) -> None:
    """Raise InvalidRequest for a name that no usage event may carry: such a call would be served and never billed."""
    for param in ("model", "operation", "provider", "deployment", "region"):
        if CONTROL_CHARACTER.search(getattr(request, param)):
            raise InvalidRequest(f"{param}: control characters are not allowed", param=param)


def require_allowed_model(config: Config, tenant: Tenant, scopes: Mapping[str, str], model: str) -> None:
    """Raise Forbidden `model_not_allowed` unless the tenant and the team both allow the requested model.

    The targets of downgrade rules need no permission: whoever wrote the rule gave it.
    """
    allowed = disallowed_by(config, tenant, scopes, model)
    if allowed is not None:
        raise Forbidden(
            f"model: {model!r} is not allowed here; allowed: {', '.join(allowed)}",
            code="model_not_allowed",
            param="model",
        )


def disallowed_by(config: Config, tenant: Tenant, scopes: Mapping[str, str], model: str) -> tuple[str, ...] | None:
    """The list of allowed models, the tenant's or the team's, that the model is not on; None when it may be used."""
    team = config.teams.get(scopes.get("team", ""))
    lists = [tenant.allowed_models]
    if team is not None and team.tenant == tenant.id:
        lists.append(team.allowed_models)
    for allowed in lists:
        if allowed and not any(fnmatchcase(model, pattern) for pattern in allowed):
            return allowed
    return None


def known_tenant(config: Config, tenant: object) -> Tenant:
    """The tenant's configuration, or Forbidden `tenant_unknown`."""
    found = config.tenants.get(validate_tenant(tenant))
    if found is None:
        raise Forbidden(f"tenant: {tenant!r} is not configured", code="tenant_unknown", param="tenant")
    return found
