"""Notes what checks decide, and hands it on behind their back: to the live list, and refusals to the ledger.

Noting is a few dictionary look-ups: no I/O, no waiting, nothing that can fail a check. A task behind it, alive only
while something waits, does the rest. A worker that dies takes along what it had not handed on: a second of the live
list, and refusals of ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.budgets.answer import CheckAnswer
from shared.budgets.decision import Decision, decision_of, is_plain
from shared.budgets.decisions_store import DecisionStore
from shared.budgets.refused import Refusals
from shared.budgets.request import CheckRequest
from shared.config.model import Tenant
from shared.errors import TollkeeperError

if TYPE_CHECKING:
    from shared.usage.build import Publish

log = logging.getLogger("tollkeeper.decisions")

LIVE_SECONDS = 1.0
REFUSALS_SECONDS = 10.0  # each worker's like refusals of this long are one row
_PLAIN_PER_FLUSH = 5  # of each tenant, reason and state: that calls get through is worth a sample only
_LIVE_PER_FLUSH = 200  # of each tenant: the newest of a flood
_HUB_PATIENCE_SECONDS = 30.0
_LAST_PATIENCE_SECONDS = 5.0  # of a process that is stopping
_LONGEST_PAUSE_SECONDS = 60.0  # between tries while the hub is away


class DecisionLog:
    """One per process, for its event loop. Safe to note from any task of it."""

    def __init__(
        self,
        store: DecisionStore,
        publish: Publish,
        prepare: Callable[[], Awaitable[None]],
        *,
        live_seconds: float = LIVE_SECONDS,
        refusals_seconds: float = REFUSALS_SECONDS,
    ) -> None:
        """`publish` puts events onto the usage hub; `prepare` loads beforehand what it would load in the way."""
        self._store = store
        self._publish = publish
        self._prepare = prepare
        self._live_seconds = live_seconds
        self._refusals_seconds = refusals_seconds
        self._live: dict[str, deque[Decision | CheckAnswer]] = {}
        self._plain: dict[tuple[str, str, str], int] = {}  # tenant, reason, state -> calls that just passed
        self._refusals = Refusals(uuid.uuid4().hex)
        self._sealed: list[tuple[str, bytes]] = []  # refusals under way: the same bytes until the hub has them
        self._refusals_due = 0.0  # of the monotonic clock
        self._pause_seconds = 0.0
        self._live_fails = False
        self._task: asyncio.Task[None] | None = None

    def note(self, answer: CheckAnswer, request: CheckRequest, tenant: Tenant) -> None:
        """Take note of an answer. On the path of every check."""
        if is_plain(answer):
            kind = (tenant.id, answer.reason, answer.state)
            seen = self._plain.get(kind, 0)
            if seen >= _PLAIN_PER_FLUSH:
                return
            self._plain[kind] = seen + 1
        if answer.decision == "refuse" and request.attempt == 1:  # calls, not attempts
            if not len(self._refusals) and not self._sealed:
                self._refusals_due = time.monotonic() + self._refusals_seconds
            self._refusals.add(answer, request, tenant.client_asserted_scopes)
        self._keep(tenant.id, answer)

    def note_denied(self, tenant: Tenant, scopes: Mapping[str, str], model: str, code: str) -> None:
        """Take note of a call that was turned away before any budget was asked; it spared nothing that is known."""
        at_utc = datetime.now(UTC)
        denied = Decision(
            at_utc=at_utc, decision="refuse", reason=code, requested_model=model, model=model, scopes=dict(scopes)
        )
        self._keep(tenant.id, denied)

    async def close(self) -> None:
        """Hand on what there is, once; the store stays open."""
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_PATIENCE_SECONDS):
                await self._hand_on(everything=True)
        except TimeoutError:
            log.warning("refusals_left", extra={"events": len(self._sealed)})

    def _keep(self, tenant: str, noted: Decision | CheckAnswer) -> None:
        live = self._live.get(tenant)
        if live is None:
            live = self._live[tenant] = deque(maxlen=_LIVE_PER_FLUSH)
        live.append(noted)
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Hand on until nothing waits any more."""
        while self._live or len(self._refusals) or self._sealed:
            await asyncio.sleep(self._live_seconds)
            await self._hand_on(everything=False)

    async def _hand_on(self, *, everything: bool) -> None:
        try:
            await self._show()
            if everything or time.monotonic() >= self._refusals_due:
                await self._send()
        except Exception:  # a fault of ours must not end the task, and checks must not hear of it
            log.exception("decisions_failed")

    async def _show(self) -> None:
        """Put what was noted onto the live list, or let it go: a list that lags behind would not be live."""
        live, self._live = self._live, {}
        self._plain = {}
        try:
            for tenant, noted in live.items():
                entries = [one if isinstance(one, Decision) else decision_of(one) for one in noted]
                await self._store.add(tenant, entries)
            self._live_fails = False
        except Exception as error:
            from shared.budgets.redis_errors import is_outage

            if not is_outage(error):
                raise
            if not self._live_fails:  # once per outage, not once per second
                log.warning("decisions_not_shown", extra={"error": str(error) or type(error).__name__})
            self._live_fails = True

    async def _send(self) -> None:
        """Put refusals onto the hub. While it is away the same bytes wait, and later ones are summed up meanwhile."""
        if not self._sealed:
            self._sealed = self._refusals.seal()
            if lost := self._refusals.lost:
                self._refusals.lost = 0
                log.error("refusals_lost", extra={"calls": lost})
        if not self._sealed:
            return
        try:
            async with asyncio.timeout(_HUB_PATIENCE_SECONDS):
                await self._prepare()
                await self._publish(self._sealed)
        except (TollkeeperError, OSError, TimeoutError) as error:
            self._pause_seconds = min(max(1.0, 2 * self._pause_seconds), _LONGEST_PAUSE_SECONDS)
            self._refusals_due = time.monotonic() + self._pause_seconds
            log.warning("refusals_wait", extra={"events": len(self._sealed), "error": type(error).__name__})
            return
        self._sealed = []
        self._pause_seconds = 0.0
        self._refusals_due = time.monotonic() + self._refusals_seconds
