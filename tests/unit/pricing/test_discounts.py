"""Discounts off the list: what a call costs, what the list says beside it, and which discount holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.model import Config, Discount, Model, PriceOverride, Tenant
from shared.pricing.book import PriceBook
from shared.pricing.catalog import Catalog, CatalogEntry, ContextBand, price_id
from shared.pricing.pricer import Pricer, Rated

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PERCENT = 10_000  # ppm


def entry(model: str, unit_pico: dict[str, int], tier: str = "standard", **more: Any) -> CatalogEntry:
    since = more.pop("since", date(2020, 1, 1))
    name = price_id("azure-openai", model, "global", tier, since)
    return CatalogEntry(name, "azure-openai", model, "global", tier, since, unit_pico, "test", date(2026, 1, 1), **more)


BOOK = PriceBook(
    [
        Catalog(
            "azure-openai",
            {"big-2026-01-01": "big"},
            (
                entry("big", {"input": 2_500_000, "cached_input": 1_250_001, "output": 10_000_000}),
                entry("big", {"input": 1_250_000, "output": 5_000_000}, tier="batch"),
                entry("small", {"input": 150_000, "output": 600_000}),
                entry("long", {"input": 100}, bands=(ContextBand(1_000, {"input": 300}),)),
                entry("moving", {"input": 1_000}),
                entry("moving", {"input": 3_000}, since=date(2026, 9, 1)),
            ),
        )
    ]
)


def off(percent: float, since: datetime = JANUARY, **where: str) -> Discount:
    return Discount(effective_from=since, off_ppm=round(percent * PERCENT), **where)


def rate(
    tokens: Mapping[str, int],
    *discounts: Discount,
    model: str = "big",
    prices: tuple[PriceOverride, ...] = (),
    at_utc: datetime = NOW,
    deployment: str = "big-weu",
    tier: str | None = None,
    tenant: str = "contoso",
) -> Rated:
    models = {"big": Model("big", deployments=("big-weu",))}
    config = Config("v1", {"contoso": Tenant("contoso")}, {}, (), models, prices, discounts)
    return Pricer(BOOK, config).rate(tenant, "azure", model, deployment, "westeurope", at_utc, tokens, tier)


def test_a_discount_comes_off_every_kind_once_and_half_up() -> None:
    """10 % off 2.50 USD per million is 2.25; 10 % off 1,250,001 pico-USD is 1,125,000.9, so 1,125,001."""
    rated = rate({"input": 1_000, "cached_input": 1_000}, off(10))
    assert rated.unit_pico == {"input": 2_250_000, "cached_input": 1_125_001}
    assert rated.list_pico == {"input": 2_500_000, "cached_input": 1_250_001}
    assert rated.lines_nano_usd == {"input": 2_250_000, "cached_input": 1_125_001}
    assert rated.cost_nano_usd == 2_250_000 + 1_125_001
    assert rated.price_id == "azure-openai/big/global/standard@2020-01-01 less 10%"


def test_without_a_discount_the_list_price_is_the_price() -> None:
    """Nothing differs, so nothing is kept beside it."""
    rated = rate({"input": 1_000})
    assert (rated.unit_pico, rated.list_pico) == ({"input": 2_500_000}, {})


@pytest.mark.parametrize(
    ("discounts", "input_pico"),
    [
        ([off(10), off(20, JULY)], 2_000_000),  # the newest of equals
        ([off(10), off(20, NOW + timedelta(days=1))], 2_250_000),  # not yet
        ([off(10), off(0, JULY)], 2_500_000),  # ended
        ([off(20, JULY), off(10, tenant="contoso")], 2_250_000),  # the tenant's own, though older
        ([off(10, tenant="contoso"), off(30, tenant="fabrikam")], 2_250_000),
        ([off(10, model="big"), off(20, tenant="contoso")], 2_000_000),  # of one name each, the tenant's
        ([off(10, model="b*"), off(20, model="big")], 2_000_000),  # an id before a pattern
        ([off(10, model="small")], 2_500_000),
        ([off(10, provider="azure-openai"), off(20, provider="anthropic")], 2_250_000),
        ([off(10, deployment="BIG-weu")], 2_250_000),  # Azure knows no case
        ([off(10, deployment="big-weu", model="b*"), off(20, tenant="contoso")], 2_250_000),  # two names before one
        ([off(10, region="West Europe"), off(20, region="eastus")], 2_250_000),
        ([off(100)], 0),
    ],
)
def test_the_most_specific_discount_in_force_holds(discounts: list[Discount], input_pico: int) -> None:
    """What more of the call is named wins, as with overrides; discounts never add up."""
    assert rate({"input": 1}, *discounts).unit_pico == {"input": input_pico}


def test_a_version_is_discounted_as_the_model_it_is_priced_as() -> None:
    """A pattern on the id people know holds for its versions."""
    assert rate({"input": 1}, off(10, model="big"), model="big-2026-01-01").unit_pico == {"input": 2_250_000}


def test_a_discount_holds_on_every_tier() -> None:
    """20 % off the batch price, not off the standard one."""
    rated = rate({"input": 1}, off(20), tier="batch")
    assert (rated.unit_pico, rated.list_pico) == ({"input": 1_000_000}, {"input": 1_250_000})


def test_a_long_call_is_discounted_from_its_own_band() -> None:
    """Past 1,000 tokens the list says 300; half of it is 150, and the list beside it says 300, not 100."""
    short, long = rate({"input": 1_000}, off(50), model="long"), rate({"input": 1_001}, off(50), model="long")
    assert (short.unit_pico, short.list_pico) == ({"input": 50}, {"input": 100})
    assert (long.unit_pico, long.list_pico) == ({"input": 150}, {"input": 300})


def test_an_override_beats_every_discount_and_stands_beside_the_list() -> None:
    """A negotiated price is what it is; the list price of the same instant stays visible beside it."""
    fixed = PriceOverride("moving", JANUARY, {"input": 500})
    before = rate({"input": 1}, off(90), model="moving", prices=(fixed,), at_utc=JULY)
    after = rate({"input": 1}, off(90), model="moving", prices=(fixed,), at_utc=NOW)
    assert (before.unit_pico, before.list_pico) == ({"input": 500}, {"input": 1_000})
    assert (after.unit_pico, after.list_pico) == ({"input": 500}, {"input": 3_000})


def test_where_the_list_knows_nothing_the_contract_is_the_list() -> None:
    """A model of one's own has no list price, and neither has a kind that the list leaves out."""
    own = PriceOverride("house", JANUARY, {"input": 500})
    assert rate({"input": 1}, model="house", prices=(own,)).list_pico == {}
    more = PriceOverride("small", JANUARY, {"input": 100, "input_audio": 700})
    rated = rate({"input": 1, "input_audio": 1}, model="small", prices=(more,))
    assert rated.list_pico == {"input": 150_000}


def test_budgets_hold_at_the_discounted_price() -> None:
    """A check holds what the call will be billed at: otherwise a tenth of every budget would lie idle."""
    config = Config("v1", {"contoso": Tenant("contoso")}, {}, (), {}, (), (off(10),))
    held = Pricer(BOOK, config).hold_prices("contoso", "azure-openai", "big", "", "", NOW, 100)
    assert held == (2_250_000, 9_000_000)


@given(
    tokens=st.dictionaries(st.sampled_from(["input", "cached_input", "output"]), st.integers(0, 10**9), max_size=3),
    ppm=st.integers(0, 1_000_000),
)
def test_every_line_is_its_tokens_at_its_price(tokens: dict[str, int], ppm: int) -> None:
    """Lines sum to the cost; each is tokens x unit price half-up; no price is above its list price."""
    rated = rate(tokens, Discount(effective_from=JANUARY, off_ppm=ppm))
    assert sum(rated.lines_nano_usd.values()) == rated.cost_nano_usd
    for kind, line in rated.lines_nano_usd.items():
        assert line == (tokens[kind] * rated.unit_pico[kind] + 500) // 1_000
        listed = rated.list_pico.get(kind, rated.unit_pico[kind])
        assert 2 * abs(listed * (1_000_000 - ppm) - rated.unit_pico[kind] * 1_000_000) <= 1_000_000
