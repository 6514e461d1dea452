"""Ledger rows as Table Storage entities and back, with columns a person can read in a storage browser.

Amounts and counts are Int64 columns; scopes, tokens and cost lines are JSON text. Columns that hold their default are
left out: an entity is billed and sent by its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared.errors import TollkeeperError
from shared.ledger.keys import adjustment_key, partition_key, row_key
from shared.ledger.row import REVERSAL_SUFFIX, LedgerRow, Position
from shared.usage.events import TRUE_UP_SUFFIX

Entity = dict[str, Any]

INT64 = "Edm.Int64"
MAX_ROW_TEXT = 24_000  # a column holds 32 Ki characters; 100 such rows stay under the 4 MiB of a transaction

# Columns of `charges`: what budgets count, without what only reports need.
CHARGE_COLUMNS = ("tenant", "time", "scopes", "charge_nano_usd", "cell", "stream", "enqueued_ms", "sequence", "model")

_TEXTS = (
    "provider",
    "operation",
    "requested_model",
    "model",
    "deployment",
    "region",
    "processing_tier",
    "decision",
    "price_id",
)
_REMARKS = ("cell", "who", "why", "call_id")
_SUFFIXES = {"reversal": REVERSAL_SUFFIX, "true_up": TRUE_UP_SUFFIX}  # of rows from before `call_id` was kept
ADJUSTING = frozenset({"reversal", "true_up", "re_rate"})
_decode_scopes = msgspec.json.Decoder(dict[str, str]).decode
_decode_amounts = msgspec.json.Decoder(dict[str, int]).decode
_to_json = msgspec.json.Encoder().encode


class RowTooLarge(TollkeeperError):
    """A row's texts do not fit into one entity. Sending it again cannot help: its event belongs to the dead letters."""

    code, http_status, kind = "row_too_large", 413, "invalid_request_error"


def encode(row: LedgerRow) -> Entity:
    """The entity of a row, with its keys. Raises RowTooLarge."""
    key = key_of(row)
    entity: Entity = {
        "PartitionKey": partition_key(row.time_utc, key),
        "RowKey": key,
        "tenant": row.tenant,
        "source": row.source,
        "id": row.id,
        "kind": row.kind,
        "time": row.time_utc.astimezone(UTC).isoformat(timespec="microseconds"),
        "scopes": json_column(row.scopes),
        **position_columns(row.position),
        "content_digest": row.content_digest,
        "charge_nano_usd": (row.charge_nano_usd, INT64),
        "pricing_status": row.pricing_status,
        "booked_period": row.booked_period,
        "measured": row.measured,
    }
    _add_amounts(entity, row)
    for name in _TEXTS + _REMARKS:
        if text := getattr(row, name):
            entity[name] = text
    if row.streamed:
        entity["streamed"] = True
    if row.status != 200:
        entity["status"] = (row.status, INT64)
    if row.attempt != 1:
        entity["attempt"] = (row.attempt, INT64)
    if row.refused:
        entity["refused"] = (row.refused, INT64)
    _check_size(entity)
    return entity


def _add_amounts(entity: Entity, row: LedgerRow) -> None:
    if row.cost_nano_usd is not None:
        entity["cost_nano_usd"] = (row.cost_nano_usd, INT64)
    if row.tokens:
        entity["tokens"] = json_column(row.tokens)
    if row.lines_nano_usd:
        entity["lines_nano_usd"] = json_column(row.lines_nano_usd)
        if row.unit_pico:
            entity["unit_pico"] = json_column(row.unit_pico)
    if row.list_pico:
        entity["list_pico"] = json_column(row.list_pico)
    if row.latency_ms is not None:
        entity["latency_ms"] = (row.latency_ms, INT64)
    if row.saved_nano_usd is not None:
        entity["saved_nano_usd"] = (row.saved_nano_usd, INT64)


def key_of(row: LedgerRow) -> str:
    """The RowKey of a row."""
    if row.kind not in ADJUSTING:
        return row_key(row.source, row.id)
    call_id = row.call_id or row.id.removesuffix(_SUFFIXES[row.kind])
    return adjustment_key(row_key(row.source, call_id), row.id.removeprefix(call_id))


def decode(entity: Mapping[str, Any]) -> LedgerRow:
    """The row an entity stands for."""
    get = entity.get
    cost = get("cost_nano_usd")
    latency = get("latency_ms")
    saved = get("saved_nano_usd")
    return LedgerRow(
        tenant=entity["tenant"],
        source=entity["source"],
        id=entity["id"],
        kind=entity["kind"],
        time_utc=datetime.fromisoformat(entity["time"]),
        scopes=scopes_of(entity["scopes"]),
        position=decode_position(entity),
        content_digest=entity["content_digest"],
        charge_nano_usd=integer(entity["charge_nano_usd"]),
        cost_nano_usd=None if cost is None else integer(cost),
        tokens=amounts(get("tokens")),
        lines_nano_usd=amounts(get("lines_nano_usd")),
        unit_pico=amounts(get("unit_pico")),
        list_pico=amounts(get("list_pico")),
        pricing_status=entity["pricing_status"],
        price_id=get("price_id"),
        provider=get("provider", ""),
        operation=get("operation", ""),
        requested_model=get("requested_model", ""),
        model=get("model", ""),
        deployment=get("deployment", ""),
        region=get("region", ""),
        processing_tier=get("processing_tier", ""),
        streamed=get("streamed", False),
        status=integer(get("status", 200)),
        measured=entity["measured"],
        decision=get("decision", ""),
        latency_ms=None if latency is None else integer(latency),
        attempt=integer(get("attempt", 1)),
        call_id=get("call_id", ""),
        saved_nano_usd=None if saved is None else integer(saved),
        refused=integer(get("refused", 0)),
        booked_period=entity["booked_period"],
        cell=get("cell"),
        who=get("who"),
        why=get("why"),
    )


def position_columns(position: Position) -> Entity:
    """The columns of a hub position."""
    return {
        "stream": position.stream,
        "enqueued_ms": (position.enqueued_ms, INT64),
        "sequence": (position.sequence, INT64),
    }


def decode_position(entity: Mapping[str, Any]) -> Position:
    """The hub position of a stored row."""
    return Position(entity["stream"], integer(entity["enqueued_ms"]), integer(entity["sequence"]))


def integer(value: Any) -> int:
    """A stored whole number: the SDK returns Int64 as a (value, type) pair and Int32 as it is."""
    return int(value if isinstance(value, int) else value[0])


def amounts(text: str | None) -> dict[str, int]:
    """A JSON column of whole numbers; absent means empty."""
    return _decode_amounts(text) if text else {}


def scopes_of(text: str) -> dict[str, str]:
    """The JSON column of scopes."""
    return _decode_scopes(text)


def json_column(value: Any) -> str:
    """A value as the text of a JSON column."""
    return _to_json(value).decode()


def literal(text: str) -> str:
    """A text as it stands in a query condition, so that no quote in it can change the condition."""
    return "'" + text.replace("'", "''") + "'"


def _check_size(entity: Entity) -> None:
    size = sum(len(value) for value in entity.values() if isinstance(value, str))
    if size > MAX_ROW_TEXT:
        raise RowTooLarge(
            f"the row's texts have {size} characters, the ledger stores at most {MAX_ROW_TEXT}", param="id"
        )
