"""Discounts off list prices: which one holds for a call, and what the contracted price then is. Pure.

contracted = list x (1 - discount), half-up to the pico-USD per token, once, before anything is multiplied by it: so a
row's price times its tokens is what the call costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase

from msgspec.structs import replace

from shared.config.model import Discount
from shared.ppm import PPM, percent_of_ppm
from shared.pricing.book import Timeline, UnitPrices, canonical_provider
from shared.pricing.catalog import ContextBand
from shared.pricing.deployments import compact_region, same_deployment

_GLOB = frozenset("*?[")


def discounts_of_call(
    discounts: Iterable[Discount], tenant: str, provider: str, deployment: str, region: str
) -> list[Discount]:
    """Those that hold for such a call, whatever its model; `provider` is the catalog's name of it."""
    return [
        entry
        for entry in discounts
        if entry.tenant in (None, tenant)
        and (entry.provider is None or canonical_provider(entry.provider) == provider)
        and (entry.deployment is None or same_deployment(entry.deployment, deployment))
        and (entry.region is None or compact_region(entry.region) == compact_region(region))
    ]


def discounted(listed: Timeline, discounts: Iterable[Discount], names: Sequence[str]) -> Timeline:
    """List prices over time as they are contracted; `names` are the ids the model is priced under.

    At every instant the most specific discount in force holds, and of equally specific ones the newest. They do not add
    up.
    """
    mine = [entry for entry in discounts if entry.model is None or _matches(entry.model, names)]
    if not mine or not listed.starts:
        return listed
    ranked = sorted(mine, key=_rank, reverse=True)
    starts = sorted({*listed.starts, *(entry.effective_from for entry in mine)})
    return Timeline(starts, [_contracted(listed.at(start), ranked, start) for start in starts])


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _rank(entry: Discount) -> tuple[int, bool, bool, bool, bool, bool, datetime]:
    """What more of the call is named wins; a tie goes to tenant, deployment, region, an exact model, then a pattern."""
    named = (entry.tenant, entry.deployment, entry.region, entry.provider, entry.model)
    return (
        sum(name is not None for name in named),
        entry.tenant is not None,
        entry.deployment is not None,
        entry.region is not None,
        entry.model is not None and _GLOB.isdisjoint(entry.model),
        entry.model is not None,
        entry.effective_from,
    )


def _contracted(price: UnitPrices | None, ranked: Sequence[Discount], at_utc: datetime) -> UnitPrices | None:
    entry = next((entry for entry in ranked if entry.effective_from <= at_utc), None)
    if price is None or entry is None or entry.off_ppm == 0:
        return price
    return replace(
        price,
        price_id=f"{price.price_id} less {percent_of_ppm(entry.off_ppm)}%",
        unit_pico=_off(price.unit_pico, entry.off_ppm),
        bands=tuple(ContextBand(band.above_tokens, _off(band.unit_pico, entry.off_ppm)) for band in price.bands),
        listed=price,
    )


def _off(unit_pico: Mapping[str, int], off_ppm: int) -> dict[str, int]:
    return {kind: (pico * (PPM - off_ppm) + PPM // 2) // PPM for kind, pico in unit_pico.items()}
