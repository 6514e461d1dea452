"""An app with all its triggers as one ASGI application, whose lifespan starts and stops them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from local.functions_host.eventhub import EventHubTrigger
from local.functions_host.functions import Function, load_app
from local.functions_host.host_json import HostSettings, read_host_json
from local.functions_host.http import HttpTriggers, Receive, Scope, Send
from local.functions_host.timers import TimerTrigger

logger = logging.getLogger("tollkeeper.local.functions")


class Host:
    """Hosts one `function_app.py`."""

    def __init__(self, app_path: Path, env: Mapping[str, str] = os.environ) -> None:
        """Load the app and the host.json beside it. Raises AppError or ValueError when it cannot be hosted."""
        host_json = app_path.parent / "host.json"
        self.settings = read_host_json(host_json) if host_json.exists() else HostSettings()
        self.functions = {function.name: function for function in load_app(app_path)}
        self._http = HttpTriggers(
            self._triggered_by("httpTrigger"), self.settings.route_prefix, self.settings.custom_headers
        )
        self._triggers: list[EventHubTrigger | TimerTrigger] = [
            EventHubTrigger(function, self.settings, env) for function in self._triggered_by("eventHubTrigger")
        ]
        self._triggers += [TimerTrigger(function, env) for function in self._triggered_by("timerTrigger")]
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    def start(self) -> None:
        """Start the triggers that are not HTTP; needs a running event loop."""
        self._tasks = [asyncio.create_task(trigger.run()) for trigger in self._triggers]
        for task in self._tasks:
            task.add_done_callback(_report_end)

    async def stop(self) -> None:
        """Stop the triggers, letting calls that are running end first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _triggered_by(self, trigger_type: str) -> list[Function]:
        return [function for function in self.functions.values() if function.trigger_type == trigger_type]

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _report_end(task: asyncio.Task[None]) -> None:
    """A trigger ends only by being cancelled; anything else would otherwise go unseen until shutdown."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("a trigger ended", exc_info=task.exception())
