"""The configured models as `GET /models` shows them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shared.config.model import Model
from shared.money import decimal_from_nano
from shared.pricing.book import UnitPrices


def listed_models(models: Mapping[str, Model], prices_of: Callable[[Model], UnitPrices | None]) -> list[dict[str, Any]]:
    """Every model by id, with its prices in USD per million tokens, and which others it stands in for."""
    return [_view(model, models, prices_of(model)) for _, model in sorted(models.items())]


def _view(model: Model, models: Mapping[str, Model], prices: UnitPrices | None) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "provider": model.provider,
        "deployments": list(model.deployments),
        "deployment_type": model.deployment_type or "global",
        "capabilities": sorted(model.capabilities),
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "fallbacks": list(model.fallbacks),
        "fallback_for": sorted(other.id for other in models.values() if model.id in other.fallbacks),
        "pricing_status": "priced" if prices else "unpriced",
        "prices": _prices_view(prices) if prices else None,
    }


def _prices_view(prices: UnitPrices) -> dict[str, Any]:
    return {
        "price_id": prices.price_id,
        "source": prices.source,
        "effective_from": prices.effective_from.isoformat().replace("+00:00", "Z"),
        "usd_per_million": {kind: _usd_per_million(pico) for kind, pico in prices.unit_pico.items()},
        "long_context": [
            {
                "above_input_tokens": band.above_tokens,
                "usd_per_million": {kind: _usd_per_million(pico) for kind, pico in band.unit_pico.items()},
            }
            for band in prices.bands
        ],
    }


def _usd_per_million(unit_pico: int) -> str:
    """One pico-USD per token is one micro-USD per million tokens."""
    return decimal_from_nano(unit_pico * 1000)
