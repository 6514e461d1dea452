"""Billed calls become spans, on a thread of its own and behind a bounded queue: ingest never waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.telemetry import names
from shared.telemetry.calls import call_attributes, span_ids, span_name, span_times

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from shared.ledger.row import LedgerRow

log = logging.getLogger("tollkeeper.telemetry")

CALLS_WAITING = 20_000  # some 20 MB at most
CALLS_AT_ONCE = 20  # some 2 ms of work between two rests, so that a budget check in this process hardly waits
# Making a span takes 0.1 to 0.15 ms, encoding it on the exporter's thread twice as long. Resting 25 times as long as
# the making took keeps both near a tenth of the time, however busy the machine is: some hundred calls a second.
REST = 25


class RowIds:
    """Gives the SDK the ids of the row in hand. One thread makes all spans of a tracer."""

    def __init__(self) -> None:
        self.next = (1, 1)

    def generate_trace_id(self) -> int:
        """128 bits."""
        return self.next[0]

    def generate_span_id(self) -> int:
        """64 bits."""
        return self.next[1]

    def is_trace_id_random(self) -> bool:
        """They follow from the call: samplers must not take them for chance."""
        return False


class CallSpans:
    """Makes spans of billed calls on a thread of its own, at a pace that leaves the process to its work."""

    def __init__(self, tracer: Tracer, ids: RowIds, *, with_people: bool) -> None:
        self._tracer = tracer
        self._ids = ids
        self._with_people = with_people
        self._waiting: deque[LedgerRow] = deque()
        self._wake = threading.Event()
        self._rest = threading.Event()  # set: none any more
        self._stopping = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="tollkeeper-spans", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Take rows of calls. Never waits; what has no room is dropped, counted and logged once."""
        room = max(0, CALLS_WAITING - len(self._waiting))
        if len(rows) > room:
            if not self.dropped:
                log.warning("telemetry_dropped", extra={"calls": len(rows) - room})
            self.dropped += len(rows) - room
        self._waiting.extend(rows[:room])
        self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Make spans of what waits, without rests, for so long at most."""
        self._stopping = True
        self._rest.set()
        self._wake.set()
        self._thread.join(timeout_seconds)
        self._waiting.clear()

    def _run(self) -> None:
        while not (self._stopping and not self._waiting):
            if not self._waiting:
                self._wake.wait()
                self._wake.clear()
            begun = time.monotonic()
            made = 0
            while self._waiting and made < CALLS_AT_ONCE:
                self._span(self._waiting.popleft())
                made += 1
            self._rest.wait(REST * (time.monotonic() - begun))

    def _span(self, row: LedgerRow) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, StatusCode

        try:
            self._ids.next = span_ids(row)
            start, end = span_times(row)
            span = self._tracer.start_span(span_name(row), Context(), SpanKind.CLIENT, start_time=start)
            if span.is_recording():  # else the sampler left it out, which is to cost next to nothing
                attributes = call_attributes(row, with_people=self._with_people)
                span.set_attributes(attributes)
                if names.ERROR_TYPE in attributes:
                    span.set_status(StatusCode.ERROR)
            span.end(end)
        except Exception:  # of one call: the thread must live on, or all later ones were lost
            log.exception("telemetry_failed", extra={"event": row.id})
