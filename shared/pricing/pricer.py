"""What a call costs, and what it counts against its budgets when that is not known. Pure: config and book come in.

One `Pricer` serves one version of the config; a new version gets a new pricer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from shared.config.model import Config
from shared.ledger.row import PricingStatus
from shared.money import pico_per_token
from shared.pricing.book import PriceBook, Timeline, UnitPrices, canonical_tier
from shared.pricing.resolve import PriceResolver

DEFAULT_GUARD_PICO = {"input": pico_per_token(10), "output": pico_per_token(40)}

# Model names come from outside. Past this many different calls the memory of resolved prices starts afresh, so that
# invented names cost time but never memory.
MAX_RESOLVED = 4096

INPUT_KINDS = frozenset({"input", "cached_input", "cache_write", "cache_write_1h", "input_audio", "input_image"})
INFORMATIONAL_KINDS = frozenset({"reasoning"})  # already inside output
# Providers that list no price of their own for these bill them as plain input. Cache writes and audio are dearer than
# input, so a book without their price does not know what they cost.
BILLED_AS_INPUT = frozenset({"cached_input", "input_image"})


class Rated(msgspec.Struct, frozen=True):
    """What one call costs. Amounts in nano-USD.

    `cost_nano_usd` None means unknown, never free; then `lines_nano_usd` is empty, `charge_nano_usd` is what budgets
    count instead, and `unpriced_kinds` names the token kinds without a price (all used ones when no price was found).
    """

    cost_nano_usd: int | None
    charge_nano_usd: int
    lines_nano_usd: dict[str, int]
    price_id: str | None
    pricing_status: PricingStatus
    unpriced_kinds: tuple[str, ...] = ()
    unit_pico: dict[str, int] = msgspec.field(default_factory=dict)  # pico-USD per token, of the kinds of the lines
    list_pico: dict[str, int] = msgspec.field(default_factory=dict)  # of those whose price off the list differs


NOTHING_TO_PRICE = Rated(0, 0, {}, None, "none")


class Pricer:
    """Prices calls by one config and one book. Remembers each resolved price line; safe to share between tasks."""

    def __init__(self, book: PriceBook, config: Config) -> None:
        self._resolver = PriceResolver(book, config)
        self._config = config
        self._timelines: dict[tuple[str, str, str, str, str, str | None], Timeline] = {}
        self._guards: dict[str, UnitPrices] = {}

    def unit_prices(
        self,
        tenant: str,
        provider: str,
        model: str,
        deployment: str,
        region: str,
        at_utc: datetime,
        processing_tier: str | None = None,
    ) -> UnitPrices | None:
        """The unit prices of such a call at the instant it was admitted, None when it is unpriced.

        `model` is what the response said, or what a check asks for. Empty strings stand for what is not known.
        """
        key = (tenant, provider, model, deployment, region, processing_tier)
        timeline = self._timelines.get(key)
        if timeline is None:
            tier = canonical_tier(processing_tier)
            timeline = self._resolver.timeline(tenant, provider, model, deployment, region, tier)
            if len(self._timelines) >= MAX_RESOLVED:
                self._timelines.clear()
            self._timelines[key] = timeline
        return timeline.at(at_utc)

    def rate(
        self,
        tenant: str,
        provider: str,
        model: str,
        deployment: str,
        region: str,
        at_utc: datetime,
        tokens: Mapping[str, int],
        processing_tier: str | None = None,
    ) -> Rated:
        """Price the tokens of one call by kind, each line rounded half-up once to nano-USD.

        The kinds are disjoint (`input` excludes cached tokens); `reasoning` only informs. A kind that has no price
        makes the whole call unpriced.
        """
        found = self.unit_prices(tenant, provider, model, deployment, region, at_utc, processing_tier)
        if found is None:
            return self._unpriced(tenant, tokens, None, {})
        prices = found.for_input(_input_tokens(tokens)) if found.bands else found.unit_pico
        units: dict[str, int] = {}
        cost_nano_usd = 0
        lines: dict[str, int] = {}
        complete = True
        for kind, count in tokens.items():
            if count <= 0 or kind in INFORMATIONAL_KINDS:
                continue
            unit_pico = prices.get(kind)
            if unit_pico is None and kind in BILLED_AS_INPUT:
                unit_pico = prices.get("input")
            if unit_pico is None:
                complete = False
                continue
            line = (count * unit_pico + 500) // 1000  # money.line_nano_usd, unrolled: this runs per kind and event
            lines[kind] = line
            units[kind] = unit_pico
            cost_nano_usd += line
        if not complete:
            return self._unpriced(tenant, tokens, found.price_id, lines)
        if not lines:
            return NOTHING_TO_PRICE
        listed = {} if found.listed is None else _list_prices(found.listed, tokens, units)
        return Rated(cost_nano_usd, cost_nano_usd, lines, found.price_id, "priced", (), units, listed)

    def hold_prices(
        self,
        tenant: str,
        provider: str,
        model: str,
        deployment: str,
        region: str,
        at_utc: datetime,
        input_tokens: int,
        service_tier: str = "",
    ) -> tuple[int, int]:
        """Pico-USD per input and per output token to hold for a call before it is made, at its long-context band.

        Never free for want of a price: what is unknown is held at the guard price. A model that lists no output price
        at all, such as an embedding, holds none. `service_tier` is what the request says.
        """
        place = (tenant, provider, model, deployment, region, at_utc)
        standard = self._hold_prices(place, input_tokens, None)
        tier = canonical_tier(service_tier)
        if tier == "standard":
            return standard
        # A provider serves the tier asked for, or the standard one in its place, and bills what it served. Holding the
        # cheaper of the two would let a burst pass its budget by the difference.
        asked = self._hold_prices(place, input_tokens, tier)
        return max(standard[0], asked[0]), max(standard[1], asked[1])

    def _hold_prices(
        self, place: tuple[str, str, str, str, str, datetime], input_tokens: int, tier: str | None
    ) -> tuple[int, int]:
        found = self.unit_prices(*place, tier)
        guard = self.guard_prices(place[0]).unit_pico
        if found is None:
            return guard["input"], guard["output"]
        prices = found.for_input(input_tokens)
        output_pico = prices.get("output", guard["output"]) if "output" in found.unit_pico else 0
        return prices.get("input", guard["input"]), output_pico

    def guard_prices(self, tenant: str) -> UnitPrices:
        """What a call of unknown price counts against budgets, per input and output token.

        The tenant's own guard, else the dearest prices among config's models, else 10 and 40 USD per million.
        """
        guard = self._guards.get(tenant)
        if guard is None:
            known = self._config.tenants.get(tenant)
            stated = known.guard_usd_per_million if known else {}
            guard = UnitPrices(
                price_id="guard",
                unit_pico={kind: stated.get(kind) or self._dearest(tenant, kind) for kind in ("input", "output")},
                source="config/tenants.yaml" if stated else "the dearest configured model",
                effective_from=datetime.min.replace(tzinfo=UTC),
            )
            if known:  # an invented tenant must not grow the memory
                self._guards[tenant] = guard
        return guard

    def _dearest(self, tenant: str, kind: str) -> int:
        """The highest newest price of a kind among config's models, in pico-USD per token."""
        end_of_time = datetime.max.replace(tzinfo=UTC)
        found = [
            self.unit_prices(tenant, model.provider, model.id, deployment, "", end_of_time)
            for model in self._config.models.values()
            for deployment in (model.deployments or ("",))
        ]
        prices = [price.unit_pico.get(kind, 0) for price in found if price is not None]
        return max(prices, default=0) or DEFAULT_GUARD_PICO[kind]

    def _unpriced(self, tenant: str, tokens: Mapping[str, int], price_id: str | None, known: dict[str, int]) -> Rated:
        """Cost unknown. Budgets count the guard price, or what part of the cost is known if that is more."""
        used = {kind: count for kind, count in tokens.items() if count > 0 and kind not in INFORMATIONAL_KINDS}
        if not used:
            return NOTHING_TO_PRICE
        guard = self.guard_prices(tenant).unit_pico
        charge_pico = sum(count * guard["input" if kind in INPUT_KINDS else "output"] for kind, count in used.items())
        return Rated(
            cost_nano_usd=None,
            charge_nano_usd=max((charge_pico + 500) // 1000, sum(known.values())),
            lines_nano_usd={},
            price_id=price_id,
            pricing_status="unpriced",
            unpriced_kinds=tuple(kind for kind in used if kind not in known),
        )


def _list_prices(listed: UnitPrices, tokens: Mapping[str, int], units: Mapping[str, int]) -> dict[str, int]:
    """The list's prices of the kinds that are billed at another one; a kind that it does not know has none."""
    prices = listed.for_input(_input_tokens(tokens))
    found: dict[str, int] = {}
    for kind, unit_pico in units.items():
        list_pico = prices.get(kind)
        if list_pico is None and kind in BILLED_AS_INPUT:
            list_pico = prices.get("input")
        if list_pico is not None and list_pico != unit_pico:
            found[kind] = list_pico
    return found


def _input_tokens(tokens: Mapping[str, int]) -> int:
    """The whole input of a call, cached and audio tokens included: what a long-context band is decided by."""
    return sum(count for kind, count in tokens.items() if kind in INPUT_KINDS and count > 0)
