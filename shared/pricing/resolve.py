"""From the names on a call to the price line that bills it. The order is policy; docs/pricing.md states it for people.

1. The model the response names: an override, else the book less a discount.
2. The model that config maps the deployment to: an override, else the book less a discount.
3. Nothing: the call is unpriced. There is no matching by part of a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from shared.config.model import Config, Model, PriceOverride
from shared.pricing.book import PriceBook, Timeline, UnitPrices, beside_list, canonical_provider, preferring
from shared.pricing.deployments import compact_region, price_lines, same_deployment
from shared.pricing.discounts import discounted, discounts_of_call


class PriceResolver:
    """Resolves the names of a call against one config and one book. Slow: the pricer keeps what it returns."""

    def __init__(self, book: PriceBook, config: Config) -> None:
        self._book = book
        self._models = config.models
        self._overrides = config.prices
        self._discounts = config.discounts
        self._by_deployment: dict[str, list[Model]] = {}
        for model in config.models.values():
            for name in model.deployments:
                self._by_deployment.setdefault(name, []).append(model)

    def timeline(
        self, tenant: str, provider: str, model: str, deployment: str, region: str, processing_tier: str
    ) -> Timeline:
        """The prices of such a call over time; an empty timeline when nothing prices it at any time.

        An empty `provider` is taken from the config's model. `processing_tier` is the catalog's name of it.
        """
        deployed = _of_provider(provider, self._by_deployment.get(deployment, ()))
        configured = deployed or _of_provider(provider, self._configured(provider, model))
        provider = canonical_provider(provider or (configured.provider if configured else ""))
        lines = price_lines(configured.deployment_type if configured else None, region, processing_tier)
        standard = all(tier == "standard" for _, tier in lines)
        overrides = [
            entry
            for entry in self._overrides
            if _names_call(entry, tenant, provider, deployment, region) and (standard or entry.deployment)
        ]
        discounts = discounts_of_call(self._discounts, tenant, provider, deployment, region)
        timelines: list[Timeline] = []
        for names in self._candidates(provider, model, deployed):
            book = [self._book.timeline(provider, name, *line) for name in names for line in lines]
            contracted = [discounted(prices, discounts, names) for prices in book] if discounts else book
            override = _override_timeline(overrides, names, deployed.id if deployed else None)
            timelines += beside_list(override, book), *contracted
        return preferring(timeline for timeline in timelines if timeline.starts)

    def _candidates(self, provider: str, model: str, deployed: Model | None) -> list[tuple[str, ...]]:
        """The names to look for, as groups to try in turn: the response's model, then the deployment's.

        When both are the same model under two names (a version and the id config gives it), they are one group, so that
        an override on either name is found before the book's price of the other.
        """
        responded = self._names(provider, model)
        if deployed is None:
            return [responded]
        mapped = self._names(provider, deployed.id)
        if set(responded) & set(mapped):
            return [tuple(name for name in dict.fromkeys((model, *mapped, *responded)) if name)]
        return [responded, mapped]

    def _configured(self, provider: str, model: str) -> list[Model]:
        """The config's model of that id, or of the id its version is an alias of."""
        alias = self._book.alias_of(canonical_provider(provider), model)
        return [self._models[name] for name in (model, alias) if name is not None and name in self._models]

    def _names(self, provider: str, model: str) -> tuple[str, ...]:
        """The ids a name may be priced under, best first: itself, what config bills it as, what it is a version of."""
        names = [model]
        configured = _of_provider(provider, [self._models[model]] if model in self._models else [])
        if configured is not None and configured.price_as:
            names.append(configured.price_as)
        alias = self._book.alias_of(provider, model)
        if alias is not None:
            names.append(alias)
        return tuple(name for name in dict.fromkeys(names) if name)


def _names_call(entry: PriceOverride, tenant: str, provider: str, deployment: str, region: str) -> bool:
    return (
        entry.tenant in (None, tenant)
        and (entry.provider is None or canonical_provider(entry.provider) == provider)
        and (entry.deployment is None or same_deployment(entry.deployment, deployment))
        and (entry.region is None or compact_region(entry.region) == compact_region(region))
    )


def _of_provider(provider: str, models: Iterable[Model]) -> Model | None:
    """The first model of the call's provider: another provider may have a model or deployment of the same name."""
    wanted = canonical_provider(provider)
    return next((model for model in models if wanted in ("", canonical_provider(model.provider))), None)


def _override_timeline(entries: Iterable[PriceOverride], names: tuple[str, ...], deployed: str | None) -> Timeline:
    """At every instant the most specific override in force, and of equally specific ones the newest.

    An override that names the deployment holds for it whatever model the response names.
    """

    def rank(entry: PriceOverride) -> tuple[int, int, bool, bool, bool, datetime]:
        named = (entry.tenant, entry.deployment, entry.region, entry.provider)
        closeness = -names.index(entry.model) if entry.model in names else -len(names)
        return (
            sum(name is not None for name in named),
            closeness,
            entry.tenant is not None,
            entry.deployment is not None,
            entry.region is not None,
            _utc(entry.effective_from),
        )

    applicable = [entry for entry in entries if entry.model in names or (entry.deployment and entry.model == deployed)]
    ranked = sorted(applicable, key=rank, reverse=True)
    return preferring([Timeline([_utc(entry.effective_from)], [_unit_prices(entry)]) for entry in ranked])


def _unit_prices(entry: PriceOverride) -> UnitPrices:
    """An override stands alone: a kind it leaves out is not filled in from the book."""
    start = _utc(entry.effective_from)
    named = {"tenant": entry.tenant, "provider": entry.provider, "deployment": entry.deployment, "region": entry.region}
    where = "".join(f"/{field}={value}" for field, value in named.items() if value is not None)
    date = start.strftime("%Y-%m-%d" if start.time() == datetime.min.time() else "%Y-%m-%dT%H:%M:%SZ")
    return UnitPrices(
        price_id=f"override/{entry.model}{where}@{date}",
        unit_pico=entry.unit_pico,
        source="config/prices.yaml",
        effective_from=start,
    )


def _utc(instant: datetime) -> datetime:
    """An override's date without a zone means midnight UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
