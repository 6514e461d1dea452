"""From the names on a call to its price: response model, deployment, overrides, deployment type and zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.config.model import Config, Model, PriceOverride, Tenant
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer

NOW_UTC = datetime(2026, 11, 21, 12, tzinfo=UTC)
BOOK = PriceBook.load()
MODELS = (
    Model("gpt-4o", deployments=("gpt-4o-weu",)),
    Model("gpt-4o-eu", deployments=("chat-eu",), deployment_type="data-zone", price_as="gpt-4o"),
    Model("gpt-4o-batch", deployments=("chat-batch",), deployment_type="batch", price_as="gpt-4o"),
    Model("gpt-6-sol", deployments=("sol-eu",), deployment_type="data-zone"),
    Model("gpt-4o-ptu", deployments=("chat-ptu",), deployment_type="provisioned", price_as="gpt-4o"),
    Model("gpt-4o-local", deployments=("chat-regional",), deployment_type="regional", price_as="gpt-4o"),
    Model("house-llm", provider="vllm", deployments=("house",)),
    Model("router", deployments=("router-weu",), price_as="gpt-4o-mini"),
)


def _pricer(*prices: PriceOverride) -> Pricer:
    models = {model.id: model for model in MODELS}
    return Pricer(BOOK, Config("v1", {"contoso": Tenant("contoso")}, {}, (), models, prices))


def _override(model: str, pico: int, start: datetime | None = None, **where: str) -> PriceOverride:
    return PriceOverride(model, start or datetime(2026, 1, 1, tzinfo=UTC), {"input": pico, "output": pico}, **where)


def _input_pico(
    pricer: Pricer,
    model: str,
    deployment: str = "",
    region: str = "",
    tier: str | None = None,
    at_utc: datetime = NOW_UTC,
    provider: str = "azure-openai",
    tenant: str = "contoso",
) -> int | None:
    found = pricer.unit_prices(tenant, provider, model, deployment, region, at_utc, tier)
    return found.unit_pico["input"] if found else None


def test_the_response_s_model_wins_over_the_deployment_s() -> None:
    """Behind a router or an upgraded deployment, the call costs what the model that answered costs."""
    assert _input_pico(_pricer(), "gpt-4.1-2025-04-14", "gpt-4o-weu") == 2_000_000


def test_an_unpriced_response_model_falls_back_to_the_deployment_s() -> None:
    """Where the event names only the deployment, or a name the book lacks, config's mapping prices it."""
    for name in ("gpt-4o-weu", "", "gpt-4o-2030-01-01"):
        assert _input_pico(_pricer(), name, "gpt-4o-weu") == 2_500_000


def test_nothing_known_is_unpriced() -> None:
    """Neither model nor deployment known: no price, and no guess from part of a name."""
    assert _input_pico(_pricer(), "gpt-4o-custom", "somewhere") is None


def test_provider_is_part_of_the_name() -> None:
    """The same model id at another provider is another price; an empty provider is taken from config."""
    assert _input_pico(_pricer(), "gpt-4o", provider="anthropic") is None
    assert _input_pico(_pricer(), "gpt-4o", provider="azure") == 2_500_000
    assert _input_pico(_pricer(), "gpt-4o", provider="") == 2_500_000


@pytest.mark.parametrize(
    ("deployment", "region", "expected"),
    [
        ("chat-eu", "westeurope", 2_750_000),
        ("chat-eu", "", 2_750_000),
        ("chat-batch", "westeurope", 1_250_000),
        ("chat-ptu", "westeurope", None),
        ("chat-regional", "westeurope", None),
    ],
)
def test_deployment_type_comes_from_config(deployment: str, region: str, expected: int | None) -> None:
    """Data zone and batch have their own prices; provisioned and regional have none, and are not priced as global."""
    assert _input_pico(_pricer(), "gpt-4o-2024-08-06", deployment, region) == expected


def test_data_zones_that_differ_need_the_region() -> None:
    """gpt-6-sol costs more in Europe's zone than in America's; without a known region there is no price to pick."""
    assert _input_pico(_pricer(), "gpt-6-sol", "sol-eu", "swedencentral") == 2_400_000
    assert _input_pico(_pricer(), "gpt-6-sol", "sol-eu", "East US 2") == 2_200_000
    assert _input_pico(_pricer(), "gpt-6-sol", "sol-eu", "") is None


def test_override_beats_the_book_for_versions_too() -> None:
    """Azure answers `gpt-4o-2024-08-06`: a price for `gpt-4o` must reach it, but not a version priced otherwise."""
    pricer = _pricer(_override("gpt-4o", 2_000_000))
    assert _input_pico(pricer, "gpt-4o-2024-08-06") == 2_000_000
    assert _input_pico(pricer, "gpt-4o-2024-05-13") == 5_000_000


def test_override_on_config_s_id_reaches_the_response_s_name() -> None:
    """A price for the configured id holds though the response names the model it is billed as."""
    pricer = _pricer(_override("gpt-4o-eu", 2_600_000), _override("gpt-4o", 1_000_000))
    assert _input_pico(pricer, "gpt-4o-2024-08-06", "chat-eu", "westeurope") == 2_600_000
    assert _input_pico(pricer, "gpt-4o-2024-08-06", "gpt-4o-weu") == 1_000_000


def test_override_prices_a_model_the_book_does_not_know() -> None:
    """A self-hosted model is priced by config alone, by its id or through its deployment."""
    pricer = _pricer(_override("house-llm", 50_000))
    assert _input_pico(pricer, "house-llm", provider="vllm") == 50_000
    assert _input_pico(pricer, "mistral-7b-ft", "house", provider="vllm") == 50_000


def test_overrides_are_dated_and_the_book_holds_before_them() -> None:
    """Event time picks among overrides; before the first of them the list price holds."""
    march, june = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    pricer = _pricer(_override("gpt-4o", 2_000_000, june), _override("gpt-4o", 2_200_000, march))
    at = [datetime(2026, month, 15, tzinfo=UTC) for month in (2, 4, 7)]
    assert [_input_pico(pricer, "gpt-4o", at_utc=instant) for instant in at] == [2_500_000, 2_200_000, 2_000_000]


def test_the_most_specific_override_wins_over_a_newer_general_one() -> None:
    """A tenant's own price outlives a later general price; other tenants get the general one."""
    later = datetime(2026, 9, 1, tzinfo=UTC)
    pricer = _pricer(
        _override("gpt-4o", 2_000_000, later),
        _override("gpt-4o", 1_500_000, tenant="contoso"),
        _override("gpt-4o", 1_400_000, tenant="contoso", region="westeurope"),
    )
    assert _input_pico(pricer, "gpt-4o") == 1_500_000
    assert _input_pico(pricer, "gpt-4o", region="West Europe") == 1_400_000
    assert _input_pico(pricer, "gpt-4o", tenant="fabrikam") == 2_000_000


def test_override_on_a_deployment_holds_whatever_model_answers() -> None:
    """A price agreed for one deployment is that deployment's price."""
    pricer = _pricer(_override("router", 300_000, deployment="router-weu"))
    assert _input_pico(pricer, "gpt-4.1", "router-weu") == 300_000
    assert _input_pico(pricer, "gpt-4.1", "gpt-4o-weu") == 2_000_000


def test_override_states_the_standard_price_only() -> None:
    """A negotiated standard price does not apply to batch or priority calls, unless it names the deployment."""
    general = _pricer(_override("gpt-4o", 2_000_000))
    assert _input_pico(general, "gpt-4o", tier="batch") == 1_250_000
    assert _input_pico(general, "gpt-4o", "chat-batch") == 1_250_000
    named = _pricer(_override("gpt-4o-batch", 900_000, deployment="Chat-Batch"))
    assert _input_pico(named, "gpt-4o", "chat-batch") == 900_000


def test_override_names_itself() -> None:
    """A ledger row priced by an override says which one: model, conditions and date."""
    pricer = _pricer(_override("gpt-4o", 1_500_000, tenant="contoso"))
    found = pricer.unit_prices("contoso", "azure", "gpt-4o", "", "", NOW_UTC)
    assert found is not None
    assert found.price_id == "override/gpt-4o/tenant=contoso@2026-01-01"
    assert found.source == "config/prices.yaml"
