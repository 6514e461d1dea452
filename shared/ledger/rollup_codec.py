"""Rollup cells and their tenant's reach as Table Storage entities and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from shared.ledger.codec import INT64, Entity, amounts, integer, json_column, scopes_of
from shared.ledger.rollup import CellLine, RollupCell, Through
from shared.ledger.row import Position

MAX_LINES_CHARS = 8_000  # a column holds 32 Ki characters; 100 such cells stay under the 4 MiB of a transaction

_TEXTS = (
    "provider",
    "model",
    "requested_model",
    "deployment",
    "region",
    "operation",
    "decision",
    "booked_period",
    "correction",
    "remark",
    "cell",
)
_COUNTS = ("requests", "cost_nano_usd", "charge_nano_usd", "unpriced")
_RARE_COUNTS = ("saved_nano_usd", "refused")  # left out where they are zero, as they are in most cells
_decode_lines = msgspec.json.Decoder(list[CellLine]).decode
_decode_reach = msgspec.json.Decoder(dict[str, tuple[int, int, int, int]]).decode


class TenantHour(msgspec.Struct):
    """What one generation of an hour's rollup holds of one tenant."""

    hour: str
    generation: str
    cells: int  # a reader that finds another number has met a half-deleted generation, and reads rows instead
    reach: dict[str, Through]


def cell_partition(hour: str, generation: str) -> str:
    """The partition of all cells of one generation."""
    return f"{hour}-{generation}"


def tenant_range(tenant: str) -> tuple[str, str]:
    """The half-open range of row keys of a tenant's cells; `|` and `}` are in no tenant id."""
    return f"{tenant}|", f"{tenant}}}"


def encode_cell(cell: RollupCell, partition: str, ordinal: int) -> Entity:
    """The entity of a cell; `ordinal` tells the cells of a tenant apart."""
    entity: Entity = {
        "PartitionKey": partition,
        "RowKey": f"{cell.tenant}|{ordinal:08d}",
        "tenant": cell.tenant,
        "quarter": cell.quarter_utc.astimezone(UTC).isoformat(),
        "scopes": json_column(cell.scopes),
        "tokens": json_column(cell.tokens),
        "measured": cell.measured,
        "pricing_status": cell.pricing_status,
    }
    for name in _TEXTS:
        if text := getattr(cell, name):
            entity[name] = text
    for name in _COUNTS:
        entity[name] = (getattr(cell, name), INT64)
    for name in _RARE_COUNTS:
        if count := getattr(cell, name):
            entity[name] = (count, INT64)
    if cell.lines:
        entity["lines"] = json_column(cell.lines)
    return entity


def storable(cells: Iterable[RollupCell], max_lines_chars: int = MAX_LINES_CHARS) -> Iterator[RollupCell]:
    """The cells as they fit into entities: one with very many prices becomes several, which sum to the same.

    The first one keeps what is not of its lines: the calls, the charge and what was saved, and tokens without a price.
    """
    for cell in cells:
        groups = _line_groups(cell.lines, max_lines_chars)
        if len(groups) < 2:
            yield cell
            continue
        first = replace(cell, lines=groups[0], tokens=dict(cell.tokens))
        further = [_of_lines(cell, lines) for lines in groups[1:]]
        for part in further:
            first.cost_nano_usd -= part.cost_nano_usd
            for kind, tokens in part.tokens.items():
                first.tokens[kind] -= tokens
        yield first
        yield from further


def _line_groups(lines: list[CellLine], max_chars: int) -> list[list[CellLine]]:
    if len(json_column(lines)) <= max_chars:
        return [lines]
    groups: list[list[CellLine]] = []
    room = 0
    for line in lines:
        chars = len(json_column(line)) + 1
        if chars > room:
            groups.append([])
            room = max_chars - 1  # the brackets around them, less the comma that the last one does without
        groups[-1].append(line)
        room -= chars
    return groups


def _of_lines(cell: RollupCell, lines: list[CellLine]) -> RollupCell:
    """A cell of the same kind that holds these lines and nothing else."""
    tokens: Counter[str] = Counter()
    for line in lines:
        tokens[line.kind] += line.tokens
    cost_nano_usd = sum(line.cost_nano_usd for line in lines)
    nothing = {"requests": 0, "charge_nano_usd": 0, "unpriced": 0, "saved_nano_usd": 0, "refused": 0}
    return replace(cell, lines=lines, tokens=dict(tokens), cost_nano_usd=cost_nano_usd, **nothing)


def decode_cell(entity: Mapping[str, Any]) -> RollupCell:
    """The cell an entity stands for."""
    cell = RollupCell(
        tenant=entity["tenant"],
        quarter_utc=datetime.fromisoformat(entity["quarter"]),
        scopes=scopes_of(entity["scopes"]),
        tokens=amounts(entity["tokens"]),
        measured=entity["measured"],
        pricing_status=entity["pricing_status"],
    )
    for name in _TEXTS:
        if text := entity.get(name):
            setattr(cell, name, text)
    for name in _COUNTS:
        setattr(cell, name, integer(entity[name]))
    for name in _RARE_COUNTS:
        if (count := entity.get(name)) is not None:
            setattr(cell, name, integer(count))
    if text := entity.get("lines"):  # a cell rolled up before lines were kept has none
        cell.lines = _decode_lines(text)
    return cell


def encode_tenant_hour(tenant: str, hour: TenantHour) -> Entity:
    """The entity of a tenant's reach; all hours of a tenant share a partition, so one range query reads them."""
    reach = {stream: (*stop.highest[1:], stop.enqueued_ms, stop.sequence) for stream, stop in hour.reach.items()}
    return {
        "PartitionKey": tenant_partition(tenant),
        "RowKey": f"{hour.hour}-{hour.generation}",
        "cells": (hour.cells, INT64),
        "reach": json_column(reach),
    }


def decode_tenant_hour(entity: Mapping[str, Any]) -> TenantHour:
    """The inverse of `encode_tenant_hour`."""
    hour, _, generation = entity["RowKey"].partition("-")
    reach = {
        stream: Through(Position(stream, enqueued_ms, sequence), largest_ms, largest_sequence)
        for stream, (enqueued_ms, sequence, largest_ms, largest_sequence) in _decode_reach(entity["reach"]).items()
    }
    return TenantHour(hour, generation, integer(entity["cells"]), reach)


def tenant_partition(tenant: str) -> str:
    """The partition of the hour index that holds a tenant's reach per hour."""
    return f"tenant-{tenant}"
