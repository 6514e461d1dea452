"""The ledger under a network that loses replies and workers that are killed."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError

from local.azurite import Azurite
from shared.ledger.row import LedgerRow
from shared.ledger.store import Inserted, LedgerStore
from shared.ledger.tables import Tables, open_tables
from shared.settings import Settings
from tests.ledger_rows import TEN, usage


class ReplyLosingProxy:
    """Forwards to the table service; after `lose(n)` it cuts the connection instead of passing on n replies."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._to_lose = 0
        self.lost = 0

    def lose(self, replies: int) -> None:
        self._to_lose = replies

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        batch = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(65_536):
                if b"$batch" in data:
                    batch.set()
                upstream_writer.write(data)

        async def answer() -> None:
            while data := await upstream_reader.read(65_536):
                if batch.is_set():
                    batch.clear()
                    if self.lost < self._to_lose:
                        self.lost += 1
                        return
                writer.write(data)

        tasks = [asyncio.create_task(forward()), asyncio.create_task(answer())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        upstream_writer.close()
        writer.close()


@asynccontextmanager
async def ledger_behind_proxy(azurite: Azurite, prefix: str) -> AsyncIterator[tuple[LedgerStore, ReplyLosingProxy]]:
    """A ledger that reaches its tables through a proxy only."""
    address = urlsplit(azurite.table_endpoint)
    proxy = ReplyLosingProxy(str(address.hostname), int(address.port or 0))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection_string = azurite.connection_string.replace(f":{address.port}/", f":{port}/")
    ledger = LedgerStore(await open_tables(Settings(storage_connection=connection_string, table_prefix=prefix)))
    try:
        yield ledger, proxy
    finally:
        await ledger.close()
        server.close()


async def test_replies_lost_on_the_wire_lose_and_double_nothing(azurite: Azurite, tables: Tables) -> None:
    """Whether the client library or ingest repeats a committed transaction: its rows are found, not refused."""
    rows = [usage(n) for n in range(500)]
    async with ledger_behind_proxy(azurite, tables.ledger.table_name.removesuffix("ledger")) as (ledger, proxy):
        proxy.lose(3)
        answers = await insert_at_last(ledger, rows)
        assert proxy.lost == 3
        assert [answer.row for answer in answers] == rows
        assert {answer.outcome for answer in answers} <= {"new", "redelivered"}
    stored = [row async for row in LedgerStore(tables).rows("contoso", TEN, TEN + timedelta(hours=1))]
    assert Counter(row.id for row in stored) == Counter(row.id for row in rows)


async def insert_at_last(ledger: LedgerStore, rows: Sequence[LedgerRow]) -> list[Inserted]:
    """Insert as ingest does: an error means again."""
    while True:
        try:
            return await ledger.insert(rows)
        except AzureError:
            continue


WORKER = """
import asyncio, sys
from shared.ledger.store import LedgerStore
from shared.ledger.tables import open_tables
from shared.settings import Settings
from tests.ledger_rows import usage

async def main(connection_string, prefix):
    ledger = LedgerStore(await open_tables(Settings(storage_connection=connection_string, table_prefix=prefix)))
    for start in range(0, 4000, 400):
        print("inserting", flush=True)
        await ledger.insert([usage(number) for number in range(start, start + 400)])

asyncio.run(main(*sys.argv[1:]))
"""


async def test_worker_killed_while_inserting_leaves_nothing_to_repair(
    azurite: Azurite, tables: Tables, ledger: LedgerStore
) -> None:
    """After kill -9 in the middle of a batch the redelivered events complete it; sums and high positions are exact."""
    prefix = tables.ledger.table_name.removesuffix("ledger")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, azurite.connection_string, prefix, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    for _ in range(3):
        await worker.stdout.readline()
    await asyncio.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    await worker.wait()

    end = TEN + timedelta(hours=1)
    there = [row async for row in ledger.rows("contoso", TEN, end)]
    assert len(there) >= 2 * 400
    high = (await ledger.high_positions("contoso"))["ns/usage/0"]
    assert high == max(row.position for row in there)
    rows = [usage(number) for number in range(1200)]
    outcomes = Counter(answer.outcome for answer in await ledger.insert(rows))
    assert outcomes == Counter({"redelivered": len(there), "new": 1200 - len(there)})
    charges = [charge async for charge in ledger.charges("contoso", TEN, end, None)]
    assert sum(charge.charge_nano_usd for charge in charges) == sum(1_000 + number for number in range(1200))
