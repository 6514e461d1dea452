"""Charges on disk while a statement is built: one file per team, so that a month of any size needs little memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import msgspec

from shared.reports.charge import Charge

_LENGTH_BYTES = 4
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Charge).decode


class Spool:
    """A directory of charge files that goes away when it is closed."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="tollkeeper-statement-")

    def append(self, team: str, charges: Iterable[Charge]) -> None:
        """Write charges behind those of the team that are there."""
        with self._path(team).open("ab") as out:
            for charge in charges:
                body = _encode(charge)
                out.write(len(body).to_bytes(_LENGTH_BYTES, "big"))
                out.write(body)

    def read(self, team: str) -> Iterator[Charge]:
        """A team's charges in the order in which they were appended."""
        path = self._path(team)
        if not path.exists():
            return
        with path.open("rb") as source:
            while length := source.read(_LENGTH_BYTES):
                yield _decode(source.read(int.from_bytes(length, "big")))

    def close(self) -> None:
        """Delete the files."""
        self._directory.cleanup()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _path(self, team: str) -> Path:
        """Team ids come from events and may hold anything: their digest is a safe file name."""
        return Path(self._directory.name) / hashlib.sha256(team.encode()).hexdigest()
