"""The book: exact names, dates, aliases, long-context bands."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from shared.pricing.book import PriceBook, canonical_provider, canonical_tier
from shared.pricing.catalog import Catalog, CatalogEntry, ContextBand, price_id, read_catalog, write_catalog


def _entry(model: str, start: date, input_pico: int, **more: object) -> CatalogEntry:
    values: dict[str, object] = {
        "price_id": price_id("acme", model, "global", "standard", start),
        "provider": "acme",
        "model": model,
        "deployment_type": "global",
        "processing_tier": "standard",
        "effective_from": start,
        "unit_pico": {"input": input_pico},
        "source": "test 1 acme",
        "fetched": date(2026, 11, 21),
    }
    return CatalogEntry(**{**values, **more})  # type: ignore[arg-type]


def _book(*entries: CatalogEntry, aliases: dict[str, str] | None = None) -> PriceBook:
    return PriceBook([Catalog("acme", aliases or {}, entries)])


def _input_price(book: PriceBook, model: str, at_utc: datetime) -> int | None:
    found = book.find("acme", model, "global", "standard", at_utc)
    return found.unit_pico["input"] if found else None


def test_event_time_decides_the_price() -> None:
    """The newest entry not after the instant holds, from midnight UTC on; before the first there is none."""
    book = _book(_entry("m", date(2026, 6, 1), 10_000_000), _entry("m", date(2026, 7, 1), 2_000_000))
    assert _input_price(book, "m", datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)) is None
    assert _input_price(book, "m", datetime(2026, 6, 30, 23, 59, 59, 999999, tzinfo=UTC)) == 10_000_000
    assert _input_price(book, "m", datetime(2026, 7, 1, tzinfo=UTC)) == 2_000_000


def test_dated_history_of_o3_is_kept() -> None:
    """A late event of before 10 June 2025 is billed at o3's price of that day, not at today's fifth of it."""
    book = PriceBook.load()
    before = book.find("openai", "o3-2025-04-16", "global", "standard", datetime(2025, 6, 9, 23, 59, tzinfo=UTC))
    after = book.find("openai", "o3-2025-04-16", "global", "standard", datetime(2025, 6, 10, tzinfo=UTC))
    assert before is not None
    assert after is not None
    assert (before.unit_pico["input"], before.unit_pico["output"]) == (10 * 1_000_000, 40 * 1_000_000)
    assert (after.unit_pico["input"], after.unit_pico["output"]) == (2 * 1_000_000, 8 * 1_000_000)


def test_names_are_matched_whole() -> None:
    """Neither a prefix nor a longer name finds a price: guessing by part of a name is how calls get mispriced."""
    book = _book(_entry("gpt-4o", date(2026, 1, 1), 5))
    at_utc = datetime(2026, 11, 21, tzinfo=UTC)
    assert _input_price(book, "gpt-4", at_utc) is None
    assert _input_price(book, "gpt-4o-mini", at_utc) is None
    assert _input_price(book, "gpt-4o-2030-01-01", at_utc) is None


def test_alias_is_billed_as_its_model_until_it_has_a_price_of_its_own() -> None:
    """A version follows its model's dated prices; once it has an own entry, its past keeps the model's price."""
    book = _book(
        _entry("m", date(2026, 1, 1), 7),
        _entry("m-v2", date(2026, 9, 1), 9),
        aliases={"m-v2": "m", "m-v1": "m"},
    )
    assert _input_price(book, "m-v1", datetime(2026, 10, 1, tzinfo=UTC)) == 7
    assert _input_price(book, "m-v2", datetime(2026, 8, 31, tzinfo=UTC)) == 7
    assert _input_price(book, "m-v2", datetime(2026, 9, 1, tzinfo=UTC)) == 9


def test_context_band_holds_for_every_token_past_its_threshold() -> None:
    """At the threshold the base holds; one token more and the band does; the highest band passed wins."""
    bands = (ContextBand(200_000, {"input": 20}), ContextBand(400_000, {"input": 40}))
    found = _book(_entry("m", date(2026, 1, 1), 10, bands=bands)).find(
        "acme", "m", "global", "standard", datetime(2026, 11, 21, tzinfo=UTC)
    )
    assert found is not None
    assert [found.for_input(tokens)["input"] for tokens in (0, 200_000, 200_001, 400_000, 400_001)] == [
        10,
        10,
        20,
        20,
        40,
    ]


def test_file_survives_a_round_trip_with_one_entry_to_a_line(tmp_path: Path) -> None:
    """What the build script writes, the product reads back unchanged, and a new price is one new line to review."""
    catalog = Catalog("acme", {"m-v1": "m"}, (_entry("m", date(2026, 1, 1), 7),))
    path = tmp_path / "acme.json"
    write_catalog(path, catalog)
    assert read_catalog(path) == catalog
    before = path.read_text().splitlines()
    write_catalog(path, Catalog("acme", {"m-v1": "m"}, (*catalog.entries, _entry("m", date(2026, 2, 1), 6))))
    assert len(path.read_text().splitlines()) == len(before) + 1


def test_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    """A catalog file that cannot be read stops the start with its name, rather than leaving calls unpriced."""
    path = tmp_path / "acme.json"
    path.write_text('{"provider": "acme", "aliases": {}, "entries": [{}]}')
    with pytest.raises(ValueError, match=r"acme\.json"):
        PriceBook.load([path])


def test_spellings_of_providers_and_tiers_meet() -> None:
    """`azure` is `azure-openai`; the standard tier's other names are standard, an unknown tier stays itself."""
    assert canonical_provider("azure") == canonical_provider("Azure-OpenAI") == "azure-openai"
    assert canonical_provider("openrouter") == "openrouter"
    assert [canonical_tier(tier) for tier in (None, "", "default", "Auto", "standard")] == ["standard"] * 5
    assert canonical_tier("scale") == "scale"
