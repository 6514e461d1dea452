"""Which model and deployment a check is about when its caller leaves the choice, or demands a place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec.structs import replace

from shared.budgets.request import CheckRequest, Choices, Count, Label, Name, disallowed_by, known_tenant
from shared.budgets.snapshot import Snapshot
from shared.config.model import Tenant
from shared.errors import InvalidRequest, NotFound
from shared.routing.deployments import Served
from shared.routing.route import Route
from shared.routing.router import Bounds, of_one_choice
from shared.scopes import validate_scopes
from shared.usage.estimate import estimate_input_tokens

AUTO = "auto"  # in place of a model's name; a configured model or deployment of this name is that one


def wants_route(request: CheckRequest, snapshot: Snapshot) -> bool:
    """Whether the caller leaves the choice of the model."""
    return request.model == AUTO and snapshot.deployments.named(AUTO) is None


def route_request(
    request: CheckRequest, snapshot: Snapshot, tenant: Tenant, scopes: Mapping[str, str], at_utc: datetime
) -> tuple[CheckRequest, Route]:
    """The request for the cheapest capable model that the caller may use, and why it is that.

    Raises InvalidRequest `no_capable_model`, which says of every model why not.
    """
    if request.operation == "embeddings":
        message = "model: name the embedding model; vectors of different models cannot be compared"
        raise InvalidRequest(message, param="model")
    needs = {"chat", *(request.capabilities or ()), *(("tools",) if request.tools else ())}
    route = snapshot.router.cheapest(
        needs,
        estimate_input_tokens(request.input_tokens, request.input_bytes),
        request.max_output_tokens,
        tenant.id,
        at_utc,
        bounds=bounds_of(request),
        may_use=lambda model: disallowed_by(snapshot.config, tenant, scopes, model) is None,
        service_tier=request.service_tier,
        choices=request.choices,
        operation=request.operation,
    )
    if route.model is None:
        message = f"model: {route.why}"
        raise InvalidRequest(message, code="no_capable_model", param="model", extra={"rejected": route.rejected})
    provider = snapshot.deployments.serving(route.model).provider
    return replace(request, model=route.model, provider=provider, deployment=route.deployment), route


def unable_models(request: CheckRequest, snapshot: Snapshot) -> frozenset[str]:
    """The models to which no downgrade of this call may lead. An input that nobody measured excludes none."""
    input_tokens = 0
    if request.input_tokens is not None or request.input_bytes is not None:
        input_tokens = estimate_input_tokens(request.input_tokens, request.input_bytes)
    answer_tokens = of_one_choice(request.max_output_tokens, request.choices)
    return snapshot.router.unable(request.model, input_tokens, answer_tokens, bounds_of(request), request.operation)


def bounds_of(request: CheckRequest) -> Bounds:
    """Where the caller demands the call to be served."""
    return Bounds(request.required_region, request.required_data_zone)


def served_place(snapshot: Snapshot, model: str, bounds: Bounds, preferred: str = "") -> Served:
    """Where a model is served, on the preferred deployment if that may be. Raises InvalidRequest `place_not_served`."""
    if not bounds:
        return snapshot.deployments.serving(model)
    served = snapshot.router.served_inside(model, bounds, preferred) if model in snapshot.config.models else None
    if served is None:
        message = f"model: {model!r} is not known to be served in {bounds}"
        raise InvalidRequest(message, code="place_not_served", param="model")
    return served


class RouteQuestion(msgspec.Struct, kw_only=True):
    """The body of `POST /route`. With `model`, its capabilities are added to those asked for."""

    model: Name | None = None
    capabilities: Annotated[list[Name], msgspec.Meta(max_length=32)] = []
    input_tokens: Count = 0
    max_output_tokens: Count | None = None  # of all choices together
    choices: Choices = 1
    tenant: str = "default"
    scopes: dict[str, str] = {}
    region: Label = ""
    data_zone: Label = ""
    service_tier: Label = ""
    operation: Label = "chat"


def answer_route(question: RouteQuestion, snapshot: Snapshot, at_utc: datetime) -> Route:
    """The cheapest model that can do what is asked, among those that the tenant and the scopes' team may use.

    Raises Forbidden for an unknown tenant, InvalidRequest for malformed scopes, NotFound `model_unknown`.
    """
    config = snapshot.config
    tenant, scopes = known_tenant(config, question.tenant), validate_scopes(question.scopes)
    capabilities = set(question.capabilities)
    if question.model is not None and question.model != AUTO:
        served = snapshot.deployments.named(question.model)
        if served is None:
            raise NotFound(f"model: {question.model!r} is not configured", code="model_unknown", param="model")
        capabilities |= config.models[served.model].capabilities
    return snapshot.router.cheapest(
        capabilities,
        question.input_tokens,
        question.max_output_tokens,
        tenant.id,
        at_utc,
        bounds=Bounds(question.region, question.data_zone),
        may_use=lambda model: disallowed_by(config, tenant, scopes, model) is None,
        service_tier=question.service_tier,
        choices=question.choices,
        operation=question.operation,
    )
