"""A call and all that corrected it: a chain in which every row but the last was taken back by a reversal of its own.

    usage                                the call as it was billed
    usage-reversal     re_rate           rated again: both rows in one transaction
    re_rate-reversal   re_rate           and once more

A true-up is a link like any other, wherever it comes. Each reversal's key follows from the row that it takes back, so
of two corrections that saw the same last row only one is stored; the other must look again. Hence exactly one row of a
call bills it at any instant, whatever arrives in which order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from shared.ledger.keys import adjustment_key
from shared.ledger.row import REVERSAL_SUFFIX, LedgerRow
from shared.usage.rejected import EventRejected

CALL_KINDS = ("usage", "accrual")


class Pair(NamedTuple):
    """What takes a row back, and what stands in its place: stored together or not at all."""

    reversal: LedgerRow
    replacement: LedgerRow


class Family(NamedTuple):
    """The stored rows of one call, by row key."""

    call_key: str
    rows: Mapping[str, LedgerRow]

    @property
    def call(self) -> LedgerRow | None:
        """The call as it was first billed; None when it is not in the ledger."""
        row = self.rows.get(self.call_key)
        return row if row is not None and row.kind in CALL_KINDS else None

    @property
    def head(self) -> LedgerRow:
        """The row that bills the call now. Raises EventRejected when the rows are no chain: somebody edited them."""
        standing = [
            row for key, row in self.rows.items() if row.kind != "reversal" and reversal_key(key) not in self.rows
        ]
        if len(standing) != 1:
            message = f"the ledger has {len(standing)} rows that bill the call of row {self.call_key}, not one"
            raise EventRejected(message, code="ledger_inconsistent", param="id")
        return standing[0]

    def stored(self, suffix: str) -> Pair | None:
        """The pair of an earlier delivery: the row with this suffix behind the call's id, and what came with it."""
        replacement = self.rows.get(adjustment_key(self.call_key, suffix))
        if replacement is None:
            return None
        for row in self.rows.values():
            if row.kind == "reversal" and row.content_digest == replacement.content_digest:
                return Pair(row, replacement)
        raise EventRejected(
            f"the ledger has row {self.call_key} {suffix} without its reversal", code="ledger_inconsistent", param="id"
        )


def reversal_key(key: str) -> str:
    """The row key of the reversal of the row with this key."""
    return adjustment_key(key, REVERSAL_SUFFIX)
