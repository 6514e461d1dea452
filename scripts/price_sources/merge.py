"""One list of quotes from the two sources, and where they differ. docs/pricing.md states the rules."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal

from scripts.price_sources.quotes import Quote

Line = tuple[str, str, date]  # deployment type, processing tier, effective from
Lines = dict[Line, Quote]

TOLERANCE = Decimal("0.01")
ZONES = ("data-zone-us", "data-zone-eu", "data-zone-apac")
VERSION = re.compile(r"(?P<model>.+?)-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})")

# OpenAI models that genai-prices alone lists and that are billed by something else than text tokens, or per customer.
NOT_TEXT = re.compile(
    r"tts|transcribe|realtime|image|moderation|live|whisper|davinci|curie|babbage|^ada$|ft[:-]|search"
)

# Versions that Anthropic answers with and that neither source lists by their full name.
ANTHROPIC_VERSIONS = {
    "claude-opus-4-1-20250805": "claude-opus-4-1",
    "claude-opus-4-20250514": "claude-opus-4-0",
    "claude-sonnet-4-20250514": "claude-sonnet-4-0",
    "claude-3-7-sonnet-20250219": "claude-3-7-sonnet-latest",
    "claude-3-5-haiku-20241022": "claude-3-5-haiku-latest",
    "claude-3-haiku-20240307": "claude-3-haiku",
}

# Azure spells the 3.5 family without the dot in deployments and with it in responses.
AZURE_SPELLINGS = {
    "gpt-3.5-turbo-16k": "gpt-35-turbo-16k",
    "gpt-3.5-turbo-0125": "gpt-3.5-turbo",
    "gpt-35-turbo-0125": "gpt-35-turbo",
}


def merge_zones(quotes: Iterable[Quote], listed: set[tuple[str, str, str, str]]) -> list[Quote]:
    """Join the data zones of a price into one `data-zone` line where all of at least two zones charge the same.

    Zones that the catalog already lists apart stay apart.
    """
    merged: list[Quote] = []
    zoned: dict[tuple[str, str, str], list[Quote]] = defaultdict(list)
    for quote in quotes:
        if quote.deployment_type in ZONES:
            zoned[quote.provider, quote.model, quote.processing_tier].append(quote)
        else:
            merged.append(quote)
    for group in zoned.values():
        same = all(quote.prices == group[0].prices and quote.key not in listed for quote in group)
        merged += [replace(group[0], deployment_type="data-zone")] if same and len(group) > 1 else group
    return merged


def unique(quotes: Iterable[Quote], problems: list[str]) -> list[Quote]:
    """One quote per price line: of twins the one that prices most kinds; a twin that charges otherwise is reported."""
    kept: dict[tuple[str, str, str, str], Quote] = {}
    for quote in quotes:
        first = kept.setdefault(quote.key, quote)
        if not _same_where_both_price(first, quote):
            problems.append(f"kept {first.source}: {quote.source} is the same price line and differs")
        elif len(quote.unit_pico) > len(first.unit_pico):
            kept[quote.key] = quote
    return list(kept.values())


def _same_where_both_price(one: Quote, other: Quote) -> bool:
    return one.bands == other.bands and all(
        other.unit_pico.get(kind, price) == price for kind, price in one.unit_pico.items()
    )


def guard_long_context(quotes: Iterable[Quote], report: list[str]) -> list[Quote]:
    """Where a model is dearer past a threshold on one line and another of its lines says nothing, price nothing there.

    The source may have left the long-context price out; the base price would then be too low, silently.
    """
    listed = list(quotes)
    thresholds: dict[tuple[str, str], set[int]] = defaultdict(set)
    for quote in listed:
        thresholds[quote.provider, quote.model] |= set(quote.bands)
    guarded: list[Quote] = []
    for quote in listed:
        known = thresholds[quote.provider, quote.model]
        if known and not quote.bands:
            report.append(
                f"gap in {'/'.join(quote.key)}: unpriced above {min(known)} tokens, where other lines are dearer"
            )
            quote = replace(quote, bands={min(known): {}})
        guarded.append(quote)
    return guarded


def with_history(primary: Iterable[Quote], dated: Mapping[tuple[str, str], list[Quote]]) -> list[Quote]:
    """Give the primary quotes the dated past that the other source knows, by (provider, model).

    Only the standard tier has a past there. The other tiers of a model whose price changed start at the change: what
    they cost before is not known, and unknown is not the same as unchanged.
    """
    result: list[Quote] = []
    for quote in primary:
        history = dated.get((quote.provider, quote.model), [])
        if len(history) > 1 and quote.deployment_type == "global":
            if quote.processing_tier == "standard":
                result += [replace(past, model=quote.model) for past in history[:-1]]
            quote = quote.starting(history[-1].effective_from)
        result.append(quote)
    return result


def disagreements(quotes: Iterable[Quote], others: Mapping[tuple[str, str], list[Quote]]) -> list[str]:
    """Standard prices on which the two sources differ by more than one per cent, or that only one of them knows."""
    lines: list[str] = []
    for quote in quotes:
        history = others.get((quote.provider, quote.model))
        if not history or quote.key[2:] != ("global", "standard"):
            continue
        other = history[-1]
        for kind in sorted({*quote.unit_pico, *other.unit_pico}):
            ours, theirs = quote.unit_pico.get(kind), other.unit_pico.get(kind)
            if ours is None or theirs is None or abs(ours - theirs) > TOLERANCE * ours:
                lines.append(f"{quote.provider}/{quote.model} {kind}: {quote.source} {ours}, {other.source} {theirs}")
        if quote.bands != other.bands:
            lines.append(f"{quote.provider}/{quote.model} bands: kept {quote.bands}, {other.source} has {other.bands}")
    return lines


def only_here(quotes: Iterable[Quote], known: set[tuple[str, str]]) -> list[Quote]:
    """The quotes of the second source for text models that the first does not list."""
    return [
        quote
        for quote in quotes
        if (quote.provider, quote.model) not in known
        and quote.provider != "azure-openai"  # that source has Azure's Global prices only, and none of their dates
        and not (quote.provider == "openai" and NOT_TEXT.search(quote.model))
        and not (quote.provider == "openrouter" and ("/" not in quote.model or quote.model.startswith("~")))
    ]


def fold_versions(
    quotes: list[Quote], other_names: Mapping[tuple[str, str], str], listed: set[tuple[str, str]]
) -> tuple[list[Quote], dict[str, dict[str, str]]]:
    """Make dated versions aliases of their model: `(remaining quotes, provider -> alias -> model)`.

    A version is an alias when it costs what its model costs wherever both are priced; its own lines go when the model's
    say all they say, unless the catalog already has them (`listed`: provider, model). A version that differs anywhere
    keeps its lines and gets no alias.
    """
    lines: dict[tuple[str, str], Lines] = defaultdict(dict)
    for quote in quotes:
        lines[quote.provider, quote.model][quote.deployment_type, quote.processing_tier, quote.effective_from] = quote
    aliases: dict[str, dict[str, str]] = defaultdict(dict)
    folded: set[tuple[str, str]] = set()
    for provider, version in lines:
        match = VERSION.fullmatch(version)
        model = match["model"] if match else ""
        if (provider, model) not in lines:
            continue
        pairs = [(quote, _line_of(lines[provider, model], line)) for line, quote in lines[provider, version].items()]
        shared = [(quote, twin) for quote, twin in pairs if twin is not None]
        if shared and all(_same_where_both_price(quote, twin) for quote, twin in shared):
            aliases[provider][version] = model
            repeats = len(shared) == len(pairs) and all(
                set(quote.unit_pico) <= set(twin.unit_pico) for quote, twin in shared
            )
            if repeats and (provider, version) not in listed:
                folded.add((provider, version))
    _add_other_names(aliases, set(lines) - folded, other_names)
    remaining = [quote for quote in quotes if (quote.provider, quote.model) not in folded]
    return remaining, dict(aliases)


def _line_of(model_lines: Lines, line: Line) -> Quote | None:
    """The model's own quote for a line of its version; a zone falls back to the line that joins the zones."""
    deployment_type, tier, start = line
    joined = model_lines.get(("data-zone", tier, start)) if deployment_type in ZONES else None
    return model_lines.get(line, joined)


def _add_other_names(
    aliases: dict[str, dict[str, str]], priced: set[tuple[str, str]], other_names: Mapping[tuple[str, str], str]
) -> None:
    """Add the spellings the sources list, the tables above, and on Azure the versions OpenAI prices as their model."""
    spelled = {**{("anthropic", name): model for name, model in ANTHROPIC_VERSIONS.items()}, **other_names}
    spelled |= {("azure-openai", name): model for name, model in {**aliases["openai"], **AZURE_SPELLINGS}.items()}
    for (provider, name), model in spelled.items():
        target = aliases[provider].get(model, model)
        if (provider, name) not in priced and (provider, target) in priced and name != target:
            aliases[provider].setdefault(name, target)


def by_model(quotes: Iterable[Quote]) -> dict[tuple[str, str], list[Quote]]:
    """Quotes by (provider, model), each list in order of date."""
    grouped: dict[tuple[str, str], list[Quote]] = defaultdict(list)
    for quote in quotes:
        grouped[quote.provider, quote.model].append(quote)
    return {key: sorted(group, key=lambda quote: quote.effective_from) for key, group in grouped.items()}
