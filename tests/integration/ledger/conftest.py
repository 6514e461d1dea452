"""A ledger of its own for each test, in tables of their own on the shared Azurite."""

import uuid
from collections.abc import AsyncIterator

import pytest

from local.azurite import Azurite
from shared.ledger.hours import HourIndex
from shared.ledger.store import LedgerStore
from shared.ledger.tables import Tables, open_tables
from shared.settings import Settings


@pytest.fixture
async def tables(azurite: Azurite) -> AsyncIterator[Tables]:
    """Empty ledger tables."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    tables = await open_tables(Settings(storage_connection=azurite.connection_string, table_prefix=prefix))
    yield tables
    await tables.close()


@pytest.fixture
def hours(tables: Tables) -> HourIndex:
    """An hour index whose marks cover 10 s of inserts, and whose rollups wait for nothing."""
    return HourIndex(tables.hours, cover_seconds=10, grace_seconds=-10)


@pytest.fixture
def ledger(tables: Tables, hours: HourIndex) -> LedgerStore:
    """The ledger under test."""
    return LedgerStore(tables, hours)
