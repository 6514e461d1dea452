"""The FOCUS file as Parquet: exact decimals, instants in UTC, nulls, one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from shared.reports.charge import Charge
from shared.reports.focus_columns import COLUMNS, DECIMALS, DEFAULT_VERSION, TIMES, FocusVersion
from shared.reports.focus_rows import FocusRows
from shared.reports.statement import Statement

ROWS_PER_GROUP = 10_000
_DIGITS = 38  # of decimal128


def write_parquet(
    statement: Statement, charges: Iterator[Charge], out: BinaryIO, version: FocusVersion = DEFAULT_VERSION
) -> None:
    """One row per charge; memory holds one row group. Names stay as they are: nothing runs them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pa, COLUMNS[version])
    rows = FocusRows(statement)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while group := [rows.varying(charge).get for charge in islice(charges, ROWS_PER_GROUP)]:
            columns = [
                pa.repeat(pa.scalar(rows.constant[field.name], field.type), len(group))
                if field.name in rows.constant
                else pa.array([get(field.name) for get in group], type=field.type)
                for field in schema
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def write_parquet_1_2(statement: Statement, charges: Iterator[Charge], out: BinaryIO) -> None:
    """The same rows in the columns of FOCUS 1.2."""
    write_parquet(statement, charges, out, "1.2")


def _schema(pa: Any, columns: tuple[str, ...]) -> Any:
    def type_of(column: str) -> Any:
        if column in DECIMALS:
            return pa.decimal128(_DIGITS, DECIMALS[column])
        return pa.timestamp("us", tz="UTC") if column in TIMES else pa.string()

    return pa.schema([pa.field(column, type_of(column)) for column in columns])
