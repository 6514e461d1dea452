"""The built-in price book: list prices in memory, looked up by exact name and instant. It knows nothing of config."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from shared.pricing.catalog import CATALOG_DIR, Catalog, CatalogEntry, ContextBand, read_catalog
from shared.usage.tokens import STANDARD_TIERS

PROVIDER_ALIASES = {
    "azure": "azure-openai",
    "azure_openai": "azure-openai",
    "azureopenai": "azure-openai",
    "azure.ai.openai": "azure-openai",
}
TIER_ALIASES = {**dict.fromkeys(STANDARD_TIERS, "standard"), "fast": "priority"}


class UnitPrices(msgspec.Struct, frozen=True):
    """The unit prices in force for a call: pico-USD per token by kind, `unit_pico` for input below the first band."""

    price_id: str
    unit_pico: Mapping[str, int]
    source: str
    effective_from: datetime
    bands: tuple[ContextBand, ...] = ()
    listed: UnitPrices | None = None  # what the list says instead; None: this is the list price, or there is none

    def for_input(self, input_tokens: int) -> Mapping[str, int]:
        """The prices of a call whose whole input, cached tokens included, is `input_tokens`.

        Past a band's threshold its prices hold for every token of the call, so a long prompt is never billed as short.
        """
        prices = self.unit_pico
        for band in self.bands:
            if input_tokens <= band.above_tokens:
                break
            prices = band.unit_pico
        return prices


class Timeline(msgspec.Struct, frozen=True):
    """Prices that follow each other. `starts` and `prices` run in parallel; None is a stretch without a price."""

    starts: list[datetime]
    prices: list[UnitPrices | None]

    def at(self, at_utc: datetime) -> UnitPrices | None:
        """The price in force at an instant, None before the first one."""
        position = bisect_right(self.starts, at_utc)
        return self.prices[position - 1] if position else None


NO_PRICE = Timeline([], [])


class PriceBook:
    """List prices by provider, model, deployment type and processing tier, each with its history."""

    def __init__(self, catalogs: Iterable[Catalog]) -> None:
        dated: dict[tuple[str, str, str, str], list[CatalogEntry]] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        for catalog in catalogs:
            for entry in catalog.entries:
                dated.setdefault(entry.key, []).append(entry)
            for alias, model in catalog.aliases.items():
                self._aliases[catalog.provider, alias] = model
        self._timelines = {key: _timeline(entries) for key, entries in dated.items()}

    @classmethod
    def load(cls, paths: Iterable[Path] | None = None) -> PriceBook:
        """The book of the given files, by default all that ship. Raises ValueError for a file unfit to price by."""
        return cls(read_catalog(path) for path in paths or sorted(CATALOG_DIR.glob("*.json")))

    def find(
        self, provider: str, model: str, deployment_type: str, processing_tier: str, at_utc: datetime
    ) -> UnitPrices | None:
        """The price in force at an instant for an exact name or one of its listed aliases, None when there is none."""
        return self.timeline(provider, model, deployment_type, processing_tier).at(at_utc)

    def timeline(self, provider: str, model: str, deployment_type: str, processing_tier: str) -> Timeline:
        """All prices of a line over time: the model's own, and its alias's where and while it has none of its own."""
        own = self._timelines.get((provider, model, deployment_type, processing_tier), NO_PRICE)
        alias = self._aliases.get((provider, model))
        if alias is None:
            return own
        return preferring([own, self._timelines.get((provider, alias, deployment_type, processing_tier), NO_PRICE)])

    def alias_of(self, provider: str, model: str) -> str | None:
        """The model a version or spelling is billed as, None when the name is not an alias."""
        return self._aliases.get((provider, model))


def preferring(timelines: Iterable[Timeline]) -> Timeline:
    """One timeline that at every instant has the price of the first of `timelines` that has any."""
    ordered = list(timelines)
    starts = sorted({start for timeline in ordered for start in timeline.starts})
    return Timeline(starts, [_first_price(ordered, start) for start in starts])


def beside_list(contracted: Timeline, book: Iterable[Timeline]) -> Timeline:
    """The contracted prices, each beside what the first of `book` that knows it says at that instant."""
    listed = preferring(timeline for timeline in book if timeline.starts)
    if not contracted.starts or not listed.starts:
        return contracted
    starts = sorted({*contracted.starts, *listed.starts})
    return Timeline(starts, [_beside(contracted.at(start), listed.at(start)) for start in starts])


def canonical_provider(provider: str) -> str:
    """The catalog's name of a provider: `azure` and `azure-openai` are one."""
    lowered = provider.lower()
    return PROVIDER_ALIASES.get(lowered, lowered)


def canonical_tier(processing_tier: str | None) -> str:
    """The catalog's name of a processing tier, whatever the provider's usage calls it."""
    lowered = (processing_tier or "").lower()
    return TIER_ALIASES.get(lowered, lowered)


def _beside(price: UnitPrices | None, listed: UnitPrices | None) -> UnitPrices | None:
    return price if price is None or listed is None else replace(price, listed=listed)


def _first_price(timelines: list[Timeline], at_utc: datetime) -> UnitPrices | None:
    return next((price for timeline in timelines if (price := timeline.at(at_utc)) is not None), None)


def _timeline(entries: list[CatalogEntry]) -> Timeline:
    prices = [
        UnitPrices(
            price_id=entry.price_id,
            unit_pico=entry.unit_pico,
            source=entry.source,
            effective_from=datetime.combine(entry.effective_from, time(), UTC),
            bands=entry.bands,
        )
        for entry in sorted(entries, key=lambda entry: entry.effective_from)
    ]
    return Timeline([price.effective_from for price in prices], list(prices))
