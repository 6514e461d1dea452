"""The catalog that ships: guarded by digest, sound in every entry, and spot-checked against published list prices."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import msgspec
import pytest

from shared.pricing.book import PriceBook
from shared.pricing.catalog import CATALOG_DIR, Catalog, catalog_problems, read_catalog

DIGESTS = {
    "anthropic.json": "9a1e71d554b65cfc7b1f44cec4679bd442352952a31289bac11c3ed402758604",
    "azure-openai.json": "801f1a6a08fd192307aeb457d1e10d413482a833058b162656c6200188ffc17c",
    "databricks.json": "a09c33564ccf96ba13fbceaa9fc9850d8d4aebe3186b68cf7e25f93f5961b859",
    "openai.json": "8188b605fe969c2e9b0b14605e7e247d6ace52d3b2d31ae352336c90a8bbcd24",
    "openrouter.json": "8d9befaec0de3f91a8500a513711bd74f9fb53d74ada9e7ca713d95d991bc719",
}

ON_CHANGE = """
shared/pricing/catalog/{name} changed. Prices are appended, never edited: a changed entry re-prices the past.
If `git diff` shows only added lines, and you compared each with the provider's price page, put this digest into
DIGESTS in this test and name the change in CHANGELOG.md:
    "{name}": "{digest}",
If it shows a removed or altered line, restore it and append a dated entry instead (docs/pricing.md).
"""
NOW_UTC = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_catalog_file_changes_only_on_purpose(name: str) -> None:
    """A catalog file that differs by one byte from the reviewed one is noticed."""
    digest = sha256((CATALOG_DIR / name).read_bytes()).hexdigest()
    assert digest == DIGESTS[name], ON_CHANGE.format(name=name, digest=digest)


def test_every_catalog_file_is_guarded() -> None:
    """A file added to the catalog without a digest is noticed."""
    assert {path.name for path in CATALOG_DIR.glob("*.json")} == set(DIGESTS)


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_every_entry_is_sound(name: str) -> None:
    """Every entry has a source, dates and non-negative prices (zero only when marked free), and none has a twin."""
    catalog = read_catalog(CATALOG_DIR / name)
    assert catalog.entries
    assert all(entry.source and entry.fetched and entry.effective_from for entry in catalog.entries)
    keys = [(entry.key, entry.effective_from) for entry in catalog.entries]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"unit_pico": {"input": -1}}, "costs -1"),
        ({"unit_pico": {"input": 0}}, "only an entry marked free"),
        ({"unit_pico": {"inputs": 5}}, "not a token kind"),
        ({"unit_pico": {}}, "prices nothing"),
        ({"source": ""}, "has no source"),
        ({"price_id": "azure-openai/gpt-4o@2020-01-01"}, "does not name its own key"),
        ({"provider": "openai"}, "stands in the file of"),
    ],
)
def test_unsound_entry_is_refused(change: dict[str, object], complaint: str) -> None:
    """A price that is negative, silently free, of an unknown kind or of unknown origin cannot get into the book."""
    catalog = read_catalog(CATALOG_DIR / "azure-openai.json")
    broken = msgspec.structs.replace(catalog.entries[0], **change)
    problems = catalog_problems(Catalog(catalog.provider, {}, (broken,)))
    assert any(complaint in problem for problem in problems), problems


def test_alias_to_nothing_is_refused() -> None:
    """An alias must lead to a model that has entries, or calls would silently become unpriced."""
    catalog = read_catalog(CATALOG_DIR / "anthropic.json")
    problems = catalog_problems(Catalog(catalog.provider, {"claude-next": "claude-nowhere"}, catalog.entries))
    assert problems == ["alias claude-next: claude-nowhere has no entry"]


@pytest.mark.parametrize(
    ("provider", "model", "deployment_type", "tier", "kind", "usd_per_million"),
    [
        ("azure-openai", "gpt-4o", "global", "standard", "input", "2.5"),
        ("azure-openai", "gpt-4o", "global", "standard", "cached_input", "1.25"),
        ("azure-openai", "gpt-4o", "global", "standard", "output", "10"),
        ("azure-openai", "gpt-4o", "global", "batch", "output", "5"),
        ("azure-openai", "gpt-4o", "data-zone", "standard", "input", "2.75"),
        ("azure-openai", "gpt-4o-2024-05-13", "global", "standard", "input", "5"),
        ("azure-openai", "gpt-4o-mini-2024-07-18", "global", "standard", "output", "0.6"),
        ("openai", "gpt-4.1", "global", "standard", "output", "8"),
        ("openai", "text-embedding-3-small", "global", "standard", "input", "0.02"),
        ("anthropic", "claude-sonnet-4-5-20250929", "global", "standard", "cache_write_1h", "6"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "global", "standard", "output", "15"),
    ],
)
def test_known_list_prices(
    provider: str, model: str, deployment_type: str, tier: str, kind: str, usd_per_million: str
) -> None:
    """Prices everyone can look up came through the build unharmed: none 1000 times off, none under another tier."""
    found = PriceBook.load().find(provider, model, deployment_type, tier, NOW_UTC)
    assert found is not None
    assert found.unit_pico[kind] == float(usd_per_million) * 1_000_000
