"""Ledger entities as Parquet and back, without loss: a column per known property, and one for whatever else there is.

Null means that the entity has no such property. Files of equal rows are equal byte for byte, under one version of
pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.ledger.codec import INT64, Entity, integer
from shared.record.manifest import Sums

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 5_000

TEXTS = (
    "tenant", "source", "id", "kind", "time", "scopes", "stream", "content_digest", "pricing_status", "booked_period",
    "tokens", "lines_nano_usd", "unit_pico", "list_pico", "provider", "operation", "requested_model", "model",
    "deployment", "region", "processing_tier", "decision", "price_id", "cell", "who", "why", "call_id",
)  # fmt: skip
INTEGERS = (
    "enqueued_ms", "sequence", "charge_nano_usd", "cost_nano_usd", "latency_ms", "saved_nano_usd", "status", "attempt",
    "refused",
)  # fmt: skip
FLAGS = ("measured", "streamed")
KEYS = {"PartitionKey": "partition_key", "RowKey": "row_key"}
_OTHER = "other"  # JSON {name: [type, value]} of what has no column here, so that a newer ledger loses nothing
_KNOWN = frozenset((*KEYS, *TEXTS, *INTEGERS, *FLAGS))


class PartWriter:
    """Writes one file, some thousand rows at a time. Close it."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.sums = Sums()
        self._schema = _schema()
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, entities: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        import pyarrow as pa

        if entities:
            rows = [_columns(entity) for entity in entities]
            self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))
            add(self.sums, entities)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def read_rows(path: Path) -> Iterator[list[Entity]]:
    """The entities of a file, some thousand at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield [_entity(row) for row in batch.to_pylist()]


def read_keys(path: Path) -> Iterator[tuple[str, str]]:
    """(PartitionKey, RowKey) of a file's rows, in their order."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(KEYS.values())):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def add(sums: Sums, entities: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to sums."""
    sums.rows += len(entities)
    for entity in entities:
        sums.charge_nano_usd += integer(entity["charge_nano_usd"])
        cost = entity.get("cost_nano_usd")
        if cost is None:
            sums.unpriced += 1
        else:
            sums.cost_nano_usd += integer(cost)


def plain(entity: Mapping[str, Any]) -> dict[str, Any]:
    """An entity with its whole numbers as such, for comparing what was read with what is written."""
    return {name: value if isinstance(value, str | bool | int) else value[0] for name, value in entity.items()}


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in KEYS.values()),
            *((name, pa.string()) for name in TEXTS),
            *((name, pa.int64()) for name in INTEGERS),
            *((name, pa.bool_()) for name in FLAGS),
            (_OTHER, pa.string()),
        ]
    )


def _columns(entity: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {column: entity[key] for key, column in KEYS.items()}
    other: dict[str, list[Any]] = {}
    for name, value in entity.items():
        if name in KEYS:
            continue
        if isinstance(value, tuple):
            number, kind = value
            if name in INTEGERS and str(getattr(kind, "value", kind)) == INT64:
                row[name] = number
                continue
        elif (isinstance(value, str) and name in TEXTS) or (isinstance(value, bool) and name in FLAGS):
            row[name] = value
            continue
        other[name] = _typed(name, value)
    if other:
        row[_OTHER] = json.dumps(other, sort_keys=True, ensure_ascii=False)
    return row


def _typed(name: str, value: Any) -> list[Any]:
    """A value of a column that is not known here, with its type. Raises TypeError for a type that no ledger wrote."""
    if isinstance(value, tuple):
        return [str(getattr(value[1], "value", value[1])), str(value[0])]
    if isinstance(value, bool | str | int):
        return [type(value).__name__, value]
    raise TypeError(f"column {name} holds a {type(value).__name__}, which the export does not know")


def _entity(row: Mapping[str, Any]) -> Entity:
    entity: Entity = {key: row[column] for key, column in KEYS.items()}
    entity |= {name: row[name] for name in (*TEXTS, *FLAGS) if row[name] is not None}
    entity |= {name: (row[name], INT64) for name in INTEGERS if row[name] is not None}
    for name, (kind, value) in json.loads(row[_OTHER] or "{}").items():
        entity[name] = value if kind in ("str", "bool", "int") else (int(value), kind)
    return entity
