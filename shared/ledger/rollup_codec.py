"""Rollup cells and their tenant's reach as Table Storage entities and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared.ledger.codec import INT64, Entity, amounts, integer, json_column, scopes_of
from shared.ledger.rollup import RollupCell, Through
from shared.ledger.row import Position

_TEXTS = ("provider", "model", "requested_model", "deployment", "operation", "decision", "booked_period", "cell")
_COUNTS = ("requests", "cost_nano_usd", "charge_nano_usd", "unpriced")
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
    return entity


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
