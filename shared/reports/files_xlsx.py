"""The statement as a workbook: Summary, By team, By model, Daily, Lines, Prices used. Rows go to disk as they come.

Amounts are numbers, which a spreadsheet holds to fifteen digits; the summary repeats the amount due as exact text.
Names are texts, never formulas or links, also after somebody edits the cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, BinaryIO

from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.reports.charge import Charge
from shared.reports.exact import scaled
from shared.reports.files_journal import journal_rows
from shared.reports.names import cell_text, visible
from shared.reports.statement import Statement
from shared.reports.team_sums import team_sums

Cell = str | int | Decimal | None
MAX_LINES = 1_048_000  # a sheet ends at 1,048,576
MAX_TEXT = 32_000  # a cell ends at 32,767
_JOURNAL = (
    *("line_type", "team", "cost_centre", "app", "provider", "model", "deployment", "token_kind", "requests"),
    *("tokens", "list_cost", "contracted_cost", "effective_cost", "allocated_pool", "allocated_idle"),
    *("allocated_shared", "adjustment", "tax", "total", "currency", "price_version", "pricing_status", "description"),
)
_TEAMS = ("Team", "Cost centre", "Requests", "Own calls", "Corrections", "Allocated", "Due")
_MODELS = ("Model", "Provider", "Requests", "Tokens", "Ledger cost USD", "Amount")
_PRICES = (
    *("Team", "Provider", "Model", "Token kind", "Tier", "Price id"),
    *("USD per million", "List USD per million", "Tokens"),
)
_JOURNAL_NUMBERS = frozenset(_JOURNAL[8:19])


def write_xlsx(statement: Statement, charges: Iterator[Charge], out: BinaryIO) -> None:
    """The workbook; equal statements give equal bytes."""
    from xlsxwriter import Workbook

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    with Workbook(out, options) as book:
        book.set_properties({"title": statement.number, "created": statement.as_of_utc.replace(tzinfo=None)})
        sheets = _Sheets(book)
        sheets.add("Summary", ("", ""), _summary(statement), widths=(34, 60))
        sheets.add("By team", _TEAMS, _teams(statement))
        sheets.add("By model", _MODELS, _models(statement))
        sheets.add("Daily", ("Day", "Team", "Ledger cost USD"), _days(statement))
        sheets.add("Lines", _JOURNAL, _lines(statement))
        sheets.add("Prices used", _PRICES, _prices(statement))


class _Sheets:
    """Writes one sheet after the other."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._head = book.add_format({"bold": True, "bottom": 1})
        self._amount = book.add_format({"num_format": "#,##0.00#######"})
        self._count = book.add_format({"num_format": "#,##0"})
        self._text = book.add_format({"num_format": "@"})
        self._defused = book.add_format({"num_format": "@", "quote_prefix": True})

    def add(
        self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], widths: Sequence[int] = ()
    ) -> None:
        """A sheet with a frozen header."""
        sheet = self._book.add_worksheet(name)
        for column, title in enumerate(columns):
            sheet.set_column(column, column, widths[column] if widths else max(12, len(title) + 2))
            sheet.write_string(0, column, title, self._head)
        sheet.freeze_panes(1, 0)
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        for number, row in enumerate(rows, start=1):
            for column, cell in enumerate(row):
                if isinstance(cell, str):
                    shown = visible(cell)[:MAX_TEXT]
                    risky = cell_text(shown) != shown
                    sheet.write_string(number, column, shown, self._defused if risky else self._text)
                elif cell is not None:
                    sheet.write_number(number, column, cell, self._count if isinstance(cell, int) else self._amount)


def _nano(amount_nano: int) -> Decimal:
    return scaled(amount_nano, 9)


def _summary(statement: Statement) -> Iterator[tuple[Cell, Cell]]:
    bridge, previous = statement.bridge, statement.previous_total_nano
    yield "Statement", statement.number
    yield "Tenant", statement.tenant
    yield "Teams", ", ".join(statement.teams) if statement.teams is not None else "all"
    yield "Period (UTC)", statement.period
    yield "Status", statement.status
    yield "As of", rfc3339(statement.as_of_utc, "seconds")
    yield "Issued by", statement.issuer
    yield "Currency", statement.currency
    if statement.rate is not None:
        yield f"USD per {statement.currency}", _nano(statement.rate.usd_per_unit_nano)
        yield "Rate from", f"{statement.rate.effective_from.date().isoformat()}, {statement.rate.source}"
    yield "Amount due", _nano(bridge.total_nano)
    yield "Amount due, exact", decimal_from_nano(bridge.total_nano)
    yield "Month before", None if previous is None else _nano(previous)
    yield "Ledger, USD", _nano(bridge.ledger_nano_usd)
    yield "Usage", _nano(bridge.usage_nano)
    yield "Corrections of closed months", _nano(bridge.corrections_nano)
    yield "Covered by pools", _nano(bridge.covered_nano)
    yield "Pools", _nano(bridge.pools_nano)
    yield "Idle capacity", _nano(bridge.idle_nano)
    yield "Shared cost", _nano(bridge.shared_nano)
    yield "Markup", _nano(bridge.markup_nano)
    yield "Tax", _nano(bridge.tax_nano)
    yield "Requests", statement.totals.requests
    yield "Requests without a price yet", statement.totals.unpriced_requests
    yield "Saved by downgrades and refusals, USD", _nano(sum(saving.saved_nano_usd for saving in statement.savings))
    for note in statement.notes:
        yield "Note", note


def _teams(statement: Statement) -> Iterator[Sequence[Cell]]:
    for team in team_sums(statement):
        yield (
            team.team,
            team.cost_centre,
            team.usage.requests,
            *map(_nano, (team.owed_nano, team.corrections_nano, team.allocated_nano, team.due_nano)),
        )


def _models(statement: Statement) -> Iterator[Sequence[Cell]]:
    sums: dict[tuple[str, str], list[int]] = {}
    for line in statement.lines:
        found = sums.setdefault((line.model, line.provider), [0, 0, 0, 0])
        found[0] += line.usage.requests
        found[1] += sum(kind.tokens for kind in line.kinds)
        found[2] += line.usage.cost_nano_usd
        found[3] += line.owed_nano
    for (model, provider), (requests, tokens, ledger, owed) in sorted(sums.items()):
        yield model, provider, requests, tokens, _nano(ledger), _nano(owed)


def _days(statement: Statement) -> Iterator[Sequence[Cell]]:
    for day in statement.days:
        yield day.day.isoformat(), day.team, _nano(day.ledger_nano_usd)


def _lines(statement: Statement) -> Iterator[Sequence[Cell]]:
    """The journal; lines that a sheet has no room for become one, so that the column still adds up."""
    rest, left = Decimal(0), 0
    for number, row in enumerate(journal_rows(statement, visible)):
        if number < MAX_LINES:
            yield [_journal_cell(column, row.get(column, "")) for column in _JOURNAL]
        else:
            rest, left = rest + Decimal(row.get("total") or 0), left + 1
    if left:
        others: dict[str, Cell] = {
            "line_type": "others",
            "total": rest,
            "description": f"{left} more lines: they are in the journal",
        }
        yield [others.get(column) for column in _JOURNAL]


def _journal_cell(column: str, text: str) -> Cell:
    if column not in _JOURNAL_NUMBERS:
        return text or None
    if not text:
        return None
    return int(text) if column in ("requests", "tokens") else Decimal(text)


def _prices(statement: Statement) -> Iterator[Sequence[Cell]]:
    for price in statement.prices:
        names = (price.team, price.provider, price.model, price.kind, price.tier, price.price_id)
        yield *names, scaled(price.unit_pico, 6), scaled(price.list_pico, 6), price.tokens
