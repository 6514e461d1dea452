"""The build of the catalog: exact numbers, append-only, and a report of what a reviewer must see."""

from __future__ import annotations

import json
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from scripts.build_price_book import appended, collect
from scripts.price_sources import genai_prices_data, litellm_map, merge
from scripts.price_sources.quotes import NotWholePicoError, Quote, pico
from shared.pricing.catalog import UNDATED, Catalog, ContextBand, catalog_problems

TODAY = date(2026, 11, 21)
LATER = date(2027, 2, 3)

GENAI_MODULE = """
import datetime
from decimal import Decimal
from .types import *
providers: list[Provider] = [
    Provider(id='openai', models=[
        ModelInfo(id='o3', match=ClauseOr(or_=[ClauseEquals(equals='o3'), ClauseEquals(equals='o3-2025-04-16')]),
                  prices=[
            ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('10'), output_mtok=Decimal('40'))),
            ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date(2025, 6, 10)),
                             prices=ModelPrice(input_mtok=Decimal('2'), output_mtok=Decimal('8'))),
        ]),
        ModelInfo(id='only-here', match=ClauseStartsWith(starts_with='only-'),
                  prices=ModelPrice(output_mtok=Decimal('3'), input_mtok=TieredPrices(
                      base=Decimal('1'), tiers=[Tier(start=200000, price=Decimal('2'))]))),
    ]),
    Provider(id='azure', models=[]), Provider(id='anthropic', models=[]), Provider(id='databricks', models=[]),
    Provider(id='openrouter', models=[
        ModelInfo(id='lab/free', match=ClauseEquals(equals='lab/free'),
                  prices=ModelPrice(input_mtok=Decimal('0'), output_mtok=Decimal('0'))),
    ]),
]
"""


def _listing(provider: str, input_usd: float, output_usd: float, **more: Any) -> dict[str, Any]:
    prices = {"input_cost_per_token": input_usd, "output_cost_per_token": output_usd}
    return {"litellm_provider": provider, "mode": "chat", **prices, **more}


def _wheels(folder: Path, price_map: dict[str, Any]) -> tuple[Path, Path]:
    litellm, genai = folder / "litellm-9.9-py3-none-any.whl", folder / "genai_prices-0.1-py3-none-any.whl"
    with zipfile.ZipFile(litellm, "w") as archive:
        archive.writestr(litellm_map.MAP_FILE, json.dumps(price_map))
    with zipfile.ZipFile(genai, "w") as archive:
        archive.writestr(genai_prices_data.DATA_FILE, GENAI_MODULE)
    return litellm, genai


def _built(tmp_path: Path, price_map: dict[str, Any], present: Catalog, today: date) -> tuple[Catalog, list[str]]:
    """The catalog of one provider after a build on `today`, and the report."""
    quotes, aliases, report = collect(*_wheels(tmp_path, price_map), {entry.key for entry in present.entries})
    catalog = appended(present, quotes, aliases.get(present.provider, {}), today, report)
    assert catalog_problems(catalog) == []
    return catalog, report


def _lines(catalog: Catalog, model: str) -> list[tuple[str, str, str, int]]:
    entries = [entry for entry in catalog.entries if entry.model == model]
    return [
        (entry.deployment_type, entry.processing_tier, str(entry.effective_from), entry.unit_pico["input"])
        for entry in entries
    ]


def test_prices_are_exact_or_left_out(tmp_path: Path) -> None:
    """A price finer than a pico-USD is reported and left out, never rounded: its calls are unpriced, not mispriced."""
    price_map = {"azure/m": _listing("azure", 1.375e-06, 1.1e-05), "azure/odd": _listing("azure", 1e-13, 1e-06)}
    catalog, report = _built(tmp_path, price_map, Catalog("azure-openai", {}, ()), TODAY)
    assert _lines(catalog, "m") == [("global", "standard", str(UNDATED), 1_375_000)]
    assert _lines(catalog, "odd") == []
    assert any("azure/odd" in line and "finer than one pico" in line for line in report)
    with pytest.raises(NotWholePicoError):
        pico(genai_prices_data.Decimal("1e-13"))


def test_tiers_zones_and_bands_become_lines_of_their_own(tmp_path: Path) -> None:
    """Batch is a tier; zones that agree are one line, zones that differ stay apart; bands stay on their entry."""
    long_context = {
        "input_cost_per_token_above_272k_tokens": 4e-06,
        "output_cost_per_token_above_272k_tokens": 9e-06,
        "input_cost_per_token_batches": 1e-06,
        "output_cost_per_token_batches": 3e-06,
    }
    price_map = {
        "azure/m": _listing("azure", 2e-06, 6e-06, **long_context),
        "azure/us/m": _listing("azure", 2.2e-06, 6.6e-06),
        "azure/eu/m": _listing("azure", 2.2e-06, 6.6e-06),
        "azure/us/n": _listing("azure", 1.1e-06, 2e-06),
        "azure/eu/n": _listing("azure", 1.2e-06, 2e-06),
        "azure/us-gov/n": _listing("azure", 1.3e-06, 2e-06),
    }
    catalog, report = _built(tmp_path, price_map, Catalog("azure-openai", {}, ()), TODAY)
    assert sorted(_lines(catalog, "m")) == [
        ("data-zone", "standard", str(UNDATED), 2_200_000),
        ("global", "batch", str(UNDATED), 1_000_000),
        ("global", "standard", str(UNDATED), 2_000_000),
    ]
    assert [line[0] for line in sorted(_lines(catalog, "n"))] == ["data-zone-eu", "data-zone-us"]
    standard = next(entry for entry in catalog.entries if entry.price_id.startswith("azure-openai/m/global/standard"))
    assert standard.bands[0].above_tokens == 272_000
    assert standard.bands[0].unit_pico == {"input": 4_000_000, "output": 9_000_000}
    batch = next(entry for entry in catalog.entries if entry.processing_tier == "batch")
    assert batch.bands == (ContextBand(272_000, {}),)  # the source is silent there: unpriced, not cheap
    assert any("us-gov" in line for line in report)


def test_dated_history_comes_from_the_source_that_has_it(tmp_path: Path) -> None:
    """The past price keeps its place before the change; a tier whose past is unknown starts at the change."""
    batches = {"input_cost_per_token_batches": 1e-06, "output_cost_per_token_batches": 4e-06}
    price_map = {"o3": _listing("openai", 2e-06, 8e-06, **batches), "o3-2025-04-16": _listing("openai", 2e-06, 8e-06)}
    catalog, _ = _built(tmp_path, price_map, Catalog("openai", {}, ()), TODAY)
    assert sorted(_lines(catalog, "o3")) == [
        ("global", "batch", "2025-06-10", 1_000_000),
        ("global", "standard", str(UNDATED), 10_000_000),
        ("global", "standard", "2025-06-10", 2_000_000),
    ]
    assert catalog.aliases["o3-2025-04-16"] == "o3"
    assert _lines(catalog, "only-here") == [("global", "standard", str(UNDATED), 1_000_000)]


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    """The same sources on a later day add nothing."""
    price_map = {"o3": _listing("openai", 2e-06, 8e-06), "m": _listing("openai", 1e-06, 2e-06)}
    first, _ = _built(tmp_path, price_map, Catalog("openai", {}, ()), TODAY)
    second, _ = _built(tmp_path, price_map, first, LATER)
    assert second == first


def test_a_changed_price_is_appended_with_todays_date(tmp_path: Path) -> None:
    """The old entry stays as it was; the new price starts on the day of the review, and the report says so."""
    first, _ = _built(tmp_path, {"azure/m": _listing("azure", 2e-06, 8e-06)}, Catalog("azure-openai", {}, ()), TODAY)
    second, report = _built(tmp_path, {"azure/m": _listing("azure", 1e-06, 8e-06)}, first, LATER)
    assert second.entries[: len(first.entries)] == first.entries
    assert _lines(second, "m")[-1] == ("global", "standard", str(LATER), 1_000_000)
    assert any(line.startswith("changed: azure-openai/m/global/standard") for line in report)


def test_a_model_that_vanishes_from_the_sources_keeps_its_price(tmp_path: Path) -> None:
    """Late events of a retired model must still find its price."""
    first, _ = _built(tmp_path, {"azure/m": _listing("azure", 2e-06, 8e-06)}, Catalog("azure-openai", {}, ()), TODAY)
    second, _ = _built(tmp_path, {}, first, LATER)
    assert second == first


def test_a_version_that_leaves_its_models_price_starts_today(tmp_path: Path) -> None:
    """Until now the alias priced it; its own entry must not re-price that past."""
    same = {"azure/m": _listing("azure", 2e-06, 8e-06), "azure/m-2026-01-01": _listing("azure", 2e-06, 8e-06)}
    first, _ = _built(tmp_path, same, Catalog("azure-openai", {}, ()), TODAY)
    assert first.aliases == {"m-2026-01-01": "m"}
    apart = {**same, "azure/m-2026-01-01": _listing("azure", 3e-06, 8e-06)}
    second, _ = _built(tmp_path, apart, first, LATER)
    assert _lines(second, "m-2026-01-01") == [("global", "standard", str(LATER), 3_000_000)]


def test_zones_that_part_start_today(tmp_path: Path) -> None:
    """Until now the joint line priced both zones; the lines of each must not re-price that past."""
    joint = {f"azure/{zone}/m": _listing("azure", 2e-06, 8e-06) for zone in ("us", "eu")}
    first, _ = _built(tmp_path, joint, Catalog("azure-openai", {}, ()), TODAY)
    apart = {**joint, "azure/eu/m": _listing("azure", 3e-06, 8e-06)}
    second, _ = _built(tmp_path, apart, first, LATER)
    assert _lines(second, "m")[1:] == [
        ("data-zone-us", "standard", str(LATER), 2_000_000),
        ("data-zone-eu", "standard", str(LATER), 3_000_000),
    ]


def test_sources_that_differ_are_reported_and_litellm_rules(tmp_path: Path) -> None:
    """More than one per cent apart: the reviewer sees both numbers, and the primary source's is taken."""
    catalog, report = _built(tmp_path, {"o3": _listing("openai", 2.5e-06, 8e-06)}, Catalog("openai", {}, ()), TODAY)
    assert _lines(catalog, "o3")[-1] == ("global", "standard", "2025-06-10", 2_500_000)
    assert any(line.startswith("differs: openai/o3 input") and "2000000" in line for line in report)


def test_zero_is_not_taken_for_free(tmp_path: Path) -> None:
    """A source's 0 may mean free or unknown: it is left out and reported."""
    price_map = {"m": _listing("openai", 0.0, 2e-06)}
    catalog, report = _built(tmp_path, price_map, Catalog("openai", {}, ()), TODAY)
    assert _lines(catalog, "m") == []
    openrouter, _ = _built(tmp_path, {}, Catalog("openrouter", {}, ()), TODAY)
    assert openrouter.entries == ()
    assert any("left out m:" in line for line in report)
    assert any("lab/free" in line and "may mean free or unknown" in line for line in report)


def test_data_module_is_read_not_run() -> None:
    """A module that holds anything but data is refused; nothing of a downloaded package is executed."""
    with pytest.raises(ValueError, match="which is not data"):
        genai_prices_data.parse_providers("providers: list = [Provider(id=a + b)]")


def test_twins_of_one_line_keep_the_fuller() -> None:
    """Of two keys for the same line the one that prices more kinds wins, and a contradiction is reported."""
    bare = Quote("p", "m", "global", "standard", {"input": 1, "output": 2}, "bare")
    full = Quote("p", "m", "global", "standard", {"input": 1, "output": 2, "cached_input": 1}, "full")
    other = Quote("p", "m", "global", "standard", {"input": 9, "output": 2}, "other")
    problems: list[str] = []
    assert merge.unique([bare, full, other], problems) == [full]
    assert problems == ["kept full: other is the same price line and differs"]
