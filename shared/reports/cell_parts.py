"""A rollup cell in parts: tokens of one kind at one price each."""

from __future__ import annotations

from shared.ledger.rollup import CellLine, RollupCell
from shared.usage.tokens import PRICED_KINDS

AMOUNT = ""  # the token kind of an amount that no tokens made
NO_PRICE = -1
_PRICED = frozenset(PRICED_KINDS)


def cell_parts(cell: RollupCell) -> list[CellLine]:
    """The cell as tokens of one kind at one price each; their costs sum to the cell's.

    Tokens without a price, and amounts without tokens, are parts too: nothing of the ledger may be lost on the way.
    """
    parts = [_priced(line) for line in cell.lines if line.tokens or line.cost_nano_usd]
    priced: dict[str, int] = {}
    rest = cell.cost_nano_usd
    for line in cell.lines:
        priced[line.kind] = priced.get(line.kind, 0) + line.tokens
        rest -= line.cost_nano_usd
    parts += [
        CellLine(kind, "", NO_PRICE, NO_PRICE, "", tokens - priced.get(kind, 0), 0)
        for kind, tokens in sorted(cell.tokens.items())
        if tokens != priced.get(kind, 0) and kind in _PRICED
    ]
    if rest:
        parts.append(CellLine(AMOUNT, "", NO_PRICE, NO_PRICE, "", 0, rest))
    return parts


def _priced(line: CellLine) -> CellLine:
    """The line; without its price where a cost says that the price was not kept."""
    if line.unit_pico or not line.cost_nano_usd:
        return line
    return CellLine(line.kind, line.price_id, NO_PRICE, NO_PRICE, line.tier, line.tokens, line.cost_nano_usd)
