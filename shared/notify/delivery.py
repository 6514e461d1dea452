"""Delivery: every notice to every route that wants it, at least once, however often a worker dies over it.

A worker claims a notice, sends it to its routes side by side and keeps after each what came of it. A crash between
sending and keeping repeats that one message; nothing else does. Runs on a timer, never on the way of a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from shared.config.model import AlertRoute
from shared.notify.notice import UNROUTED_AFTER, Notice, Progress
from shared.notify.outbox import Outbox
from shared.notify.post import DeliveryFailed
from shared.notify.routes import destinations

log = logging.getLogger("tollkeeper.notify")

NOTICES_PER_RUN = 200
NOTICES_AT_ONCE = 8  # of which a destination that is away keeps each busy for one timeout at most
CLAIM_SECONDS = 120  # longer than the slowest channel takes to fail


class Sender(Protocol):
    """One attempt at one route; raises DeliveryFailed."""

    async def send(self, route: AlertRoute, notice: Notice) -> None: ...


class DeliveryReport(NamedTuple):
    """What a run did, in messages."""

    sent: int
    failed: int
    given_up: int


class Delivery:
    """Empties the outbox. Several at once are harmless: a notice is claimed by one."""

    def __init__(
        self,
        outbox: Outbox,
        routes: Callable[[], Iterable[AlertRoute]],
        sender: Sender,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._routes = routes
        self._sender = sender
        self._now = now

    async def run(self) -> DeliveryReport:
        """Try what is due. A destination that is away is tried once in a run; its other notices stay due."""
        run = _Run(self._outbox, list(self._routes()), self._sender, self._now)
        limit = asyncio.Semaphore(NOTICES_AT_ONCE)

        async def one(notice: Notice) -> None:
            async with limit:
                await run.deliver(notice)

        async with asyncio.TaskGroup() as tasks:
            due = [notice for notice in await self._outbox.unclaimed(self._now()) if run.is_due(notice)]
            for notice in due[:NOTICES_PER_RUN]:
                tasks.create_task(one(notice))
        return DeliveryReport(run.sent, run.failed, run.given_up)


class _Run:
    """One run: what it counted, and which destinations were found to be away."""

    def __init__(self, outbox: Outbox, routes: list[AlertRoute], sender: Sender, now: Callable[[], datetime]) -> None:
        self._outbox = outbox
        self._routes = routes
        self._sender = sender
        self._now = now
        self._away: set[str] = set()
        self.sent = self.failed = self.given_up = 0

    def is_due(self, notice: Notice) -> bool:
        """Whether there is anything to do about the notice now: to send, to put away, or to forget."""
        wanted, now = destinations(notice, self._routes), self._now()
        if not wanted:
            return bool(notice.progress) or now - datetime.fromisoformat(notice.added_at) >= UNROUTED_AFTER
        states = [notice.progress.get(name, Progress()) for name in wanted]
        return any(state.is_due(now) for state in states) or all(state.is_over for state in states)

    async def deliver(self, notice: Notice) -> None:
        """Send one notice to the routes that are due, unless another worker has it."""
        wanted, now = destinations(notice, self._routes), self._now()
        if not wanted:
            await self._forget(notice)
            return
        todo = {
            name: route
            for name, route in wanted.items()
            if name not in self._away and notice.progress.get(name, Progress()).is_due(now)
        }
        if todo:
            claimed = await self._outbox.claim(notice, now, CLAIM_SECONDS)
            if claimed is None:
                return
            attempt = _Attempt(self._outbox, claimed)
            await asyncio.gather(*(self._try(attempt, name, route) for name, route in todo.items()))
            if attempt.lost:
                return
            notice = attempt.notice
        await self._close(notice, wanted)

    async def _try(self, attempt: _Attempt, name: str, route: AlertRoute) -> None:
        before = attempt.notice.progress.get(name, Progress())
        try:
            await self._sender.send(route, attempt.notice)
        except DeliveryFailed as error:
            after = self._failed(attempt.notice, name, before, error)
        except Exception as error:  # of one channel, such as no token: the other routes must not wait for it
            log.exception("notice_channel_broken", extra={"route": name})
            failure = DeliveryFailed(f"the channel failed ({type(error).__name__})", outage=True)
            after = self._failed(attempt.notice, name, before, failure)
        else:
            after = before.sent(self._now())
            self.sent += 1
        await attempt.keep(name, after)

    def _failed(self, notice: Notice, name: str, before: Progress, error: DeliveryFailed) -> Progress:
        if error.outage:
            self._away.add(name)
        after = before.failed(self._now(), error.reason, error.retry_after_seconds)
        fields = {"notice": notice.digest, "kind": notice.kind, "route": name, "attempts": after.attempts}
        self.failed += 1
        if after.given_up_at:
            self.given_up += 1
            log.error("notice_given_up", extra={**fields, "reason": after.error})
        else:
            log.warning("notice_not_delivered", extra={**fields, "reason": after.error, "next": after.next_try_at})
        return after

    async def _close(self, notice: Notice, wanted: Iterable[str]) -> None:
        """Put the notice away when no route is left, else let it wait for the next try."""
        states = [notice.progress.get(name, Progress()) for name in wanted]
        if not all(state.is_over for state in states):
            if notice.claimed_until:
                await self._outbox.record(notice, notice.progress, release=True)
        elif any(state.given_up_at for state in states):
            await self._outbox.give_up(notice)
        else:
            await self._outbox.mark_sent(notice.id)

    async def _forget(self, notice: Notice) -> None:
        """No route wants it, and has not for days: nobody is told, but the log."""
        if not any(each.sent_at for each in notice.progress.values()):
            log.warning("notice_without_route", extra={"notice": notice.digest, "kind": notice.kind})
        await self._outbox.mark_sent(notice.id)


class _Attempt:
    """A claimed notice while its routes are tried: each result is kept at once, one after the other."""

    def __init__(self, outbox: Outbox, notice: Notice) -> None:
        self._outbox = outbox
        self._lock = asyncio.Lock()
        self.notice = notice
        self.lost = False  # the claim ran out and somebody else has the notice now

    async def keep(self, name: str, progress: Progress) -> None:
        """Keep what came of one route."""
        async with self._lock:
            if self.lost:
                return
            kept = await self._outbox.record(self.notice, {**self.notice.progress, name: progress})
            if kept is None:
                self.lost = True
            else:
                self.notice = kept
