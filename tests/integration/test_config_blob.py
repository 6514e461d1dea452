"""Configuration published to real Blob Storage reaches a running store."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from local.azurite import Azurite
from shared.config.__main__ import publish
from shared.config.edits import ConfigEdits, budget_version
from shared.config.place import ContainerPlace, open_place
from shared.config.publish import publish as publish_config
from shared.config.source import open_container, open_source
from shared.config.store import ConfigStore
from shared.errors import ConfigInvalid
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
GOOD = {"tenants.yaml": b"tenants: [{id: default}]", "teams/a.yaml": b"team: a"}
NEWER = {**GOOD, "tenants.yaml": b"tenants: [{id: default}, {id: contoso}]"}


async def test_the_command_publishes_without_the_apps_settings(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever publishes knows where to, and nothing of the app's other stores and keys."""
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    for name in ("TOLLKEEPER_ENV", "CONFIG_DIR", "REDIS_URL", "EventHubs", "LlmLogs", "RESERVATION_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONFIG_URL", address)
    monkeypatch.setenv("LEDGER_STORAGE", azurite.connection_string)
    async with open_container(address, Settings.for_operator()) as container:
        await container.create_container()
    said = await publish(str(ROOT / "config"))
    store = ConfigStore(open_source(Settings.for_operator()))
    config = await store.load()
    assert said.startswith(f"{address} is at version {config.version[:12]}")
    edits = ConfigEdits(lambda: open_place(Settings.for_operator()), lambda: store.refresh(force=True))
    version = budget_version(config, "search-month")
    await edits.change("default", "search-month", {"limit": "0.10"}, version=version, who="ada", why="quarter end")
    assert "discarded, because git wins: budget search-month to 0.10, by ada" in await publish(str(ROOT / "config"))
    await store.close()


async def test_a_published_version_is_picked_up(azurite: Azurite) -> None:
    """The store follows what is published; before the first publish its load says what is missing."""
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    settings = Settings(config_location=address, storage_connection=azurite.connection_string)
    store = ConfigStore(open_source(settings))
    async with open_container(address, settings) as container:
        await container.create_container()
        with pytest.raises(ConfigInvalid, match="no published configuration"):
            await store.load()
        place = ContainerPlace(container, address)
        first = (await publish_config(GOOD, place, who="ada", why="first")).version
        assert (await store.load()).version == first
        second = (await publish_config(NEWER, place, who="ada", why="second")).version
        assert await store.refresh(force=True)
        assert store.current.version == second
        assert "contoso" in store.current.tenants
    await store.close()
