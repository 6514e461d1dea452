"""What the export says of itself: one manifest per part, each naming the digest of the one before.

So a part or a manifest that is missing, altered or exchanged shows, without trusting whoever keeps the files. Only what
was cut off at the end does not: compare the newest digest with the one that the nightly run logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Literal, NamedTuple

import msgspec

from shared.errors import TollkeeperError

FOLDER = "manifests/"
_encode = msgspec.json.Encoder(order="deterministic").encode


class RecordBroken(TollkeeperError):
    """The export is not what was written; the message names the file. Nothing of it may be restored."""

    code, http_status, kind = "record_broken", 409, "invalid_request_error"


class Sums(msgspec.Struct, kw_only=True):
    """What a part's rows add up to."""

    rows: int = 0
    cost_nano_usd: int = 0  # of the rows whose cost is known
    charge_nano_usd: int = 0
    unpriced: int = 0  # rows whose cost is unknown


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One part: a further set of rows of a day, or a small table as it stood."""

    format: Literal[1] = 1
    number: int  # from 1, without gaps
    previous: str  # sha256 of the manifest before, as hex; empty in the first
    written_at_utc: datetime
    kind: Literal["day", "table"]
    name: str  # the day, `2026-11-20`, or the table
    part: int  # of this day or table, from 1
    blob: str  # empty: the day was looked at again and had no further rows
    bytes: int
    sha256: str
    sums: Sums
    hours: dict[str, str] = msgspec.field(default_factory=dict)  # hour -> generation of its rollup when it was read


class Written(NamedTuple):
    """A manifest with its own digest."""

    manifest: Manifest
    digest: str  # sha256 of its bytes, as hex


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest."""
    return _encode(manifest)


def blob_name(number: int) -> str:
    """The file of the manifest with this number. Names sort like numbers."""
    return f"{FOLDER}{number:08d}.json"


def digest_of(body: bytes) -> str:
    """The digest by which the next manifest names this one."""
    return sha256(body).hexdigest()


def check_chain(files: Mapping[str, bytes]) -> list[Written]:
    """All manifests, first to last. Raises RecordBroken naming the first that is missing or was altered."""
    chain: list[Written] = []
    previous = ""
    for number in range(1, len(files) + 1):
        name = blob_name(number)
        body = files.get(name)
        if body is None:
            raise RecordBroken(f"{name}: is missing, although later ones are there")
        try:
            manifest = msgspec.json.decode(body, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RecordBroken(f"{name}: is no manifest: {error}") from None
        if manifest.number != number or manifest.previous != previous:
            raise RecordBroken(f"{name}: does not follow the manifest before it: one of the two was altered")
        previous = digest_of(body)
        chain.append(Written(manifest, previous))
    return chain


def exported_hours(chain: Sequence[Written], day: str) -> dict[str, str]:
    """The newest generation of each hour of a day that the export holds."""
    hours: dict[str, str] = {}
    for manifest, _ in chain:
        if manifest.kind == "day" and manifest.name == day:
            hours |= manifest.hours
    return hours


def parts_of(chain: Sequence[Written], kind: str, name: str) -> list[Manifest]:
    """The parts of a day or a table, first to last."""
    return [manifest for manifest, _ in chain if (manifest.kind, manifest.name) == (kind, name)]
