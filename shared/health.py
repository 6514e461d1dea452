"""Whether each dependency answers, asked all at once and within a deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

log = logging.getLogger("tollkeeper.health")

Probe = Callable[[], Awaitable[Any]]
"""Returns when its dependency works, raises when it does not."""


class Health(msgspec.Struct, frozen=True):
    """The state of every dependency: `ok` or `unavailable`."""

    dependencies: Mapping[str, str]
    config_version: str

    @property
    def ok(self) -> bool:
        """Whether all of them answered."""
        return all(state == "ok" for state in self.dependencies.values())

    def body(self) -> dict[str, Any]:
        """What anybody may know: states, and which configuration is in force. No addresses, no error texts."""
        return {
            "status": "ok" if self.ok else "unavailable",
            "dependencies": dict(self.dependencies),
            "config_version": self.config_version,
        }


class HealthService:
    """Runs the probes; one that takes longer than the deadline counts as unavailable."""

    def __init__(
        self, probes: Mapping[str, Probe], config_version: Callable[[], str], timeout_seconds: float = 2.0
    ) -> None:
        self._probes = dict(probes)
        self._config_version = config_version
        self._timeout_seconds = timeout_seconds

    async def check(self) -> Health:
        """The state of all dependencies. Never raises for one that is down."""
        states = await asyncio.gather(*(self._state(name, probe) for name, probe in self._probes.items()))
        return Health(dict(zip(self._probes, states, strict=True)), self._config_version())

    async def _state(self, name: str, probe: Probe) -> str:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await probe()
        except Exception:
            log.exception("health_probe_failed", extra={"dependency": name})
            return "unavailable"
        return "ok"
