"""The journal for finance as CSV: one row per team, app, deployment and token kind, and one per amount put on top.

Every amount is exact to the nano-unit of the statement's currency, and `total` adds up to the amount due. UTF-8 with a
byte order mark, which spreadsheets need to read names right; LF.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from typing import BinaryIO

from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.reports.charge import Charge
from shared.reports.names import cell_text
from shared.reports.statement import AllocatedLine, CorrectionLine, Statement, Usage, UsageLine

_HEAD = ("period", "statement_id", "status", "as_of")
_PLACE = ("line_type", "cost_centre", "team", "app", "provider", "model", "deployment", "token_kind")
_COUNTS = ("requests", "unpriced_requests", "tokens")
_AMOUNTS = (
    *("list_cost", "contracted_cost", "effective_cost"),
    *("allocated_pool", "allocated_idle", "allocated_shared", "adjustment", "tax", "total"),
)
# What the ledger holds, and how well it is known; always in USD.
_LEDGER = ("ledger_cost_usd", "measured_cost_usd", "estimated_cost_usd", "missing_cost_usd")
_TAIL = ("currency", "fx_rate_usd_per_unit", *_LEDGER, "price_version", "pricing_status", "description")
COLUMNS = (*_HEAD, *_PLACE, *_COUNTS, *_AMOUNTS, *_TAIL)
_ALLOCATED = {
    "pool": "allocated_pool",
    "idle": "allocated_idle",
    "shared": "allocated_shared",
    "markup": "adjustment",
    "tax": "tax",
}
Values = dict[str, str]
Spell = Callable[[str], str]


def write_journal(statement: Statement, charges: Iterator[Charge], out: BinaryIO) -> None:
    """The rows of every team in order. A cost that is not known is empty: unknown, which is not zero."""
    text = TextIOWrapper(out, encoding="utf-8-sig", newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(journal_rows(statement, cell_text))
    text.flush()
    text.detach()  # the file stays open: it is the caller's


def journal_rows(statement: Statement, spell: Spell) -> Iterator[Values]:
    """The rows, by column; columns that do not apply are left out. `spell` makes names fit for where they go."""
    rate = "" if statement.rate is None else decimal_from_nano(statement.rate.usd_per_unit_nano)
    head = {
        "period": statement.period,
        "statement_id": spell(statement.number),
        "status": statement.status,
        "as_of": rfc3339(statement.as_of_utc, "seconds"),
        "currency": statement.currency,
        "fx_rate_usd_per_unit": rate,
    }
    prices = _price_versions(statement)
    unpriced = {(missing.team, missing.provider, missing.model) for missing in statement.unpriced}
    for line in statement.lines:
        for row in _usage_rows(line, prices, unpriced, spell):
            yield head | row
    for correction in statement.corrections:
        yield head | _correction_row(correction, spell)
    for allocated in statement.allocated:
        yield head | _allocated_row(allocated, spell)


def _usage_rows(
    line: UsageLine,
    prices: dict[tuple[str, str, str, str], list[str]],
    unpriced: set[tuple[str, str, str]],
    spell: Spell,
) -> Iterator[Values]:
    place = _place("usage", line, spell) | {"app": spell(line.app), "deployment": spell(line.deployment)}
    whole = _whole(line.usage)  # on the first row only, so that the columns add up
    for kind in line.kinds:
        versions = prices.get((line.team, line.provider, line.model, kind.kind), [])
        open_end = (line.team, line.provider, line.model) in unpriced
        row = place | whole | {"token_kind": kind.kind, "tokens": str(kind.tokens)}
        if versions or not open_end or kind.owed_nano or kind.ledger_nano_usd:
            row |= {
                "list_cost": decimal_from_nano(kind.list_nano),
                "contracted_cost": decimal_from_nano(kind.owed_nano + kind.covered_nano),
                "effective_cost": decimal_from_nano(kind.owed_nano),
                "total": decimal_from_nano(kind.owed_nano),
                "ledger_cost_usd": decimal_from_nano(kind.ledger_nano_usd),
                "price_version": spell(" ".join(versions)),
                "pricing_status": "partly_priced" if open_end else "priced",
            }
        else:
            row["pricing_status"] = "unpriced"
        yield row
        whole = _NOTHING_MORE
    if not line.kinds:
        yield place | whole | {"tokens": "0", "pricing_status": "unpriced" if line.usage.unpriced_requests else "none"}


_NOTHING_MORE = {"requests": "0", "unpriced_requests": "0"}


def _whole(usage: Usage) -> Values:
    """What is known of a line as a whole, not of its kinds."""
    measured, estimated, missing = map(decimal_from_nano, usage.coverage.costs_nano_usd)
    return {
        "requests": str(usage.requests),
        "unpriced_requests": str(usage.unpriced_requests),
        "measured_cost_usd": measured,
        "estimated_cost_usd": estimated,
        "missing_cost_usd": missing,
    }


def _correction_row(line: CorrectionLine, spell: Spell) -> Values:
    amount = decimal_from_nano(line.owed_nano)
    return _place("correction", line, spell) | {
        **_whole(line.usage),
        "ledger_cost_usd": decimal_from_nano(line.usage.cost_nano_usd),
        "tokens": str(sum(count for kind, count in line.usage.tokens.items() if kind != "reasoning")),
        "adjustment": amount,
        "total": amount,
        "description": spell(f"{line.correction} of {line.month}" + (f": {line.remark}" if line.remark else "")),
    }


def _allocated_row(line: AllocatedLine, spell: Spell) -> Values:
    amount = decimal_from_nano(line.amount_nano)
    return {
        "line_type": line.kind,
        "cost_centre": spell(line.cost_centre),
        "team": spell(line.team),
        _ALLOCATED[line.kind]: amount,
        "total": amount,
        "description": spell(f"{line.label}: {line.basis}" if line.basis else line.label),
    }


def _place(line_type: str, line: UsageLine | CorrectionLine, spell: Spell) -> Values:
    return {
        "line_type": line_type,
        "cost_centre": spell(line.cost_centre),
        "team": spell(line.team),
        "provider": spell(line.provider),
        "model": spell(line.model),
    }


def _price_versions(statement: Statement) -> dict[tuple[str, str, str, str], list[str]]:
    versions: dict[tuple[str, str, str, str], list[str]] = {}
    for price in statement.prices:
        found = versions.setdefault((price.team, price.provider, price.model, price.kind), [])
        if price.price_id not in found:
            found.append(price.price_id)
    return versions
