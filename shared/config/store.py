"""The configuration in force in this process: read from memory, replaced in the background, never by a bad version."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from shared.config.loader import config_version, load_config
from shared.config.model import Config
from shared.errors import StateUnavailable, TollkeeperError

if TYPE_CHECKING:
    from shared.config.source import ConfigSource

log = logging.getLogger(__name__)


class ConfigStore:
    """Holds the last good configuration and keeps it fresh."""

    def __init__(
        self,
        source: ConfigSource,
        poll_seconds: float = 15,
        on_rejected: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[Config], Config] | None = None,
    ) -> None:
        """`on_rejected` is told the problems of each bad version once; by default they are logged as an error.

        `prepare` is applied to each version before it comes into force.
        """
        self._prepare = prepare
        self._source = source
        self._poll_seconds = poll_seconds
        self._on_rejected = on_rejected or (lambda problems: log.error("configuration refused:\n%s", problems))
        self._clock = clock
        self._config: Config | None = None
        self._refused: str | None = None  # version or reason of the last refusal, so that it is told once
        self._problem: str | None = None
        self._read_at: float | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def current(self) -> Config:
        """The configuration in force: a memory read. Raises StateUnavailable before the first `load`."""
        if self._config is None:
            raise StateUnavailable("the configuration is not loaded yet", retry_after_seconds=1)
        return self._config

    @property
    def last_problem(self) -> str | None:
        """Why the newest version is not in force; None when it is."""
        return self._problem

    async def load(self) -> Config:
        """The first load. Raises ConfigInvalid or StateUnavailable: a process without configuration must not serve."""
        files = await self._source.fetch()
        self._take(await self._parse(files))
        return self.current

    async def refresh(self, *, force: bool = False) -> bool:
        """Read the source when the poll time has passed (`force`: now); True when a new version came into force.

        Never raises for a bad or unreachable version: the last good one stays, and the problem is told once.
        """
        if not force and self._read_at is not None and self._clock() - self._read_at < self._poll_seconds:
            return False
        self._read_at = self._clock()
        version = ""
        try:
            files = await self._source.fetch()
            version = config_version(files)
            if self._config is not None and version == self._config.version:
                self._problem = self._refused = None
                return False
            if version == self._refused:
                return False
            self._take(await self._parse(files))
        except TollkeeperError as error:
            self._reject(version or error.message, error.message)
            return False
        log.info("configuration version %s is in force", version[:12])
        return True

    def refresh_if_due(self) -> None:
        """Make sure that this process polls in the background; costs nothing when it does, never waits.

        The poller runs between calls too, so that a worker that idled for an hour does not decide its first call by
        an old configuration. Needs a running event loop.
        """
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll(), name="config-poll")

    async def close(self) -> None:
        """Stop polling and let go of the source."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
            self._poller = None
        await self._source.close()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            await self.refresh(force=True)

    async def _parse(self, files: Mapping[str, bytes]) -> Config:
        """Off the event loop: a thousand team files take a second, and calls must not wait for them."""
        return await asyncio.to_thread(load_config, files, self._source.root)

    def _take(self, config: Config) -> None:
        config = config if self._prepare is None else self._prepare(config)
        self._config = msgspec.structs.replace(config, loaded_at_utc=datetime.now(UTC))
        self._read_at = self._clock()
        self._problem = self._refused = None
        for edit in config.edits.values():
            if edit.superseded is not None:
                log.warning("the edit of budget %s by %s does not hold: %s", edit.budget, edit.who, edit.superseded)

    def _reject(self, what: str, problems: str) -> None:
        self._problem = problems
        if what != self._refused:
            self._refused = what
            self._on_rejected(problems)
