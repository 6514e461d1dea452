"""Where configuration files come from: a directory, or a blob container of versions and a pointer to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shared.config.edits_yaml import EDITS
from shared.config.loader import config_version
from shared.credential import open_credential
from shared.errors import ConfigInvalid, StateUnavailable

if TYPE_CHECKING:
    from azure.storage.blob.aio import ContainerClient

    from shared.settings import Settings

POINTER = "current"
VERSIONS = "versions"
_PARALLEL_BLOBS = 16


class ConfigSource(Protocol):
    """Gives the files of the newest version. `root` names the place in problems."""

    root: str

    async def fetch(self) -> dict[str, bytes]:
        """Files by relative name. Raises ConfigInvalid or StateUnavailable when they cannot be had."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class DirectorySource:
    """The YAML files under a directory."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.root = str(path)

    def read(self) -> dict[str, bytes]:
        """Files by relative name; other files (a README, an editor's backup) are no concern of ours.

        Raises ConfigInvalid when the directory is not there or a file cannot be read.
        """
        if not self._path.is_dir():
            raise ConfigInvalid(f"CONFIG_DIR: {self.root} is not a directory")
        found = (path for path in self._path.rglob("*") if path.suffix in (".yaml", ".yml"))
        visible = (path for path in found if not any(part.startswith(".") for part in self._name(path).split("/")))
        try:
            return {self._name(path): path.read_bytes() for path in visible if path.is_file()}
        except OSError as error:
            raise ConfigInvalid(f"{self.root}: cannot be read: {error.strerror}") from error

    async def fetch(self) -> dict[str, bytes]:
        """As `read`, off the event loop."""
        return await asyncio.to_thread(self.read)

    async def close(self) -> None:
        """Nothing is held open."""

    def _name(self, path: Path) -> str:
        return path.relative_to(self._path).as_posix()


class Pointer(msgspec.Struct, frozen=True):
    """The content of the blob `current`."""

    version: str
    files: tuple[str, ...]
    sequence: int = 0  # number of the step that made it
    change: str = ""  # name of the blob that tells of that step
    base: str = ""  # version whose folder holds all files but edits.yaml; empty: this one's. An edit writes one file

    def path(self, name: str) -> str:
        """The blob of a file."""
        return f"{VERSIONS}/{self.version if name == EDITS else self.base or self.version}/{name}"


Bodies = dict[str, bytes]
"""Blobs of a configuration by path, kept so that a version which shares files with the last reads the others only."""


class BlobSource:
    """The version that the container's `current` blob names. `open_container` is called once, at the first fetch."""

    def __init__(self, open_container: Callable[[], ContainerClient], root: str, bodies: Bodies | None = None) -> None:
        self._open = open_container
        self._bodies = {} if bodies is None else bodies
        self._container: ContainerClient | None = None
        self._last: tuple[str, dict[str, bytes]] | None = None
        self.root = root

    async def fetch(self) -> dict[str, bytes]:
        """Files of the current version; when the pointer did not move, those read before.

        Raises ConfigInvalid when nothing was published or a file is missing or altered, StateUnavailable when the
        storage cannot be reached.
        """
        return await _translated(self._fetch, self.root)

    async def close(self) -> None:
        """Close the connection, if one was opened."""
        if self._container is not None:
            await self._container.close()
            self._container = None

    async def _fetch(self) -> dict[str, bytes]:
        if self._container is None:
            self._container = self._open()
        container = self._container
        pointer = msgspec.json.decode(await download(container, POINTER), type=Pointer)
        if self._last is not None and self._last[0] == pointer.version:
            return self._last[1]
        files = await read_version(container, pointer, self._bodies)
        if config_version(files) != pointer.version:
            self._bodies.clear()
            raise ConfigInvalid(f"{self.root}: the files of version {pointer.version[:12]} are not those published")
        self._last = (pointer.version, files)
        return files


async def read_version(container: ContainerClient, pointer: Pointer, bodies: Bodies) -> dict[str, bytes]:
    """The files of a version; `bodies` holds those of the last one, and afterwards this one's."""
    paths = {name: pointer.path(name) for name in pointer.files}
    slots = asyncio.Semaphore(_PARALLEL_BLOBS)

    async def body(path: str) -> bytes:
        async with slots:
            return await download(container, path)

    missing = [path for path in paths.values() if path not in bodies]
    found = {**bodies, **dict(zip(missing, await asyncio.gather(*map(body, missing)), strict=True))}
    bodies.clear()
    bodies.update({path: found[path] for path in paths.values()})
    return {name: found[path] for name, path in paths.items()}


def open_source(settings: Settings, bodies: Bodies | None = None) -> ConfigSource:
    """The source that the settings name."""
    location = settings.config_location
    if location.startswith(("https://", "http://")):
        return BlobSource(lambda: open_container(location, settings), location, bodies)
    return DirectorySource(location)


def open_container(address: str, settings: Settings) -> ContainerClient:
    """A client for the container: managed identity, or the account key when a connection string is configured."""
    from azure.storage.blob.aio import ContainerClient

    return ContainerClient.from_container_url(address, credential=_credential(settings))


def _credential(settings: Settings) -> Any:
    if settings.storage_connection:
        parts = dict(part.split("=", 1) for part in settings.storage_connection.split(";") if "=" in part)
        if "AccountKey" in parts:
            return {"account_name": parts.get("AccountName", ""), "account_key": parts["AccountKey"]}
    return open_credential(settings)


async def download(container: ContainerClient, name: str) -> bytes:
    """The whole of a blob."""
    stream = await container.download_blob(name)
    return await stream.readall()


async def _translated(fetch: Callable[[], Awaitable[dict[str, bytes]]], root: str) -> dict[str, bytes]:
    """Storage's own errors as ours, so that callers need not know the SDK."""
    from azure.core.exceptions import AzureError, ResourceNotFoundError

    try:
        return await fetch()
    except ResourceNotFoundError as error:
        raise ConfigInvalid(f"{root}: no published configuration, or a file of it is missing") from error
    except msgspec.DecodeError as error:
        raise ConfigInvalid(f"{root}/{POINTER}: {error}") from error
    except AzureError as error:
        raise StateUnavailable(f"{root}: the configuration cannot be read: {type(error).__name__}") from error
