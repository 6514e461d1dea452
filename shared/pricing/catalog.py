"""The price catalog as it lies on disk: dated, append-only JSON files that people review line by line.

`scripts/build_price_book.py` appends to these files, `book.py` reads them; both go through the types and checks here,
so that what the script writes is exactly what the product accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import msgspec

from shared.usage.tokens import PRICED_KINDS

CATALOG_DIR = Path(__file__).parent / "catalog"

# The sources give most prices no start date. Such a price holds from before the product existed, so that a late event
# still finds it; the first dated change ends it.
UNDATED = date(2020, 1, 1)


class ContextBand(msgspec.Struct, frozen=True):
    """The prices of a whole call once its input passes `above_tokens`: dearer from the first token, not from there."""

    above_tokens: int
    unit_pico: dict[str, int]  # token kind -> pico-USD per token


class CatalogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One price line from one date on. Never edited: a new price is a new entry with a later date."""

    price_id: str
    provider: str
    model: str
    deployment_type: str  # global, data-zone, data-zone-us, data-zone-eu, data-zone-apac, regional
    processing_tier: str  # standard, batch, priority, flex
    effective_from: date
    unit_pico: dict[str, int]  # token kind -> pico-USD per token
    source: str  # package, version and key the price was read from
    fetched: date
    bands: tuple[ContextBand, ...] = ()  # ascending by above_tokens
    free: bool = False  # the only way a price may be zero

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a price is looked up by: provider, model, deployment type, processing tier."""
        return self.provider, self.model, self.deployment_type, self.processing_tier


class Catalog(msgspec.Struct, frozen=True):
    """One file of the catalog: a provider's entries, and the other names its models answer under."""

    provider: str
    aliases: dict[str, str]  # a version or spelling -> the model id it is billed as
    entries: tuple[CatalogEntry, ...]


def price_id(provider: str, model: str, deployment_type: str, processing_tier: str, effective_from: date) -> str:
    """The stable name of a price entry, which ledger rows and statements repeat."""
    return f"{provider}/{model}/{deployment_type}/{processing_tier}@{effective_from.isoformat()}"


def read_catalog(path: Path) -> Catalog:
    """Read and check one catalog file. Raises ValueError naming the file and what is wrong with it."""
    try:
        catalog = msgspec.json.decode(path.read_bytes(), type=Catalog)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    problems = catalog_problems(catalog)
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return catalog


def write_catalog(path: Path, catalog: Catalog) -> None:
    """Write a catalog with one entry to a line, sorted by key and date, so that a change reads as added lines."""
    entries = sorted(catalog.entries, key=lambda entry: (entry.key, entry.effective_from))
    aliases = sorted(catalog.aliases.items())
    lines = ["{", f'"provider": {_json(catalog.provider)},', '"aliases": {']
    lines += _comma_separated([f"  {_json(alias)}: {_json(model)}" for alias, model in aliases])
    lines += ["},", '"entries": [']
    lines += _comma_separated([f"  {_json(entry)}" for entry in entries])
    lines += ["]", "}", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def catalog_problems(catalog: Catalog) -> list[str]:
    """Everything that makes a catalog unfit to price by, as sentences; empty when it is sound."""
    problems: list[str] = []
    seen: set[str] = set()
    models = {entry.model for entry in catalog.entries}
    for entry in catalog.entries:
        problems += [f"{entry.price_id}: {problem}" for problem in _entry_problems(entry)]
        if entry.provider != catalog.provider:
            problems.append(f"{entry.price_id}: stands in the file of {catalog.provider}")
        if entry.price_id in seen:
            problems.append(f"{entry.price_id}: appears twice")
        seen.add(entry.price_id)
    for alias, model in catalog.aliases.items():
        if model not in models:
            problems.append(f"alias {alias}: {model} has no entry")
    return problems


def _entry_problems(entry: CatalogEntry) -> list[str]:
    problems: list[str] = []
    if entry.price_id != price_id(*entry.key, entry.effective_from):
        problems.append("price_id does not name its own key and date")
    if not entry.source:
        problems.append("has no source")
    if not entry.unit_pico:
        problems.append("prices nothing")
    thresholds = [band.above_tokens for band in entry.bands]
    if thresholds != sorted(set(thresholds)) or any(threshold <= 0 for threshold in thresholds):
        problems.append("bands must ascend from above 0")
    for prices in (entry.unit_pico, *(band.unit_pico for band in entry.bands)):
        for kind, pico in prices.items():
            if kind not in PRICED_KINDS:
                problems.append(f"{kind} is not a token kind")
            if pico < 0 or (pico == 0 and not entry.free):
                problems.append(f"{kind} costs {pico}; only an entry marked free may cost nothing")
    return problems


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _comma_separated(lines: Sequence[str]) -> list[str]:
    return [line + "," for line in lines[:-1]] + list(lines[-1:])
