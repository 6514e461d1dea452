"""LiteLLM's model price map: USD per token by model; batch, priority, flex and long context are suffixes of a field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from scripts.price_sources.quotes import NotWholePicoError, Quote, pico

MAP_FILE = "litellm/model_prices_and_context_window_backup.json"
MODES = ("chat", "responses", "embedding")
PROVIDERS = {"azure": "azure-openai", "openai": "openai", "anthropic": "anthropic", "databricks": "databricks"}

KIND_BY_FIELD = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_token": "output",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_image_token": "output_image",
}
TIER_BY_SUFFIX = {"": "standard", "_batches": "batch", "_priority": "priority", "_flex": "flex"}
PRICE_FIELD = re.compile(
    rf"({'|'.join(sorted(KIND_BY_FIELD, key=len, reverse=True))})(?:_above_(\d+)k_tokens)?(_batches|_priority|_flex)?"
)

# Azure keys carry the deployment type as a prefix; a bare key is the Global deployment, as the map's own comments and
# its `azure/global/...` twins (equal wherever both exist) show. Other prefixes are left out and reported.
AZURE_PREFIXES = {
    "": "global",
    "global": "global",
    "global-standard": "global",
    "us": "data-zone-us",
    "eu": "data-zone-eu",
    "apac": "data-zone-apac",
}
# Not models: a code container, and the router's own fee, which comes on top of the routed model's price.
NOT_MODELS = {"azure/container", "openai/container", "azure/model-router"}


def parse_map(text: str) -> dict[str, dict[str, Any]]:
    """The price map with every number an exact Decimal."""
    parsed: dict[str, dict[str, Any]] = json.loads(text, parse_float=Decimal)
    return parsed


def quotes(price_map: dict[str, dict[str, Any]], version: str, problems: list[str]) -> Iterator[Quote]:
    """Every token price of the providers the catalog covers; what cannot be carried exactly goes to `problems`."""
    for key, listing in price_map.items():
        provider = PROVIDERS.get(str(listing.get("litellm_provider")))
        if provider is None or listing.get("mode") not in MODES or key in NOT_MODELS:
            continue
        place = _place(provider, key)
        if place is None:
            problems.append(f"left out {key}: no deployment type of the catalog has this prefix")
            continue
        deployment_type, model = place
        try:
            tiers = _tiers(key, listing, problems)
        except ValueError as error:
            problems.append(f"left out {key}: {error}")
            continue
        for tier, bands in tiers.items():
            base = bands.pop(0, {})
            if not _complete(base, listing["mode"]):
                problems.append(f"left out {key} {tier}: it does not price both input and output")
                continue
            _report_gaps(key, tier, base, bands, problems)
            yield Quote(provider, model, deployment_type, tier, base, f"litellm {version} {key}", bands)


def _place(provider: str, key: str) -> tuple[str, str] | None:
    """Deployment type and model id of a key, None when its prefix names a place the catalog does not cover."""
    if provider != "azure-openai":
        return "global", key.removeprefix(f"{provider}/")
    prefix, _, model = key.removeprefix("azure/").rpartition("/")
    return (AZURE_PREFIXES[prefix], model) if prefix in AZURE_PREFIXES else None


def _tiers(key: str, listing: dict[str, Any], problems: list[str]) -> dict[str, dict[int, dict[str, int]]]:
    """Prices by processing tier, then by context threshold in tokens (0: the base), then by token kind.

    A kind whose price is finer than a pico-USD is left out and so is unpriced.
    """
    tiers: dict[str, dict[int, dict[str, int]]] = {}
    for name, price in listing.items():
        match = PRICE_FIELD.fullmatch(name)
        if match is None or price is None:
            continue
        kind, threshold = KIND_BY_FIELD[match[1]], int(match[2] or 0) * 1000
        if price == 0 and kind == "output" and listing["mode"] == "embedding":
            continue  # an embedding has no output tokens to price
        if price == 0:
            raise ValueError(f"{name} is 0, which may mean free or unknown")
        try:
            exact = pico(Decimal(price))
        except NotWholePicoError as error:
            problems.append(f"left out {key} {name}: {error}")
            continue
        tiers.setdefault(TIER_BY_SUFFIX[match[3] or ""], {}).setdefault(threshold, {})[kind] = exact
    return tiers


def _complete(prices: dict[str, int], mode: str) -> bool:
    return "input" in prices and (mode == "embedding" or "output" in prices)


def _report_gaps(
    key: str, tier: str, base: dict[str, int], bands: dict[int, dict[str, int]], problems: list[str]
) -> None:
    """A kind that the base prices and a band does not stays unpriced in that band: the base price would be too low."""
    for threshold, prices in bands.items():
        missing = sorted(set(base) - set(prices) - {"cached_input", "input_image"})
        if missing:
            problems.append(f"gap in {key} {tier} above {threshold} tokens: {', '.join(missing)} unpriced there")
