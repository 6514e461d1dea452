"""A month's statement from ledger rows, 50 thousand to 5 million: cost per row and peak memory have to stay flat.

    python -m bench.statement [--rows 50000 500000 5000000]

The product's side: decode the stored row, roll the hour up, store and read the cells, tally the month, make the bill,
write FOCUS as CSV and as Parquet. The other side: DuckDB, one thread, groups the same rows from Parquet and writes the
groups as CSV and Parquet; it prices, rounds, splits and proves nothing, so its ratio is an anchor, not a rival. Making
the rows is not counted. Every size and side runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bench.common import number, table, title, verdict
from bench.statement_rows import KINDS, PERIOD, TENANT, hours
from shared.ledger.codec import decode
from shared.ledger.rollup import Roller
from shared.ledger.rollup_codec import decode_cell, encode_cell, storable
from shared.months import month_span
from shared.reports.basis import Basis
from shared.reports.bill import make_bill
from shared.reports.files_focus import write_focus
from shared.reports.files_parquet import write_parquet
from shared.reports.spool import Spool
from shared.reports.tally import Tally

SIZES = (50_000, 500_000, 5_000_000)
MOST_MIB = 1024
MOST_GROWTH = 1.1  # of the cost per row, from the smallest month to the largest
STAGES = ("decode and roll up", "cells out and in", "tally", "bill", "FOCUS CSV", "FOCUS Parquet")


class Clock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside to a stage."""
        begun = time.process_time()
        yield
        self.seconds[name] += time.process_time() - begun


class Figures(NamedTuple):
    """What one process measured."""

    seconds: dict[str, float]
    peak_mib: float
    cells: int
    charges: int
    total_nano: int

    @property
    def whole_seconds(self) -> float:
        """All stages together."""
        return sum(self.seconds.values())


def ours(rows: int, directory: Path) -> Figures:
    """The product's side."""
    clock = Clock()
    end_utc = month_span(PERIOD)[1]
    cells = 0
    with Spool() as spool:
        tally = Tally(Basis(tenant=TENANT, period=PERIOD), end_utc, timedelta(minutes=30), spool)
        for made in hours(rows):
            entities = [row.entity for row in made]
            with clock.stage("decode and roll up"):
                roller = Roller()
                for entity in entities:
                    roller.add(decode(entity))
            with clock.stage("cells out and in"):
                stored = [encode_cell(cell, "hour", ordinal) for ordinal, cell in enumerate(storable(roller.cells))]
                found = [decode_cell(entity) for entity in stored]
            with clock.stage("tally"):
                for cell in found:
                    tally.add(cell)
            cells += len(found)
        with clock.stage("tally"):
            tally.finish()
        with clock.stage("bill"):
            bill = make_bill(tally, spool, status="final", as_of_utc=end_utc)
        with clock.stage("FOCUS CSV"), (directory / "focus.csv").open("wb") as out:
            write_focus(bill.statement, bill.charges(), out)
        with clock.stage("FOCUS Parquet"), (directory / "focus.parquet").open("wb") as out:
            write_parquet(bill.statement, bill.charges(), out)
        charges = sum(1 for _ in bill.charges())
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Figures(clock.seconds, peak_mib, cells, charges, bill.statement.total_nano)


def plain(rows: int, directory: Path) -> Figures:
    """DuckDB's side, on the same rows."""
    import duckdb

    source = _parquet_of(rows, directory)
    begun = time.process_time()
    database = duckdb.connect(config={"threads": "1", "temp_directory": str(directory)})
    sums = ", ".join(f"sum({kind}_tokens) AS {kind}_tokens, sum({kind}_nano) AS {kind}_nano" for kind in KINDS)
    database.execute(
        "CREATE TABLE grouped AS SELECT date_trunc('day', time) AS day, team, app, model, deployment, "
        f"{sums}, count(*) AS requests FROM read_parquet('{source}') GROUP BY ALL ORDER BY ALL"
    )
    database.execute(f"COPY grouped TO '{directory / 'grouped.csv'}'")
    database.execute(f"COPY grouped TO '{directory / 'grouped.parquet'}' (COMPRESSION zstd)")
    seconds = time.process_time() - begun
    [(groups, total)] = database.execute(
        f"SELECT count(*), sum({' + '.join(f'{kind}_nano' for kind in KINDS)}) FROM grouped"
    ).fetchall()
    return Figures({"all": seconds}, 0, 0, groups, int(total))


def _parquet_of(rows: int, directory: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = directory / "rows.parquet"
    names = ("team", "app", "model", "deployment")
    counts = [f"{kind}_{what}" for kind in KINDS for what in ("tokens", "nano")]
    fields = [("time", pa.timestamp("us")), *((name, pa.string()) for name in names)]
    schema = pa.schema([*fields, *((name, pa.int64()) for name in counts)])
    with pq.ParquetWriter(path, schema) as writer:
        for made in hours(rows):
            columns: list[list[Any]] = [[row.time_utc.replace(tzinfo=None) for row in made]]
            columns += [[row.team for row in made], [row.app for row in made]]
            columns += [[row.model.model for row in made], [row.model.deployment for row in made]]
            for kind in range(len(KINDS)):
                columns += [[row.tokens[kind] for row in made], [row.costs_nano_usd[kind] for row in made]]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return path


def main() -> None:
    """Print the curve, the ratio and the peaks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--side", choices=("ours", "plain"), help="measure one size in this process and print JSON")
    arguments = parser.parse_args()
    if arguments.side:
        with tempfile.TemporaryDirectory() as directory:
            side = ours if arguments.side == "ours" else plain
            print(json.dumps(side(arguments.rows[0], Path(directory))))
        return
    title("A month's statement", "CPU seconds of one process; from stored rows to FOCUS CSV and Parquet")
    found = {rows: (_measured("ours", rows), _measured("plain", rows)) for rows in arguments.rows}
    for rows, (mine, other) in found.items():
        if mine.total_nano != other.total_nano:
            raise SystemExit(f"{rows} rows: the statement says {mine.total_nano} nano-USD, DuckDB {other.total_nano}")
    _print(found)


def _measured(side: str, rows: int) -> Figures:
    command = [sys.executable, "-m", "bench.statement", "--side", side, "--rows", str(rows)]
    return Figures(*json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _print(found: dict[int, tuple[Figures, Figures]]) -> None:
    headers = ["rows", "cells", "FOCUS rows", "CPU s", "rows/s", "us/row", "peak MiB", "DuckDB s", "ratio"]
    lines = []
    for rows, (mine, other) in found.items():
        seconds, plain_seconds = mine.whole_seconds, other.whole_seconds
        figures = (seconds, rows / seconds, seconds / rows * 1e6, mine.peak_mib, plain_seconds, seconds / plain_seconds)
        lines.append([f"{rows:,}", f"{mine.cells:,}", f"{mine.charges:,}", *map(number, figures)])
    table(headers, lines)
    print()
    table(
        ["us per row of", *(f"{rows:,}" for rows in found)],
        [[stage, *(number(mine.seconds[stage] / rows * 1e6) for rows, (mine, _) in found.items())] for stage in STAGES],
    )
    sizes = sorted(found)
    per_row = [found[rows][0].whole_seconds / rows for rows in (sizes[0], sizes[-1])]
    print(f"\ncost per row, largest month to smallest: {verdict(per_row[1] / per_row[0], MOST_GROWTH, at_most=True)}")
    print(f"peak MiB: {verdict(max(mine.peak_mib for mine, _ in found.values()), MOST_MIB, at_most=True)}")
    print("every total equals DuckDB's to the nano-dollar")


if __name__ == "__main__":
    main()
