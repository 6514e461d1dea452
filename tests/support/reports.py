"""The real reports over stores held in memory, for tests that need statements but no storage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.config.model import Config
from shared.ledger.coverage import DEFAULT_WAIT
from shared.ledger.periods import Closing
from shared.reports.building import Ledger, StatementBuilder
from shared.reports.formats import ASKED, FORMATS, Format
from shared.reports.publishing import Publisher
from shared.reports.service import Reports


class MemoryFiles:
    """Files, held in a dict: {name: (bytes, media type)}."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, str]] = {}
        self.swept: list[str] = []

    async def put(self, name: str, body: bytes, media_type: str) -> None:
        self.files[name] = (body, media_type)

    async def put_file(self, name: str, path: Path, media_type: str) -> None:
        self.files[name] = (await asyncio.to_thread(path.read_bytes), media_type)

    async def put_new(self, name: str, body: bytes, media_type: str) -> bool:
        if name in self.files:
            return False
        self.files[name] = (body, media_type)
        return True

    async def replace(self, name: str, body: bytes, media_type: str, version: str | None) -> bool:
        known = await self.get(name)
        if (None if known is None else known[1]) != version:
            return False
        self.files[name] = (body, media_type)
        return True

    async def get(self, name: str) -> tuple[bytes, str] | None:
        found = self.files.get(name)
        return None if found is None else (found[0], str(hash(found[0])))

    async def chunks(self, name: str) -> AsyncIterator[bytes] | None:
        found = self.files.get(name)
        if found is None:
            return None
        body = found[0]

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 1024):
                yield body[start : start + 1024]

        return pieces()

    async def folders(self, prefix: str) -> list[str]:
        below = {name[len(prefix) :].split("/")[0] for name in self.files if name.startswith(prefix)}
        return sorted(below)

    async def sweep(self, prefix: str, keep: str, older_than: timedelta) -> int:
        self.swept.append(keep)
        return 0


class MemoryMonths:
    """How far closes are, held in a dict by (tenant, month); `frozen` are closed months of every tenant."""

    def __init__(self, frozen: Sequence[str] = ()) -> None:
        self._frozen = set(frozen)
        self.known: dict[tuple[str, str], Closing] = {}

    async def is_frozen(self, tenant: str, month: str) -> bool:
        return await self.closing(tenant, month) is not None

    async def closing(self, tenant: str, month: str) -> Closing | None:
        if month in self._frozen:
            return Closing("closed", datetime(2026, 1, 1, tzinfo=UTC), "test", "digest")
        return self.known.get((tenant, month))

    async def closings(self, tenant: str) -> dict[str, Closing]:
        return {month: each for (owner, month), each in self.known.items() if owner == tenant}

    async def freeze(self, tenant: str, month: str, who: str = "", now_utc: datetime | None = None) -> Closing:
        return self.known.setdefault((tenant, month), Closing("closing", now_utc or datetime.now(UTC), who))

    async def close(self, tenant: str, month: str, digest: str) -> None:
        known = self.known[tenant, month]
        self.known[tenant, month] = known._replace(state="closed", digest=digest)


class Settled:
    """A ledger that has everything: nothing is on its way."""

    watermark: datetime | None = datetime(9999, 1, 1, tzinfo=UTC)

    async def watermark_utc(self) -> datetime | None:
        return self.watermark

    async def notes(self, period: str, as_of_utc: datetime) -> tuple[str, ...]:
        return ()


def asked_formats() -> Mapping[str, Format]:
    """The forms that the product publishes."""
    return {name: FORMATS[name] for name in ASKED}


def reports_over(
    config: Callable[[], Config],
    ledger: Ledger,
    files: MemoryFiles | None = None,
    months: MemoryMonths | None = None,
    formats: Mapping[str, Format] | None = None,
    wait: timedelta = DEFAULT_WAIT,
) -> Reports:
    """Reports over a ledger; the rest is in memory."""
    files, months = files or MemoryFiles(), months or MemoryMonths()
    builder = StatementBuilder(ledger, months.is_frozen, wait)
    publisher = Publisher(files, asked_formats() if formats is None else formats)
    return Reports(config, builder, months, files, publisher, Settled())
