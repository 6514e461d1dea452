"""What a call costs: exact lines, unknown is never free, guard prices."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.model import Config, Model, PriceOverride, Tenant
from shared.money import line_nano_usd
from shared.pricing.book import PriceBook
from shared.pricing.catalog import CATALOG_DIR, Catalog, ContextBand, read_catalog
from shared.pricing.pricer import MAX_RESOLVED, Pricer, Rated
from shared.usage.tokens import PRICED_KINDS

NOW_UTC = datetime(2026, 11, 21, 12, tzinfo=UTC)
BOOK = PriceBook.load()


def _pricer(*models: Model, prices: tuple[PriceOverride, ...] = (), tenant: Tenant | None = None) -> Pricer:
    tenant = tenant or Tenant(id="contoso")
    by_id = {model.id: model for model in models}
    return Pricer(BOOK, Config("v1", {tenant.id: tenant}, {}, (), by_id, prices))


def _rate(
    pricer: Pricer, model: str, tokens: dict[str, int], tier: str | None = None, provider: str = "azure"
) -> Rated:
    return pricer.rate("contoso", provider, model, "", "westeurope", NOW_UTC, tokens, tier)


def _override(**unit_pico: int) -> PriceOverride:
    return PriceOverride("own-model", datetime(2026, 1, 1, tzinfo=UTC), unit_pico)


def test_each_kind_is_a_line_and_the_lines_sum_to_the_cost() -> None:
    """Input, cached input and output are priced apart at gpt-4o's 2.50, 1.25 and 10 USD per million."""
    rated = _rate(_pricer(), "gpt-4o-2024-08-06", {"input": 1200, "cached_input": 1024, "output": 300})
    lines = {
        "input": 1200 * 2_500_000 // 1000,
        "cached_input": 1024 * 1_250_000 // 1000,
        "output": 300 * 10_000_000 // 1000,
    }
    assert rated.lines_nano_usd == lines
    assert rated.cost_nano_usd == rated.charge_nano_usd == sum(lines.values())
    assert rated.pricing_status == "priced"
    assert rated.price_id == "azure-openai/gpt-4o/global/standard@2020-01-01"


def test_a_line_is_rounded_half_up_once() -> None:
    """Half a nano-USD becomes one, less becomes none; rounding per token would multiply the error by the tokens."""
    pricer = _pricer(prices=(_override(input=500, output=499),))
    assert _rate(pricer, "own-model", {"input": 1, "output": 1}).lines_nano_usd == {"input": 1, "output": 0}
    assert _rate(pricer, "own-model", {"input": 3, "output": 1000}).lines_nano_usd == {"input": 2, "output": 499}


def test_reasoning_is_inside_output_and_costs_nothing_more() -> None:
    """Reasoning tokens inform; pricing them would bill them twice."""
    plain = _rate(_pricer(), "o3", {"input": 10, "output": 500})
    assert _rate(_pricer(), "o3", {"input": 10, "output": 500, "reasoning": 400}) == plain


def test_unknown_model_has_no_cost_and_is_charged_the_guard() -> None:
    """A model nobody priced costs `None`, never 0, and budgets count the default guard of 10 and 40 USD per million."""
    rated = _rate(_pricer(), "gpt-99-turbo", {"input": 1000, "cached_input": 50, "output": 200, "reasoning": 100})
    assert rated.cost_nano_usd is None
    assert rated.charge_nano_usd == (1050 * 10_000_000 + 200 * 40_000_000) // 1000
    assert rated.lines_nano_usd == {}
    assert rated.price_id is None
    assert rated.pricing_status == "unpriced"
    assert rated.unpriced_kinds == ("input", "cached_input", "output")


def test_kind_without_a_price_makes_the_whole_call_unpriced() -> None:
    """Audio on a text model has no price there; billing it as text, or not at all, would be silent and wrong."""
    rated = _rate(_pricer(), "gpt-4o", {"input": 1000, "input_audio": 300, "output": 10})
    assert rated.cost_nano_usd is None
    assert rated.unpriced_kinds == ("input_audio",)
    assert rated.price_id == "azure-openai/gpt-4o/global/standard@2020-01-01"
    assert rated.charge_nano_usd == (1300 * 10_000_000 + 10 * 40_000_000) // 1000


def test_charge_of_a_partly_priced_call_is_never_below_its_known_part() -> None:
    """Where the known lines alone cost more than the guard, budgets count those."""
    pricer = _pricer(prices=(_override(input=900_000_000, output=1),))
    rated = _rate(pricer, "own-model", {"input": 1000, "output_audio": 1})
    assert rated.cost_nano_usd is None
    assert rated.charge_nano_usd == 1000 * 900_000_000 // 1000


def test_cached_input_without_a_price_of_its_own_costs_as_input() -> None:
    """A discount nobody stated is not given, and cached tokens are not free."""
    pricer = _pricer(prices=(_override(input=2_000_000, output=8_000_000),))
    rated = _rate(pricer, "own-model", {"input": 100, "cached_input": 900})
    assert rated.cost_nano_usd == 1000 * 2_000_000 // 1000


def test_long_input_is_billed_at_the_band_for_every_token() -> None:
    """Cached tokens count towards the threshold; one token past 272,000 makes the output dearer too."""
    at_limit = _rate(_pricer(), "gpt-5.4", {"input": 172_000, "cached_input": 100_000, "output": 10})
    past = _rate(_pricer(), "gpt-5.4", {"input": 172_001, "cached_input": 100_000, "output": 10})
    assert at_limit.cost_nano_usd == (172_000 * 2_500_000 + 100_000 * 250_000 + 10 * 15_000_000) // 1000
    assert past.cost_nano_usd == (172_001 * 5_000_000 + 100_000 * 500_000 + 10 * 22_500_000) // 1000


def test_processing_tier_has_its_own_price_or_none() -> None:
    """Batch is cheaper, priority dearer, and a tier without a listed price is unpriced, not billed as standard."""
    tokens = {"input": 1000}
    assert _rate(_pricer(), "gpt-5.4", tokens).cost_nano_usd == 1000 * 2_500_000 // 1000
    assert _rate(_pricer(), "gpt-5.4", tokens, "batch").cost_nano_usd == 1000 * 1_250_000 // 1000
    assert _rate(_pricer(), "gpt-5.4", tokens, "priority").cost_nano_usd == 1000 * 5_000_000 // 1000
    assert _rate(_pricer(), "gpt-4o", tokens, "priority").cost_nano_usd is None
    assert _rate(_pricer(), "gpt-4o", tokens, "default").cost_nano_usd == 1000 * 2_500_000 // 1000


def test_a_model_is_free_only_when_a_price_of_zero_is_stated() -> None:
    """A zero that someone wrote down is a known cost of 0, priced, with lines."""
    pricer = _pricer(prices=(_override(input=0, output=0),))
    rated = _rate(pricer, "own-model", {"input": 1000, "output": 5})
    assert (rated.cost_nano_usd, rated.charge_nano_usd, rated.pricing_status) == (0, 0, "priced")
    assert rated.lines_nano_usd == {"input": 0, "output": 0}


def test_no_tokens_is_nothing_to_price() -> None:
    """A call that used nothing costs 0 with status `none`, whatever its model: there is nothing unknown about it."""
    for model in ("gpt-4o", "gpt-99-turbo"):
        for tokens in ({}, {"input": 0}, {"reasoning": 5}):
            assert _rate(_pricer(), model, tokens) == Rated(0, 0, {}, None, "none")


def test_hold_covers_what_the_call_may_cost() -> None:
    """A hold uses the band its input falls in, the guard where the price is unknown, and no output for an embedding."""
    pricer = _pricer()

    def hold(model: str, input_tokens: int, provider: str = "azure") -> tuple[int, int]:
        return pricer.hold_prices("contoso", provider, model, "", "", NOW_UTC, input_tokens)

    assert hold("gpt-5.4", 272_000) == (2_500_000, 15_000_000)
    assert hold("gpt-5.4", 272_001) == (5_000_000, 22_500_000)
    assert hold("gpt-99-turbo", 10) == (10_000_000, 40_000_000)
    assert hold("text-embedding-3-small", 10, "openai") == (20_000, 0)


@pytest.mark.parametrize(
    ("model", "tier", "held"),
    [
        ("gpt-5.4", "", (2_500_000, 15_000_000)),
        ("gpt-5.4", "priority", (5_000_000, 30_000_000)),
        ("gpt-5.4", "Priority", (5_000_000, 30_000_000)),
        ("gpt-5.4", "fast", (5_000_000, 30_000_000)),
        ("gpt-5.4", "flex", (2_500_000, 15_000_000)),  # listed at half of it, and may be served as standard
        ("gpt-5.4", "batch", (2_500_000, 15_000_000)),
        ("gpt-5.4", "scale", (10_000_000, 40_000_000)),  # not listed: billed at the guard
        ("gpt-4.1-nano", "flex", (10_000_000, 40_000_000)),
        ("gpt-4-32k", "scale", (60_000_000, 120_000_000)),  # standard is dearer than the guard
    ],
)
def test_a_hold_covers_the_tier_asked_for_and_the_standard_one(model: str, tier: str, held: tuple[int, int]) -> None:
    """Providers bill what they served: the tier asked for, or standard in its place. The dearer of the two is held.

    Held at standard, a burst of priority calls would pass its budget by the half that was not held.
    """
    assert _pricer().hold_prices("contoso", "openai", model, "", "", NOW_UTC, 1000, tier) == held


@pytest.mark.parametrize("tier", ["auto", "default", "standard", "standard_only"])
def test_words_for_the_standard_tier_hold_what_the_deployment_costs(tier: str) -> None:
    """What `auto` means is set at the provider, so config says it: a deployment of type `priority` is priced as one."""
    models = (Model("gpt-5.4", "openai", ("plain",)), Model("gpt-5.4-p", "openai", ("fast",), price_as="gpt-5.4"))
    pricer = _pricer(models[0], msgspec.structs.replace(models[1], deployment_type="priority"))
    held = [
        pricer.hold_prices("contoso", "openai", model.id, model.deployments[0], "", NOW_UTC, 1000, tier)
        for model in models
    ]
    assert held == [(2_500_000, 15_000_000), (5_000_000, 30_000_000)]


@given(
    tier=st.sampled_from(["", "default", "batch", "flex", "priority", "fast", "scale"]),
    model=st.sampled_from(["gpt-5.4", "gpt-5.4-mini", "gpt-4o", "o4-mini", "text-embedding-3-small", "gpt-99-turbo"]),
    input_tokens=st.integers(0, 400_000),
    output_tokens=st.integers(0, 10_000),
)
def test_no_tier_is_billed_above_its_hold(tier: str, model: str, input_tokens: int, output_tokens: int) -> None:
    """Whatever tier is asked for and served, priced or not, the ledger charges no more than was held."""
    pricer = _pricer()
    tokens = {"input": input_tokens, "output": 0 if "embedding" in model else output_tokens}
    held = pricer.hold_prices("contoso", "openai", model, "", "", NOW_UTC, input_tokens, tier)
    held_nano_usd = line_nano_usd(tokens["input"], held[0]) + line_nano_usd(tokens["output"], held[1])
    assert _rate(pricer, model, tokens, tier, "openai").charge_nano_usd <= held_nano_usd
    assert _rate(pricer, model, tokens, None, "openai").charge_nano_usd <= held_nano_usd


def test_hold_past_a_band_without_prices_is_the_guard() -> None:
    """Where the book lists no long-context price, neither the cheap base price nor 0 is held, and nothing is billed."""
    entry = msgspec.structs.replace(
        read_catalog(CATALOG_DIR / "azure-openai.json").entries[0], bands=(ContextBand(1000, {}),)
    )
    config = Config("v1", {}, {}, (), {})
    pricer = Pricer(PriceBook([Catalog(entry.provider, {}, (entry,))]), config)
    held = pricer.hold_prices("contoso", "azure", entry.model, "", "", NOW_UTC, 1001)
    assert held[0] == 10_000_000
    assert _rate(pricer, entry.model, {"input": 1001}).cost_nano_usd is None


def test_guard_of_the_tenant_wins_then_the_dearest_configured_model() -> None:
    """Per kind, the guard is what the tenant states, else the dearest configured price, else 10 and 40 per million."""
    stated = Tenant(id="contoso", guard_usd_per_million={"input": 3_000_000})
    models = (Model("gpt-4o"), Model("o3", deployments=("o3-weu",)), Model("unknown-model"))
    assert _pricer().guard_prices("contoso").unit_pico == {"input": 10_000_000, "output": 40_000_000}
    assert _pricer(*models).guard_prices("contoso").unit_pico == {"input": 2_500_000, "output": 10_000_000}
    assert _pricer(*models, tenant=stated).guard_prices("contoso").unit_pico == {
        "input": 3_000_000,
        "output": 10_000_000,
    }
    assert _pricer(*models).guard_prices("nobody").unit_pico == {"input": 2_500_000, "output": 10_000_000}


def test_a_free_configured_model_does_not_make_the_guard_free() -> None:
    """When every configured model is free, an unknown one still counts the default guard."""
    pricer = _pricer(Model("own-model"), prices=(_override(input=0, output=0),))
    assert pricer.guard_prices("contoso").unit_pico == {"input": 10_000_000, "output": 40_000_000}


def test_invented_model_names_do_not_grow_the_memory() -> None:
    """Names come from outside; remembering each would let a caller exhaust the worker."""
    pricer = _pricer()
    for number in range(MAX_RESOLVED + 10):
        pricer.unit_prices("contoso", "azure", f"invented-{number}", "", "", NOW_UTC)
    assert len(pricer._timelines) <= MAX_RESOLVED
    assert _rate(pricer, "gpt-4o", {"input": 1000}).cost_nano_usd == 1000 * 2_500_000 // 1000


@given(
    tokens=st.dictionaries(st.sampled_from(PRICED_KINDS), st.integers(0, 10**12)),
    prices=st.dictionaries(st.sampled_from(PRICED_KINDS), st.integers(1, 10**9)),
)
def test_cost_is_the_exact_sum_of_lines_or_unknown(tokens: dict[str, int], prices: dict[str, int]) -> None:
    """For any tokens and prices the cost is the sum of its exact lines, or it is unknown and charged."""
    rated = _rate(_pricer(prices=(_override(**prices),)), "own-model", tokens)
    if rated.cost_nano_usd is None:
        assert rated.charge_nano_usd > 0
        assert rated.unpriced_kinds
    else:
        assert rated.cost_nano_usd == rated.charge_nano_usd == sum(rated.lines_nano_usd.values())
        for kind, line in rated.lines_nano_usd.items():
            assert line == line_nano_usd(tokens[kind], prices.get(kind, prices.get("input", -1)))


@pytest.mark.parametrize("kind", PRICED_KINDS)
def test_every_token_kind_is_guarded(kind: str) -> None:
    """Whatever kind an unknown model reports, it counts against budgets."""
    assert _rate(_pricer(), "gpt-99-turbo", {kind: 1}).charge_nano_usd >= 10_000_000 // 1000
