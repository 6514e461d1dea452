"""models.yaml: the models calls may name and where they are; prices.yaml: dated prices that beat the built-in book."""

from __future__ import annotations

from shared.config.discounts_yaml import read_discounts
from shared.config.draft import Draft
from shared.config.endpoints_yaml import read_endpoints
from shared.config.fields import Section
from shared.config.model import Model, PriceOverride
from shared.config.problems import did_you_mean
from shared.config.yaml_lines import Value
from shared.money import pico_per_token
from shared.pricing.book import canonical_provider
from shared.pricing.deployments import DEPLOYMENT_TYPES
from shared.usage.tokens import PRICED_KINDS

MODEL_FIELDS = (
    "id",
    "provider",
    "deployments",
    "capabilities",
    "context_tokens",
    "max_output_tokens",
    "typical_output_tokens",
    "fallbacks",
    "deployment_type",
    "price_as",
)
DEPLOYMENT_FIELDS = ("name", "endpoint")
PRICE_FIELDS = ("model", "provider", "deployment", "region", "tenant", "effective_from", "usd_per_million")
BILLED_AS = (*DEPLOYMENT_TYPES, "provisioned")  # provisioned throughput is paid by the hour: no price per token
MAX_MODEL_TOKENS = 100_000_000


def read_models(document: Value | None, draft: Draft) -> None:
    """Add the endpoints and the listed models to the draft; fallbacks may name models further down."""
    if document is None:
        return
    top = Section(document, ("endpoints", "models"), draft.problems)
    read_endpoints(top, draft)
    sections = top.sections("models", MODEL_FIELDS)
    deployments: dict[tuple[str, str], str] = {}
    for section in sections:
        model = _read_model(section, draft)
        if model.id in draft.models:
            section.problem("id", f"model {model.id!r} is listed twice")
        for deployment in model.deployments:
            other = deployments.setdefault((model.provider, deployment), model.id)
            if other != model.id:
                section.problem("deployments", f"{deployment!r} is a deployment of {other!r} already")
        draft.models[model.id] = model
    for section in sections:
        for fallback in section.texts("fallbacks"):
            draft.check_known(section, "fallbacks", fallback, draft.models, "model", "models.yaml")
            if fallback == section.text("id"):
                section.problem("fallbacks", "a model cannot be its own fallback")


def read_prices(document: Value | None, draft: Draft) -> None:
    """Add the price overrides and the discounts to the draft."""
    if document is None:
        return
    top = Section(document, ("prices", "discounts"), draft.problems)
    read_discounts(top, draft)
    seen = set()
    for section in top.sections("prices", PRICE_FIELDS):
        model, since = section.text("model", required=True), section.instant("effective_from")
        unit_pico = _unit_prices(section, draft)
        if model is None or since is None:
            continue
        override = PriceOverride(
            model=model,
            effective_from=since,
            unit_pico=unit_pico,
            provider=section.text("provider"),
            deployment=section.text("deployment"),
            region=section.text("region"),
            tenant=draft.tenant_of(section, None),
        )
        selects = (model, since, override.provider, override.deployment, override.region, override.tenant)
        if selects in seen:
            section.problem("effective_from", "another entry prices the same calls from the same moment on; keep one")
        seen.add(selects)
        draft.prices.append(override)


def _read_model(section: Section, draft: Draft) -> Model:
    provider = section.text("provider") or "azure-openai"
    deployments, places = _deployments(section, provider, draft)
    return Model(
        id=section.text("id", required=True) or "",
        provider=provider,
        deployments=deployments,
        places=places,
        capabilities=frozenset(section.texts("capabilities")),
        context_tokens=section.integer("context_tokens", 1, MAX_MODEL_TOKENS),
        max_output_tokens=section.integer("max_output_tokens", 0, MAX_MODEL_TOKENS),
        typical_output_tokens=section.integer("typical_output_tokens", 0, MAX_MODEL_TOKENS),
        fallbacks=section.texts("fallbacks"),
        deployment_type=section.choice("deployment_type", BILLED_AS) if section.has("deployment_type") else None,
        price_as=section.text("price_as"),
    )


def _deployments(section: Section, provider: str, draft: Draft) -> tuple[tuple[str, ...], dict[str, str]]:
    """The deployments in their order, plain names or {name, endpoint}, and the endpoints of those that name one."""
    names: list[str] = []
    places: dict[str, str] = {}
    for item in section.items("deployments"):
        if not isinstance(item.content, dict):
            name = section.item_text(item)
        else:
            inner = section.item_section(item, DEPLOYMENT_FIELDS)
            name, endpoint_id = inner.text("name", required=True), inner.text("endpoint", required=True)
            if name is not None and endpoint_id is not None:
                places[name] = endpoint_id
                _check_place(inner, endpoint_id, provider, draft)
        if name in names:
            draft.problems.add(item.place, f"{name!r} is listed twice")
        elif name:
            names.append(name)
    return tuple(names), places


def _check_place(section: Section, endpoint_id: str, provider: str, draft: Draft) -> None:
    endpoint = draft.endpoints.get(endpoint_id)
    if endpoint is None:
        hint = did_you_mean(endpoint_id, draft.endpoints)
        section.problem("endpoint", f"endpoint {endpoint_id!r} is not listed in models.yaml{hint}")
    elif canonical_provider(endpoint.provider) != canonical_provider(provider):
        section.problem(
            "endpoint",
            f"{endpoint_id!r} is of provider {endpoint.provider}, but the model's is {provider}, by which it is priced",
        )


def _unit_prices(section: Section, draft: Draft) -> dict[str, int]:
    """Pico-USD per token by token kind. An unknown kind is refused: its tokens would silently keep another price."""
    if not section.has("usd_per_million"):
        section.problem("usd_per_million", "is required, such as {input: 2.50, output: 10.00}")
        return {}
    prices = {}
    for kind, value in section.mapping("usd_per_million"):
        if kind not in PRICED_KINDS:
            draft.problems.add(value.place, f"unknown token kind{did_you_mean(kind, PRICED_KINDS)}")
            continue
        try:
            prices[kind] = pico_per_token(value.content if isinstance(value.content, str) else value.kind())
        except ValueError as error:
            draft.problems.add(value.place, str(error))
    return prices
