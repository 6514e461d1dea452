"""Whether each dependency answers, asked all at once and within a deadline."""

from __future__ import annotations

import asyncio
import logging
import time
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
    """Runs the probes; one that takes longer than the deadline counts as unavailable.

    Anybody may ask, so one round of probes serves all who ask within `remember_seconds`: a flood of questions must not
    become a flood on the stores.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        config_version: Callable[[], str],
        timeout_seconds: float = 2.0,
        remember_seconds: float = 2.0,
    ) -> None:
        self._probes = dict(probes)
        self._config_version = config_version
        self._timeout_seconds = timeout_seconds
        self._remember_seconds = remember_seconds
        self._asking = asyncio.Lock()
        self._last: tuple[float, Health] | None = None

    async def check(self) -> Health:
        """The state of all dependencies, at most `remember_seconds` old. Never raises for one that is down."""
        async with self._asking:
            if self._last is None or time.monotonic() - self._last[0] >= self._remember_seconds:
                states = await asyncio.gather(*(self._state(name, probe) for name, probe in self._probes.items()))
                health = Health(dict(zip(self._probes, states, strict=True)), self._config_version())
                self._last = (time.monotonic(), health)
            return self._last[1]

    async def _state(self, name: str, probe: Probe) -> str:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await probe()
        except Exception:
            log.exception("health_probe_failed", extra={"dependency": name})
            return "unavailable"
        return "ok"
