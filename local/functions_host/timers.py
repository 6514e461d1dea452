"""Timer triggers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from azure.functions.timer import TimerRequest

from local.functions_host.functions import Function, resolve_settings
from local.functions_host.ncrontab import Schedule
from local.functions_host.retries import Attempt

logger = logging.getLogger("tollkeeper.local.functions")


class TimerTrigger:
    """Calls one function on its schedule until it is stopped. A run that takes longer than the interval skips turns."""

    def __init__(self, function: Function, env: Mapping[str, str] = os.environ) -> None:
        """Raises AppError for a missing setting and ValueError for a schedule that cannot be read."""
        self._function = function
        self._schedule = Schedule.parse(resolve_settings(str(function.trigger["schedule"]), env))
        self._runs_on_startup = bool(function.trigger.get("runOnStartup"))
        self._last: datetime | None = None

    async def run(self) -> None:
        """Wait and call until cancelled."""
        if self._runs_on_startup:
            await self._call()
        while True:
            now = datetime.now(UTC)
            await asyncio.sleep((self._schedule.next_after(now) - now).total_seconds())
            await self._call()

    async def _call(self) -> None:
        policy, retry_count = self._function.retry_policy, 0
        while True:
            now = datetime.now(UTC)
            status = {"Last": (self._last or now).isoformat(), "Next": self._schedule.next_after(now).isoformat()}
            try:
                await self._function.call(TimerRequest(schedule_status=status), Attempt(retry_count, policy))
            except Exception:
                logger.exception("function %s failed, attempt %d", self._function.name, retry_count + 1)
                if not policy.allows(retry_count):
                    return
                await asyncio.sleep(policy.delay_seconds(retry_count))
                retry_count += 1
            else:
                self._last = now
                return
