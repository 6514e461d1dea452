"""Where the configuration is written: one step at a time, none over a step that the writer has not seen."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shared.config.edits_yaml import EDITS
from shared.config.history import Change
from shared.config.loader import config_version
from shared.config.source import POINTER, Bodies, DirectorySource, Pointer, download, open_container, read_version
from shared.errors import ConfigInvalid, Conflict, StateUnavailable

if TYPE_CHECKING:
    from azure.storage.blob.aio import ContainerClient

    from shared.settings import Settings

HISTORY = "history"
HISTORY_FILE = "edits-history.jsonl"  # of a directory
MOST_STEPS = 500  # read at most for one answer, newest first
_PARALLEL_BLOBS = 16


class Held(msgspec.Struct, frozen=True):
    """The newest configuration where it is kept, and what a writer must show to replace it."""

    files: Mapping[str, bytes]
    version: str  # empty: nothing was published yet
    sequence: int = 0
    change: str = ""  # name of the step that made it
    base: str = ""  # version whose folder holds the files of git
    tag: Any = None


class ConfigPlace(Protocol):
    """Reads and replaces the whole configuration. `root` names the place in messages."""

    root: str

    async def held(self) -> Held:
        """What is there now. Raises ConfigInvalid or StateUnavailable."""
        ...

    async def replace(self, held: Held, files: Mapping[str, bytes], change: Change) -> None:
        """Make `files` what is there, in the place of `held`. Raises Conflict `config_moved` when it is not that."""
        ...

    async def steps(self) -> list[Change]:
        """The newest steps, newest first."""
        ...


class ContainerPlace:
    """A blob container: versions, a pointer to the current one, and one blob for each step."""

    def __init__(
        self, container: ContainerClient, root: str, *, bodies: Bodies | None = None, tells_forbidden: bool = False
    ) -> None:
        """`bodies` that this process holds already; `tells_forbidden`: a missing role is Conflict `config_read_only`,
        not the storage's own error."""
        self._container = container
        self._bodies = {} if bodies is None else dict(bodies)
        self._tells_forbidden = tells_forbidden
        self.root = root

    async def held(self) -> Held:
        from azure.core.exceptions import ResourceNotFoundError

        with self._translated():
            found = await self._pointer()
            if found is None:
                return Held({}, "")
            pointer, tag = found
            try:
                files = await read_version(self._container, pointer, self._bodies)
            except ResourceNotFoundError:
                files = {}
            intact = config_version(files) == pointer.version  # else nobody can read it, and publishing repairs it
            if not intact:
                self._bodies.clear()
            version = pointer.version if intact else ""
            return Held(files, version, pointer.sequence, pointer.change, pointer.base or pointer.version, tag)

    async def replace(self, held: Held, files: Mapping[str, bytes], change: Change) -> None:
        """The pointer moves last and in one write, and only from where it was seen. A writer that loses or dies leaves
        files that nothing names."""
        name = f"{HISTORY}/{change.sequence:010d}-{uuid.uuid4().hex}"
        from_git = _from_git(files)
        is_edit = held.version != "" and from_git == _from_git(held.files)
        pointer = Pointer(
            version=change.version,
            files=tuple(sorted(files)),
            sequence=change.sequence,
            change=name,
            base=held.base if is_edit else "",
        )
        blobs = {pointer.path(file): body for file, body in files.items() if file == EDITS or not is_edit}
        blobs[name] = msgspec.json.encode(msgspec.structs.replace(change, previous=held.change))
        slots = asyncio.Semaphore(_PARALLEL_BLOBS)

        async def upload(blob: str, body: bytes) -> None:
            async with slots:
                await self._container.upload_blob(blob, body, overwrite=True)

        with self._translated():
            await asyncio.gather(*(upload(blob, body) for blob, body in blobs.items()))
            await self._move(held, msgspec.json.encode(pointer))

    async def steps(self) -> list[Change]:
        with self._translated():
            pointed = await self._pointer()
            newest = "" if pointed is None else pointed[0].change
            names = sorted([blob async for blob in self._container.list_blob_names(name_starts_with=f"{HISTORY}/")])
            names = names[-MOST_STEPS:]
            bodies = await self._download_all(names)
        found = {name: msgspec.json.decode(body, type=Change) for name, body in zip(names, bodies, strict=True)}
        chain: list[Change] = []
        while newest in found:  # what a losing writer left is named by no step
            chain.append(found[newest])
            newest = chain[-1].previous
        return chain

    async def _pointer(self) -> tuple[Pointer, str] | None:
        """The pointer and its ETag; None before the first publication."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            stream = await self._container.download_blob(POINTER)
            body, tag = await stream.readall(), stream.properties.etag
        except ResourceNotFoundError:
            return None
        try:
            return msgspec.json.decode(body, type=Pointer), tag
        except msgspec.DecodeError as error:
            raise ConfigInvalid(f"{self.root}/{POINTER}: {error}") from error

    async def _move(self, held: Held, pointer: bytes) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        seen: dict[str, Any] = {"overwrite": False}  # only where there is none yet
        if held.tag is not None:
            seen = {"overwrite": True, "etag": held.tag, "match_condition": MatchConditions.IfNotModified}
        try:
            await self._container.upload_blob(POINTER, pointer, **seen)
        except HttpResponseError as error:
            if error.status_code in (409, 412):
                raise moved(self.root) from None
            raise

    async def _download_all(self, names: list[str]) -> list[bytes]:
        slots = asyncio.Semaphore(_PARALLEL_BLOBS)

        async def body(name: str) -> bytes:
            async with slots:
                return await download(self._container, name)

        return await asyncio.gather(*map(body, names))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Storage's own outages as ours; a refusal (403, 404) stays the storage's, which says what is missing."""
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            yield
        except HttpResponseError as error:
            if error.status_code == 403 and self._tells_forbidden:
                raise read_only(self.root, "Storage Blob Data Contributor on the container is missing") from error
            if error.status_code is not None and error.status_code < 500:
                raise
            raise StateUnavailable(f"{self.root}: does not respond: {type(error).__name__}") from error
        except AzureError as error:
            raise StateUnavailable(f"{self.root}: does not respond: {type(error).__name__}") from error


class DirectoryPlace:
    """A directory, as on a laptop. Files are replaced one by one; only a container changes all of them at once."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.root = str(path)

    async def held(self) -> Held:
        return await asyncio.to_thread(self._held)

    async def replace(self, held: Held, files: Mapping[str, bytes], change: Change) -> None:
        try:
            await asyncio.to_thread(self._replace, held, files, change)
        except OSError as error:
            raise read_only(self.root, error.strerror or type(error).__name__) from error

    async def steps(self) -> list[Change]:
        return await asyncio.to_thread(self._steps)

    def _held(self) -> Held:
        files = DirectorySource(self.root).read()
        return Held(files, config_version(files), sum(1 for _ in self._lines()))

    def _replace(self, held: Held, files: Mapping[str, bytes], change: Change) -> None:
        with self._locked():
            there = self._held()
            if there.version != held.version:
                raise moved(self.root)
            for name, body in files.items():
                if there.files.get(name) != body:
                    self._write(self._path / name, body)
            for name in there.files.keys() - files.keys():
                (self._path / name).unlink(missing_ok=True)
            with (self._path / HISTORY_FILE).open("ab") as file:
                file.write(msgspec.json.encode(change) + b"\n")

    def _steps(self) -> list[Change]:
        lines = list(self._lines())[-MOST_STEPS:]
        return [msgspec.json.decode(line, type=Change) for line in reversed(lines)]

    def _lines(self) -> Iterator[bytes]:
        file = self._path / HISTORY_FILE
        return (line for line in file.read_bytes().splitlines() if line) if file.is_file() else iter(())

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.{os.getpid()}")  # hidden: nobody reads it as configuration
        half.write_bytes(body)
        half.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, over processes: comparing and writing are two steps of a file system."""
        import fcntl  # not on Windows, where the rest of the app may be imported

        with (self._path / ".edits-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@asynccontextmanager
async def open_place(settings: Settings, bodies: Bodies | None = None) -> AsyncIterator[ConfigPlace]:
    """Where the configuration that the settings name is written. `bodies`: files that this process has read already."""
    location = settings.config_location
    if not location.startswith(("https://", "http://")):
        yield DirectoryPlace(location)
        return
    async with open_container(location, settings) as container:
        yield ContainerPlace(container, location, bodies=bodies, tells_forbidden=True)


def _from_git(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: body for name, body in files.items() if name != EDITS}


def read_only(root: str, why: str) -> Conflict:
    """Whoever runs this may not write there."""
    return Conflict(f"{root}: the configuration cannot be written from here: {why}", code="config_read_only")


def moved(root: str) -> Conflict:
    """Somebody wrote between reading and writing."""
    return Conflict(f"{root}: the configuration was changed meanwhile; look at it again", code="config_moved")
