"""What two price books or two configurations charge differently for the configured models. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from shared.config.model import Config
from shared.pricing.book import PriceBook, UnitPrices
from shared.pricing.pricer import Pricer


class PriceDifference(msgspec.Struct, frozen=True):
    """One token kind of one model. Prices in pico-USD per token, which is micro-USD per million; None: no price."""

    tenant: str
    provider: str
    model: str
    kind: str
    before_pico: int | None
    after_pico: int | None
    before_source: str = ""
    after_source: str = ""


def without_overrides(config: Config) -> Config:
    """The configuration at list prices: no override and no discount."""
    return msgspec.structs.replace(config, prices=(), discounts=())


def price_differences(
    before: tuple[PriceBook, Config], after: tuple[PriceBook, Config], at_utc: datetime
) -> list[PriceDifference]:
    """What changes for the models and tenants of the configuration `after`, at an instant."""
    old, new = Pricer(*before), Pricer(*after)
    return [
        difference
        for tenant in sorted(after[1].tenants)
        for model, provider, deployment in _lines(after[1])
        for difference in _compared(
            (tenant, provider, model),
            old.unit_prices(tenant, provider, model, deployment, "", at_utc),
            new.unit_prices(tenant, provider, model, deployment, "", at_utc),
        )
    ]


def _lines(config: Config) -> Iterator[tuple[str, str, str]]:
    """Model, provider and first deployment of every configured model."""
    for model in sorted(config.models.values(), key=lambda model: model.id):
        yield model.id, model.provider, model.served_by[0]


def _compared(
    names: tuple[str, str, str], before: UnitPrices | None, after: UnitPrices | None
) -> Iterator[PriceDifference]:
    was = {} if before is None else before.unit_pico
    becomes = {} if after is None else after.unit_pico
    sources = ("" if before is None else before.source, "" if after is None else after.source)
    for kind in sorted({*was, *becomes}):
        if was.get(kind) != becomes.get(kind):
            yield PriceDifference(*names, kind, was.get(kind), becomes.get(kind), *sources)
