"""What it takes to read an invoice's export and to replay a month: `python -m bench.lookback`.

The export is gzipped CSV with the 96 columns of FOCUS 1.0; its baseline is Python's csv reader over the same file doing
nothing with the rows. The month of the replay is quarter hours x teams x models in memory, without the ledger's reads.
Memory is the peak of the process beyond what it held before.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from shared.budgets.simulations import Simulations
from shared.budgets.snapshot import Snapshot
from shared.config.model import Budget, Config, DowngradeRule, Model, PriceOverride, Tenant
from shared.ledger.rollup import RollupCell
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.reports.reconcile.exports import Run, read_run
from shared.reports.reconcile.meters import Meters
from shared.reports.reconcile.sides import Accounts, InvoiceSide
from shared.routing.router import Router

ROWS = (20_000, 200_000)
TEAMS, MODELS = 20, ("gpt-4o", "gpt-4o-mini")
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
_PAD = 96 - 8
_HEADER = ["BilledCost", "BillingCurrency", "ChargeCategory", "ChargePeriodStart", "ResourceId", "ServiceName"]
_ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/aoai-"


def write_export(path: Path, rows: int) -> None:
    """An export of that many rows over ten accounts, four meters and a month of days."""
    meters = [
        f"gpt 4o {end}" for end in ("Inp glbl Tokens", "Outp glbl Tokens", "cached Inp glbl Tokens", "odd Tokens")
    ]
    with gzip.open(path, "wt", compresslevel=1, newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow([*_HEADER, "x_SkuMeterName", "ConsumedQuantity", *(f"x_{i}" for i in range(_PAD))])
        for i in range(rows):
            day = f"2026-10-{i % 31 + 1:02d}T00:00Z"
            known = (f"{i % 977}.123456789", "USD", "Usage", day, f"{_ACCOUNT}{i % 10}", "Azure OpenAI Service")
            table.writerow([*known, meters[i % 4], i % 1000, *("value",) * _PAD])


class _Disk:
    """The one partition, from disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def chunks(self, name: str) -> AsyncIterator[bytes]:
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        with self._path.open("rb") as body:
            while chunk := body.read(4 * 1024 * 1024):
                yield chunk


def read_export(path: Path, rows: int) -> InvoiceSide:
    """Read it as the nightly job does."""
    side = InvoiceSide(Meters(MODELS, {}), Accounts(()), date(2026, 10, 1), date(2026, 10, 31))
    part = ("part", None, rows)
    run = Run("manifest.json", "e", "s", "1.0", OCTOBER, date(2026, 10, 1), date(2026, 10, 31), (part,), rows)
    problems = asyncio.run(read_run(_Disk(path), run, side.add))  # type: ignore[arg-type]
    assert problems == []
    assert side.rows == rows
    return side


def read_plainly(path: Path, rows: int) -> None:
    """The baseline: the same file through gzip and csv, rows thrown away."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as lines:
        assert sum(1 for _ in csv.reader(lines)) == rows + 1


class _Month:
    """A month of cells, made as they are read."""

    cells_made = 0

    async def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]:
        at_utc = start_utc
        while at_utc < end_utc:
            for team in range(TEAMS):
                for model in MODELS:
                    self.cells_made += 1
                    yield RollupCell(
                        tenant="t",
                        quarter_utc=at_utc,
                        scopes={"team": f"team-{team}"},
                        model=model,
                        requested_model=model,
                        requests=40,
                        tokens={"input": 40_000, "output": 8_000},
                        charge_nano_usd=40 * (team + 1) * 1_000_000,
                    )
            at_utc += timedelta(minutes=15)


def replay_month() -> int:
    """Replay a month against a budget that downgrades and stops some teams; the number of cells read."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rule = DowngradeRule(("gpt-4o",), "gpt-4o-mini")
    budget = Budget("b", None, "team", "*", "month", "UTC", 2_000 * 10**9, downgrade=(rule,))
    config = Config(
        version="v",
        tenants={"t": Tenant(id="t")},
        teams={},
        budgets=(budget,),
        models={name: Model(id=name) for name in MODELS},
        prices=tuple(PriceOverride(name, start, {"input": 2_500_000, "output": 10_000_000}) for name in MODELS),
    )
    pricer = Pricer(PriceBook([]), config)
    snapshot = Snapshot(config, pricer, Router(config, pricer))
    month = _Month()
    asyncio.run(Simulations(lambda: snapshot, month).run("t", "2026-10", budget, datetime(2026, 11, 5, tzinfo=UTC)))
    return month.cells_made


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, and megabytes by which the peak grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    work()
    return time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            path = Path(folder, "export.csv.gz")
            write_export(path, rows)
            plain, _ = _timed(lambda path=path, rows=rows: read_plainly(path, rows))  # type: ignore[misc]
            seconds, megabytes = _timed(lambda path=path, rows=rows: read_export(path, rows))  # type: ignore[misc]
            print(
                f"export of {rows:>9,} rows: {seconds / rows * 1e6:5.1f} us CPU a row, "
                f"{seconds / plain:.2f} x the bare reader, {megabytes:.0f} MB more"
            )
    made: list[int] = []
    seconds, megabytes = _timed(lambda: made.append(replay_month()))
    print(f"replay of {made[0]:>9,} cells: {seconds / made[0] * 1e6:5.1f} us CPU a cell, {megabytes:.0f} MB more")


if __name__ == "__main__":
    main()
