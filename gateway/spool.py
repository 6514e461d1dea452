"""Usage events on disk while the hub does not take them: append-only segments that outlive the process.

    <directory>/<owner>/lock                locked (flock) as long as its gateway lives
    <directory>/<owner>/<time_ns>.events    a segment: records one after the other

Every process writes into a folder of its own, so that several may share the directory. A folder whose lock is free
belonged to a gateway that is gone: whoever gets the lock sends what is in it. So no two ever send the same segment at
once. A segment that was sent and not yet deleted when its gateway was killed is sent again; the ledger takes it once.

A record is its length, a CRC-32 and the event's bytes. Each append is one fsync: what `append` has taken is there after
a kill and after a power cut. A record cut short at the end of a segment is what a kill leaves; it was never taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import stat
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("tollkeeper.gateway")

SEGMENT_BYTES = 4 * 1024 * 1024  # after which the next append begins another one
SUFFIX, DAMAGED = ".events", ".damaged"
_HEAD = struct.Struct("<II")  # length and CRC-32 of what follows
_LONGEST_EVENT_BYTES = 16 * 1024 * 1024  # a length beyond it is no length
_LOCK = "lock"
_ONLY_OWNER = 0o700, 0o600  # events name people


class Segment(NamedTuple):
    """A segment that nobody writes to any more."""

    path: Path
    events: int
    size: int  # bytes

    @property
    def since_ns(self) -> int:
        """When it was begun, in nanoseconds of the epoch."""
        return int(self.path.name.removesuffix(SUFFIX))


class _Folder(NamedTuple):
    path: Path
    lock: int  # descriptor; closing it frees the lock


class Spool:
    """Safe to call from any thread. All methods may raise OSError, and have then changed nothing that counts."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """`max_bytes` is for whoever lets calls in: an event of a call that was let in is never turned away."""
        self.max_bytes = max_bytes
        self.events = 0  # as they are here now, with those of folders that were taken over
        self.size = 0  # bytes, heads of records included
        self._directory = directory
        self._own: _Folder | None = None
        self._adopted: list[_Folder] = []
        self._sealed: list[Segment] = []  # oldest first
        self._writing: tuple[int, Path] | None = None  # descriptor of the segment that grows
        self._written = Segment(Path(), 0, 0)
        self._guard = threading.Lock()

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest segment has been there; 0 when there is none."""
        with self._guard:
            oldest = self._sealed[0] if self._sealed else self._written
            return max(0.0, (time.time_ns() - oldest.since_ns) / 1e9) if oldest.events else 0.0

    def open(self) -> None:
        """Make a folder of this process and take over those that no living process holds."""
        self._directory.mkdir(mode=_ONLY_OWNER[0], parents=True, exist_ok=True)
        with self._guard:
            if self._own is None:
                self._own = self._new_folder()
        self.adopt()

    def adopt(self) -> int:
        """Take over the folders of gateways that are gone; returns how many events were in them."""
        with self._guard:
            if self._own is None:
                return 0
            owner = os.lstat(self._own.path).st_uid
            held = {self._own.path, *(folder.path for folder in self._adopted)}
            found = 0
            for path in sorted(self._directory.iterdir()):
                if path in held or not _is_folder_of(owner, path):
                    continue
                if (folder := _taken_over(path)) is not None:
                    found += self._take_in(folder)
            if found:
                self._sealed.sort(key=lambda segment: segment.since_ns)
                log.info("events_adopted", extra={"events": found})
            return found

    def append(self, events: Sequence[bytes]) -> None:
        """Put events behind the others, on the disk when this returns."""
        content = b"".join(_HEAD.pack(len(event), zlib.crc32(event)) + event for event in events)
        with self._guard:
            descriptor = self._segment()
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except OSError:
                self._undo(descriptor)
                raise
            self._written = self._written._replace(
                events=self._written.events + len(events), size=self._written.size + len(content)
            )
            self.events += len(events)
            self.size += len(content)

    def oldest(self) -> Segment | None:
        """The segment to be sent next; from now on nothing is added to it. None when the spool is empty."""
        with self._guard:
            if not self._sealed:
                self._seal()
            return self._sealed[0] if self._sealed else None

    def read(self, segment: Segment) -> list[bytes]:
        """The events of a segment. One that is damaged gives those before the damage and is kept for a person."""
        content = segment.path.read_bytes()
        events, problem = read_records(content)
        if problem == "damaged":
            log.error("spool_damaged", extra={"segment": str(segment.path), "events": len(events)})
            segment.path.with_suffix(DAMAGED).write_bytes(content)  # in a folder that only its owner may read
        return events

    def drop(self, segment: Segment) -> None:
        """Forget a segment that was sent, and the folder that it was the last of unless it is our own."""
        with self._guard:
            segment.path.unlink(missing_ok=True)
            self._sealed.remove(segment)
            self.events -= segment.events
            self.size -= segment.size
            left = {each.path.parent for each in self._sealed}
            for folder in [folder for folder in self._adopted if folder.path not in left]:
                self._adopted.remove(folder)
                _remove(folder)

    def close(self) -> None:
        """Leave what is there to the next gateway."""
        with self._guard:
            self._seal()
            for folder in self._adopted:
                os.close(folder.lock)
            if self._own is not None:
                _remove(self._own)  # keeps a folder that is not empty
            self._own, self._adopted, self._sealed = None, [], []

    def _new_folder(self) -> _Folder:
        """A folder with its lock held. Someone who looks for the dead may be quicker than our lock: then another."""
        while True:
            path = self._directory / f"{time.time_ns():020d}-{secrets.token_hex(4)}"
            path.mkdir(mode=_ONLY_OWNER[0])
            descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _ONLY_OWNER[1])
            if _locks(descriptor, path):
                _sync_folder(self._directory)
                return _Folder(path, descriptor)
            os.close(descriptor)

    def _take_in(self, folder: _Folder) -> int:
        """Note what is in a folder whose lock we hold; returns the number of its events."""
        segments = []
        for path in sorted(folder.path.glob(f"*{SUFFIX}")):
            if not path.stem.isdecimal():
                continue  # nobody's name for a segment
            content = path.read_bytes()
            events, problem = read_records(content)
            if problem is not None:
                log.warning("spool_cut_short", extra={"segment": str(path), "events": len(events), "problem": problem})
            segments.append(Segment(path, len(events), len(content)))
        if not segments:
            _remove(folder)
            return 0
        self._adopted.append(folder)
        self._sealed += segments
        events_found = sum(segment.events for segment in segments)
        self.events += events_found
        self.size += sum(segment.size for segment in segments)
        return events_found

    def _segment(self) -> int:
        """The descriptor to append to."""
        if self._written.size >= SEGMENT_BYTES:
            self._seal()
        if self._writing is None:
            if self._own is None:
                raise FileNotFoundError(f"{self._directory}: no folder could be made in it")
            after = self._sealed[-1].since_ns + 1 if self._sealed else 0  # clocks may be set back
            path = self._own.path / f"{max(time.time_ns(), after):020d}{SUFFIX}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(path, flags, _ONLY_OWNER[1])
            self._writing, self._written = (descriptor, path), Segment(path, 0, 0)
            _sync_folder(self._own.path)
        return self._writing[0]

    def _undo(self, descriptor: int) -> None:
        """After a failed write: the segment as it was; where not even that works, an end that readers pass over."""
        try:
            os.ftruncate(descriptor, self._written.size)
        except OSError:
            self._seal()

    def _seal(self) -> None:
        if self._writing is None:
            return
        descriptor, path = self._writing
        self._writing = None
        os.close(descriptor)
        if self._written.events:
            self._sealed.append(self._written)
        else:
            path.unlink(missing_ok=True)
        self._written = Segment(Path(), 0, 0)


def read_records(content: bytes) -> tuple[list[bytes], str | None]:
    """(the events of a segment, what is wrong behind the last of them): None, "torn" by a kill, or "damaged"."""
    events: list[bytes] = []
    at = 0
    while at < len(content):
        if len(content) - at < _HEAD.size:
            return events, "torn"
        length, checksum = _HEAD.unpack_from(content, at)
        if not 0 < length <= _LONGEST_EVENT_BYTES:
            return events, "damaged"
        event = content[at + _HEAD.size : at + _HEAD.size + length]
        if len(event) < length:
            return events, "torn"
        if zlib.crc32(event) != checksum:
            return events, "damaged"
        events.append(event)
        at += _HEAD.size + length
    return events, None


def _is_folder_of(owner: int, path: Path) -> bool:
    """Whether it is a folder that a gateway made: what others lay there would go to the hub in the gateway's name."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner


def _taken_over(path: Path) -> _Folder | None:
    """The folder with its lock, when its gateway is gone; None while it lives, or when it is none of ours."""
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    if _locks(descriptor, path):
        return _Folder(path, descriptor)
    os.close(descriptor)
    return None


def _locks(descriptor: int, folder: Path) -> bool:
    """Whether we hold the folder's lock now: nobody else has it, and nobody has removed the folder meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(folder / _LOCK))
    except OSError:
        return False


def _remove(folder: _Folder) -> None:
    """Remove a folder that holds nothing but its lock, and free the lock either way."""
    with contextlib.suppress(OSError):
        if {entry.name for entry in folder.path.iterdir()} == {_LOCK}:
            (folder.path / _LOCK).unlink()
            folder.path.rmdir()
    os.close(folder.lock)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(path: Path) -> None:
    """Make a new name last: the entry of a file is its folder's data. Some network shares know no such thing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
