"""The store: a good version comes into force by itself, a bad one never does, and nobody waits for either."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.config.place import ContainerPlace
from shared.config.publish import publish
from shared.config.source import BlobSource, DirectorySource
from shared.config.store import ConfigStore
from shared.errors import ConfigInvalid, StateUnavailable

GOOD = {"tenants.yaml": b"tenants: [{id: default}]"}
NEWER = {"tenants.yaml": b"tenants: [{id: default}, {id: contoso}]"}
BAD = {"tenants.yaml": b"tenants: [{id: default, fail_mode: ajar}]"}


class FakeSource:
    """Files in memory; set `error` to make the next reads fail."""

    root = "config"

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.error: Exception | None = None
        self.reads = 0

    async def fetch(self) -> dict[str, bytes]:
        self.reads += 1
        if self.error:
            raise self.error
        return self.files

    async def close(self) -> None: ...


def store_on(source: FakeSource, told: list[str] | None = None, poll_seconds: float = 15) -> ConfigStore:
    return ConfigStore(source, poll_seconds=poll_seconds, on_rejected=(told if told is not None else []).append)


async def test_the_first_load_raises_and_serves_nothing() -> None:
    """A process that never had a good configuration must not decide anything."""
    store = store_on(FakeSource(BAD))
    with pytest.raises(ConfigInvalid, match="fail_mode"):
        await store.load()
    with pytest.raises(StateUnavailable):
        _ = store.current


async def test_a_good_version_replaces_the_old_one() -> None:
    """A refresh brings the new version; the same files again change nothing."""
    source = FakeSource(GOOD)
    store = store_on(source)
    await store.load()
    source.files = NEWER
    assert await store.refresh(force=True)
    assert set(store.current.tenants) == {"default", "contoso"}
    assert not await store.refresh(force=True)


async def test_a_bad_version_is_refused_and_told_once() -> None:
    """The last good version stays; three looks at the same mistake make one message; a fix ends it."""
    source, told = FakeSource(GOOD), []
    store = store_on(source, told)
    before = await store.load()
    source.files = BAD
    for _ in range(3):
        assert not await store.refresh(force=True)
    assert store.current is before
    assert len(told) == 1
    assert "fail_mode" in told[0]
    assert store.last_problem == told[0]
    source.files = NEWER
    assert await store.refresh(force=True)
    assert store.last_problem is None


async def test_going_back_to_the_good_version_clears_the_problem() -> None:
    """Undoing a bad edit is as good as fixing it."""
    source = FakeSource(GOOD)
    store = store_on(source)
    await store.load()
    source.files = BAD
    await store.refresh(force=True)
    source.files = GOOD
    await store.refresh(force=True)
    assert store.last_problem is None


async def test_an_unreachable_source_keeps_the_last_good_version() -> None:
    """Storage being down changes no decision."""
    source, told = FakeSource(GOOD), []
    store = store_on(source, told)
    before = await store.load()
    source.error = StateUnavailable("down")
    await store.refresh(force=True)
    await store.refresh(force=True)
    assert store.current is before
    assert told == ["down"]


async def test_the_source_is_read_only_when_due() -> None:
    """A thousand refreshes inside the poll time are one read."""
    now = 0.0
    source = FakeSource(GOOD)
    store = ConfigStore(source, poll_seconds=15, clock=lambda: now)
    await store.load()
    for _ in range(1000):
        await store.refresh()
    assert source.reads == 1
    now = 15.0
    await store.refresh()
    assert source.reads == 2


async def test_the_background_poll_needs_no_further_call() -> None:
    """After one check an idle worker still picks up what is published."""
    source = FakeSource(GOOD)
    store = store_on(source, poll_seconds=0.01)
    await store.load()
    store.refresh_if_due()
    source.files = NEWER
    async with asyncio.timeout(5):
        while "contoso" not in store.current.tenants:  # noqa: ASYNC110 - the store tells nobody when it changes
            await asyncio.sleep(0.01)
    await store.close()


def test_a_directory_gives_its_yaml_files(tmp_path: Path) -> None:
    """Names are relative, other and hidden files are left out; a wrong ending is passed on to be refused."""
    (tmp_path / "teams").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("tenants.yaml", "teams/a.yaml", "typo.yml", "README.md", ".git/x.yaml"):
        (tmp_path / name).write_bytes(b"x")
    assert set(DirectorySource(tmp_path).read()) == {"tenants.yaml", "teams/a.yaml", "typo.yml"}


def test_a_missing_directory_is_named() -> None:
    """A wrong CONFIG_DIR is a clear answer, not an empty configuration."""
    with pytest.raises(ConfigInvalid, match="CONFIG_DIR: /no/such/place is not a directory"):
        DirectorySource("/no/such/place").read()


class FakeContainer:
    """As much of a blob container as publishing needs; `writes` is the order of uploads."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.writes: list[str] = []
        self.fail_on: str | None = None

    async def upload_blob(self, name: str, body: bytes, *, overwrite: bool, **_condition: Any) -> None:
        if name == self.fail_on:
            raise ConnectionError(name)
        self.writes.append(name)
        self.blobs[name] = body

    async def download_blob(self, name: str) -> FakeDownload:
        from azure.core.exceptions import ResourceNotFoundError

        if name not in self.blobs:
            raise ResourceNotFoundError(name)
        return FakeDownload(self.blobs[name])

    async def close(self) -> None: ...


class FakeDownload:
    """A downloaded blob."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.properties = SimpleNamespace(etag="e")

    async def readall(self) -> bytes:
        return self._body


async def publish_config(files: dict[str, bytes], container: FakeContainer) -> str:
    """The version that is current afterwards."""
    place = ContainerPlace(container, "https://x/config")  # type: ignore[arg-type]
    return (await publish(files, place, who="ada", why="because")).version


def source_of(container: FakeContainer) -> BlobSource:
    return BlobSource(lambda: container, "https://x/config")  # type: ignore[arg-type,return-value]


async def test_publishing_moves_the_pointer_last_and_keeps_old_versions() -> None:
    """A reader sees one version or the other; the one before stays for going back."""
    container = FakeContainer()
    source = source_of(container)
    first = await publish_config(GOOD, container)
    assert await source.fetch() == GOOD
    second = await publish_config(NEWER, container)
    assert await source.fetch() == NEWER
    assert container.writes[-1] == "current"
    assert {f"versions/{first}/tenants.yaml", f"versions/{second}/tenants.yaml"} <= set(container.blobs)


async def test_a_publisher_that_dies_half_way_changes_nothing() -> None:
    """Without its pointer a version does not exist."""
    container = FakeContainer()
    await publish_config(GOOD, container)
    container.fail_on = "current"
    with pytest.raises(ConnectionError):
        await publish_config(NEWER, container)
    assert await source_of(container).fetch() == GOOD


async def test_a_bad_configuration_is_not_published() -> None:
    """The publisher learns of the mistake, not the workers."""
    container = FakeContainer()
    with pytest.raises(ConfigInvalid):
        await publish_config(BAD, container)
    assert container.writes == []


async def test_missing_and_altered_blobs_are_refused() -> None:
    """Nothing published, a lost file and an edited one are told apart from a good version."""
    container = FakeContainer()
    with pytest.raises(ConfigInvalid, match="no published configuration"):
        await source_of(container).fetch()
    version = await publish_config(GOOD, container)
    container.blobs[f"versions/{version}/tenants.yaml"] = NEWER["tenants.yaml"]
    with pytest.raises(ConfigInvalid, match="not those published"):
        await source_of(container).fetch()
    container.blobs["current"] = b"{"
    with pytest.raises(ConfigInvalid, match="current"):
        await source_of(container).fetch()
