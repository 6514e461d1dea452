"""Append the prices of today to shared/pricing/catalog/. Run by hand, from the root of the project:

    python -m scripts.build_price_book                      # downloads both wheels
    python -m scripts.build_price_book --litellm a.whl --genai-prices b.whl

Entries are only ever added: a price that changed becomes a new entry dated by its source, or today where the source has
no date. The report on standard output is for the reviewer; docs/pricing.md says how to read it and accept the change.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from scripts.price_sources import genai_prices_data, litellm_map, merge
from scripts.price_sources.quotes import Quote
from scripts.price_sources.wheels import download_wheel, read_from_wheel, wheel_version
from shared.pricing.catalog import (
    CATALOG_DIR,
    Catalog,
    CatalogEntry,
    ContextBand,
    catalog_problems,
    price_id,
    read_catalog,
    write_catalog,
)

PriceKey = tuple[str, str, str, str]  # provider, model, deployment type, processing tier

PROVIDERS = ("azure-openai", "openai", "anthropic", "openrouter", "databricks")


def main() -> int:
    """Build the catalog and print the review report. Returns 1, and writes nothing, when the result is unsound."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        litellm = arguments.litellm or download_wheel("litellm", Path(folder))
        genai = arguments.genai_prices or download_wheel("genai-prices", Path(folder))
        present = [_present(provider) for provider in PROVIDERS]
        listed = {entry.key for catalog in present for entry in catalog.entries}
        quotes, aliases, report = collect(litellm, genai, listed)
    catalogs = [
        appended(catalog, quotes, aliases.get(catalog.provider, {}), arguments.date, report) for catalog in present
    ]
    problems = [problem for catalog in catalogs for problem in catalog_problems(catalog)]
    _print("\n".join(sorted(report)))
    if problems:
        _print("NOTHING WRITTEN, the result is unsound:\n" + "\n".join(problems))
        return 1
    for catalog in catalogs:
        write_catalog(CATALOG_DIR / f"{catalog.provider}.json", catalog)
        _print(f"{catalog.provider}: {len(catalog.entries)} entries, {len(catalog.aliases)} aliases")
    return 0


def collect(
    litellm: Path, genai: Path, listed: set[PriceKey]
) -> tuple[list[Quote], dict[str, dict[str, str]], list[str]]:
    """Quotes, aliases by provider, and the lines of the review report, read from the two wheels.

    `listed` are the catalog's own price lines: they are never folded into others, or their next change would be missed.
    """
    report: list[str] = []
    price_map = litellm_map.parse_map(read_from_wheel(litellm, litellm_map.MAP_FILE))
    listings = litellm_map.quotes(price_map, wheel_version(litellm), report)
    primary = merge.guard_long_context(merge.unique(listings, report), report)
    second_listings = genai_prices_data.parse_providers(read_from_wheel(genai, genai_prices_data.DATA_FILE))
    second: list[Quote] = []
    dated: dict[tuple[str, str], list[Quote]] = {}
    names: dict[tuple[str, str], str] = {}
    for listing_id, provider in genai_prices_data.PROVIDERS.items():
        quoted = list(genai_prices_data.quotes(second_listings[listing_id], wheel_version(genai), report))
        second += quoted
        by_model = merge.by_model(quoted)
        for model in second_listings[listing_id]["models"]:
            for name in genai_prices_data.model_names(model):
                names[provider, name] = model["id"]
                if (provider, model["id"]) in by_model:
                    dated[provider, name] = by_model[provider, model["id"]]
    report += [f"differs: {line}" for line in merge.disagreements(primary, dated)]
    known = {(quote.provider, quote.model) for quote in primary}
    quotes = [*merge.with_history(merge.merge_zones(primary, listed), dated), *merge.only_here(second, known)]
    remaining, aliases = merge.fold_versions(quotes, names, {key[:2] for key in listed})
    return remaining, aliases, report


def appended(
    present: Catalog, quotes: Iterable[Quote], aliases: dict[str, str], today: date, report: list[str]
) -> Catalog:
    """A provider's catalog with the new and the changed prices added; nothing that is in it is altered."""
    latest: dict[PriceKey, CatalogEntry] = {}
    for entry in sorted(present.entries, key=lambda entry: entry.effective_from):
        latest[entry.key] = entry
    listed_before = set(latest)
    added: list[CatalogEntry] = []
    dated = sorted(
        (quote for quote in quotes if quote.provider == present.provider), key=lambda quote: quote.effective_from
    )
    newest = {quote.key: quote for quote in dated}
    for quote in dated:
        if quote.key in listed_before:
            before = latest[quote.key]
            if quote is not newest[quote.key] or _charges(before) == quote.prices:
                continue
            start = quote.effective_from if quote.effective_from > before.effective_from else today
            if start <= before.effective_from:
                report.append(
                    f"NOT APPENDED {before.price_id}: it changed again on the day it began; run again tomorrow"
                )
                continue
            quote = quote.starting(start)
            report.append(f"changed: {before.price_id} is succeeded from {start} on")
        elif _was_charged_by_another(quote, present, listed_before):
            quote = quote.starting(today)
            report.append(f"changed: {'/'.join(quote.key)} has prices of its own from {today} on")
        entry = _entry(quote, today)
        latest[quote.key] = entry
        added.append(entry)
    changed = {name for name, model in aliases.items() if present.aliases.get(name, model) != model}
    report += [f"alias {name} kept as {present.aliases[name]}; the sources now say {aliases[name]}" for name in changed]
    return Catalog(present.provider, {**aliases, **present.aliases}, (*present.entries, *added))


def _was_charged_by_another(quote: Quote, present: Catalog, listed: set[PriceKey]) -> bool:
    """Whether an alias or the joint data-zone line priced these calls until now: then the past keeps that price."""
    joint = (quote.provider, quote.model, "data-zone", quote.processing_tier)
    return quote.model in present.aliases or (quote.deployment_type in merge.ZONES and joint in listed)


def _present(provider: str) -> Catalog:
    path = CATALOG_DIR / f"{provider}.json"
    return read_catalog(path) if path.exists() else Catalog(provider, {}, ())


def _charges(entry: CatalogEntry) -> tuple[dict[str, int], dict[int, dict[str, int]]]:
    return entry.unit_pico, {band.above_tokens: band.unit_pico for band in entry.bands}


def _entry(quote: Quote, fetched: date) -> CatalogEntry:
    return CatalogEntry(
        price_id=price_id(*quote.key, quote.effective_from),
        provider=quote.provider,
        model=quote.model,
        deployment_type=quote.deployment_type,
        processing_tier=quote.processing_tier,
        effective_from=quote.effective_from,
        unit_pico=quote.unit_pico,
        source=quote.source,
        fetched=fetched,
        bands=tuple(ContextBand(above, prices) for above, prices in sorted(quote.bands.items())),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, help="a litellm wheel instead of downloading the newest")
    parser.add_argument("--genai-prices", type=Path, help="a genai-prices wheel instead of downloading the newest")
    parser.add_argument(
        "--date", type=date.fromisoformat, default=datetime.now(UTC).date(), help="the date of this review"
    )
    return parser.parse_args()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
