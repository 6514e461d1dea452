"""The command over real stores: an environment of its own in a file, as `make run` writes one."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from shared.config.publish import checked
from shared.settings import Settings
from tests.support.command import FILES, Command, write_files
from tests.support.engine import flushed
from tests.support.stack import Stack, delivery, usage_bytes


@pytest.fixture(scope="module")
def environment(
    azurite: Azurite, redis_url: str, hub: EmbeddedHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Two calls of team search in tenant acme, one of them without a price, in tables of the module's own."""
    folder = tmp_path_factory.mktemp("cli")
    config = write_files(folder / "config", FILES)
    name = f"cli-{uuid.uuid4().hex[:8]}"
    for each in (name, f"{name}-logs"):
        hub.create_hub(each, partition_count=1)
    found = {
        "CONFIG_DIR": str(config),
        "REDIS_URL": redis_url,
        "EventHubs": hub.connection_string(),
        "LlmLogs": hub.connection_string(),
        "USAGE_HUB": name,
        "LLM_LOGS_HUB": f"{name}-logs",
        "LEDGER_STORAGE": azurite.connection_string,
        "LEDGER_TABLE_PREFIX": f"c{uuid.uuid4().hex[:12]}",
    }
    (folder / "cli.env").write_text("# for tests\n" + "".join(f"{key}={value}\n" for key, value in found.items()))
    asyncio.run(_fill(Settings.for_operator(found), str(config)))
    yield {**found, "file": str(folder / "cli.env")}
    for each in (name, f"{name}-logs"):
        hub.delete_hub(each)


@pytest.fixture
def tollkeeper(capfd: pytest.CaptureFixture[str], environment: dict[str, str]) -> Iterator[Command]:
    """The command over the module's stores."""
    yield Command(capfd, Path(environment["file"]))
    os.environ.pop("TOLLKEEPER_ENV_FILE", None)


async def _fill(settings: Settings, config: str) -> None:
    client = await flushed(settings.redis_url)
    assert settings.storage_connection
    stack = await Stack.start(client, settings.storage_connection, checked(config), prefix=settings.table_prefix)
    await stack.open("acme")
    now = datetime.now(UTC)
    bodies = [
        usage_bytes("one", 3_000, 1_000, time_utc=now - timedelta(seconds=2)),
        usage_bytes("two", 10, 10, time_utc=now - timedelta(seconds=1), model="fresh", requested_model="fresh"),
    ]
    await stack.ingest.run([delivery(body, number) for number, body in enumerate(bodies, start=1)])
    await stack.dead_letters.put("tenant_unknown", "tenant 'acmee' is not configured", bodies[0], None)
    await stack.close()
    await client.aclose()
