"""Sums of usage over any stretch of time by any cross product of dimensions: what GET /usage/summary answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared.errors import InvalidRequest
from shared.ledger.coverage import DEFAULT_WAIT, Coverage, coverage_of
from shared.ledger.reading import HourReader
from shared.ledger.rollup import RollupCell
from shared.money import decimal_from_nano
from shared.scopes import SCOPE_TYPE

MAX_DIMENSIONS = 8
MAX_GROUPS = 100_000

Dimension = Callable[[RollupCell], str]

_DIMENSIONS: dict[str, Dimension] = {
    "tenant": lambda cell: cell.tenant,
    "model": lambda cell: cell.model,
    "requested_model": lambda cell: cell.requested_model,
    "provider": lambda cell: cell.provider,
    "deployment": lambda cell: cell.deployment,
    "region": lambda cell: cell.region,
    "operation": lambda cell: cell.operation,
    "decision": lambda cell: cell.decision,
    "pricing_status": lambda cell: cell.pricing_status,
    "booked_period": lambda cell: cell.booked_period,
    "hour": lambda cell: cell.quarter_utc.strftime("%Y-%m-%dT%H:00:00Z"),
    "day": lambda cell: cell.quarter_utc.strftime("%Y-%m-%d"),
    "month": lambda cell: cell.quarter_utc.strftime("%Y-%m"),
}


class Sums(msgspec.Struct):
    """Exact sums of one group; amounts in nano-USD."""

    requests: int = 0
    tokens: dict[str, int] = msgspec.field(default_factory=dict)
    cost_nano_usd: int = 0
    coverage: Coverage = Coverage()
    unpriced: int = 0
    saved_nano_usd: int = 0
    refused: int = 0

    def add(self, cell: RollupCell, coverage: Coverage) -> None:
        """Add a cell's sums."""
        self.requests += cell.requests
        self.cost_nano_usd += cell.cost_nano_usd
        self.unpriced += cell.unpriced
        self.saved_nano_usd += cell.saved_nano_usd
        self.refused += cell.refused
        self.coverage = self.coverage.plus(coverage)
        for kind, tokens in cell.tokens.items():
            self.tokens[kind] = self.tokens.get(kind, 0) + tokens

    def body(self) -> dict[str, Any]:
        """As the API shows it: money as decimal strings, shares as decimal strings with four decimals.

        A group in which no call has a price has no cost, null: zero would pass for free. Amounts without calls that it
        holds are known, and shown.
        """
        unknown = self.cost_nano_usd == 0 and self.requests > 0 and self.unpriced == self.requests
        return {
            "requests": self.requests,
            "tokens": dict(sorted(self.tokens.items())),
            "cost": None if unknown else decimal_from_nano(self.cost_nano_usd),
            **self.coverage.body(),
            "unpriced": self.unpriced,
            "saved": decimal_from_nano(self.saved_nano_usd),
            "refused": self.refused,
        }


class Summaries:
    """Answers summary queries from rollups, and from rows where an hour has no complete rollup."""

    def __init__(self, reader: HourReader, stream_wait: timedelta = DEFAULT_WAIT):
        """`stream_wait` is how long an estimate may still be replaced by a measurement."""
        self._reader = reader
        self._stream_wait = stream_wait

    async def summarize(
        self,
        tenant: str | None,
        start_utc: datetime,
        end_utc: datetime,
        group_by: Sequence[str],
        filters: Mapping[str, Sequence[str]] | None = None,
        as_of_utc: datetime | None = None,
    ) -> list[dict[str, Any]]:
        """One row per group of [start, end), sorted by the groups; `tenant` None: of all tenants.

        A row holds each dimension's value (empty when the calls carry none), `requests`, `tokens` by kind, `cost`,
        `measured_cost`, `estimated_cost`, `missing_cost`, the same three as `_share`, `unpriced` (rows whose cost
        is not known and therefore not in it), `saved` (by downgrades and refusals, as far as it is known) and
        `refused` (calls, which are not among the requests). `filters` keeps the values it names. What is missing is
        judged at `as_of_utc` (default: now). Raises InvalidRequest.
        """
        as_of_utc = as_of_utc or datetime.now(UTC)
        groups = dimensions(group_by)
        kept = [(dimension(name, "filter"), frozenset(values)) for name, values in (filters or {}).items()]
        sums: dict[tuple[str, ...], Sums] = {}
        async for cell in self._reader.cells(tenant, start_utc, end_utc):
            if cell.cell is not None:  # a grant moves one counter: shown here it would be a group without calls
                continue
            if not all(of(cell) in values for of, values in kept):
                continue
            group = tuple(of(cell) for of in groups.values())
            if group not in sums:
                if len(sums) == MAX_GROUPS:
                    message = f"group_by: more than {MAX_GROUPS} groups; group by less, filter, or shorten the span"
                    raise InvalidRequest(message, param="group_by")
                sums[group] = Sums()
            sums[group].add(cell, coverage_of(cell, as_of_utc, self._stream_wait))
        return [dict(zip(groups, group, strict=True)) | sums[group].body() for group in sorted(sums)]


def dimensions(names: Sequence[str], param: str = "group_by") -> dict[str, Dimension]:
    """The named dimensions. Raises InvalidRequest for none, too many, repeated or unknown ones."""
    if not 1 <= len(names) <= MAX_DIMENSIONS:
        raise InvalidRequest(f"{param}: expected 1 to {MAX_DIMENSIONS} dimensions, got {len(names)}", param=param)
    if len(set(names)) < len(names):
        raise InvalidRequest(f"{param}: a dimension is named twice", param=param)
    return {name: dimension(name, param) for name in names}


def dimension(name: str, param: str) -> Dimension:
    """How to read one dimension off a cell: a fixed one, or the key of that scope type. Raises InvalidRequest."""
    if name in _DIMENSIONS:
        return _DIMENSIONS[name]
    if not SCOPE_TYPE.fullmatch(name):
        fixed = ", ".join(_DIMENSIONS)
        raise InvalidRequest(f"{param}: {name[:40]!r} is neither one of {fixed} nor a scope type", param=param)
    return lambda cell: cell.scopes.get(name, "")
