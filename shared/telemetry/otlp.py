"""Spans, metrics and logs to OTLP/HTTP endpoints, by OpenTelemetry's standard environment variables.

Everything here runs on daemon threads behind bounded queues. Nothing raises into the product and nothing waits: what
does not fit, or cannot be sent, is dropped and counted. Endpoints, headers, timeouts, batch sizes and samplers are read
by the SDK itself, from the variables that its documentation names.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from shared.telemetry import names
from shared.telemetry.calls import TOLD, call_attributes, span_ids, span_name, span_times

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Tracer

    from shared.ledger.row import LedgerRow

log = logging.getLogger("tollkeeper.telemetry")

CALLS_WAITING = 20_000  # some 20 MB at most
CALLS_AT_ONCE = 50  # about 5 ms of work between two rests, so that a budget check in this process hardly waits
CALLS_PER_SECOND = 1_000  # about a tenth of a core; more are dropped once the queue is full
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SEVERITIES = {logging.DEBUG: 5, logging.INFO: 9, logging.WARNING: 13, logging.ERROR: 17, logging.CRITICAL: 21}


class Otlp:
    """What was started of it. `close` flushes for a moment and stops."""

    def __init__(self) -> None:
        self.calls: CallSpans | None = None
        self._closing: list[Callable[[], Any]] = []
        self._handlers: list[logging.Handler] = []

    def start(self, signals: Collection[str], *, with_people: bool) -> None:
        """Start `traces`, `metrics` and `logs` as named. Raises what the SDK raises for a variable it cannot read."""
        resource = _resource()
        if "traces" in signals:
            self._start_traces(resource, with_people=with_people)
        if "metrics" in signals:
            self._start_metrics(resource)
        if "logs" in signals:
            self._start_logs(resource)
        _calm_exporters()

    def close(self, timeout_seconds: float) -> None:
        """Send what waits, for so long at most; then the process may end, whatever the endpoint does."""
        for handler in self._handlers:
            logging.getLogger("tollkeeper").removeHandler(handler)
        deadline = time.monotonic() + timeout_seconds
        if self.calls is not None:
            self.calls.close(timeout_seconds / 2)
        threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in self._closing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start_traces(self, resource: Resource, *, with_people: bool) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        ids = _row_ids()
        provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        tracer = provider.get_tracer("tollkeeper", schema_url=names.SCHEMA_URL)
        self.calls = CallSpans(tracer, ids, with_people=with_people)
        self._closing.append(provider.shutdown)

    def _start_metrics(self, resource: Resource) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        from shared.telemetry.figures import RecordMetrics

        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._listen(RecordMetrics(provider.get_meter("tollkeeper")))
        self._closing.append(provider.shutdown)

    def _start_logs(self, resource: Resource) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self._listen(_LogSender(provider))
        self._closing.append(provider.shutdown)

    def _listen(self, handler: logging.Handler) -> None:
        logger = logging.getLogger("tollkeeper")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        self._handlers.append(handler)


class CallSpans:
    """Makes spans of billed calls on a thread of its own, at a pace that leaves the process to its work."""

    def __init__(self, tracer: Tracer, ids: Any, *, with_people: bool) -> None:
        self._tracer = tracer
        self._ids = ids
        self._with_people = with_people
        self._waiting: deque[LedgerRow] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="tollkeeper-spans", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[LedgerRow]) -> None:
        """Take rows that were just inserted. Never waits; what has no room is dropped, counted and logged once."""
        told = [row for row in rows if row.kind in TOLD]
        room = CALLS_WAITING - len(self._waiting)
        if len(told) > room:
            if not self.dropped:
                log.warning("telemetry_dropped", extra={"calls": len(told) - max(room, 0)})
            self.dropped += len(told) - max(room, 0)
            told = told[: max(room, 0)]
        self._waiting.extend(told)
        self._wake.set()

    def close(self, timeout_seconds: float) -> None:
        """Make spans of what waits, without rests, for so long at most."""
        self._stopping = True
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
            if not self._stopping:
                time.sleep(max(0.0, made / CALLS_PER_SECOND - (time.monotonic() - begun)))

    def _span(self, row: LedgerRow) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, StatusCode

        try:
            self._ids.next = span_ids(row)
            start, end = span_times(row)
            attributes = call_attributes(row, with_people=self._with_people)
            span = self._tracer.start_span(
                span_name(row), Context(), SpanKind.CLIENT, attributes=attributes, start_time=start
            )
            if names.ERROR_TYPE in attributes:
                span.set_status(StatusCode.ERROR)
            span.end(end)
        except Exception:  # of one call: the thread must live on, or all later ones were lost
            log.exception("telemetry_failed", extra={"event": row.id})


class _OnceAMinute(logging.Filter):
    """An exporter says of every batch that it failed: in an outage once a minute is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is let through."""
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + 60
        return True


def _calm_exporters() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("opentelemetry.exporter.otlp"):
            logger = logging.getLogger(name)
            if not any(isinstance(each, _OnceAMinute) for each in logger.filters):
                logger.addFilter(_OnceAMinute())


def _resource() -> Resource:
    """Of this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before our own name."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    return Resource({"service.name": "tollkeeper"}).merge(OTELResourceDetector().detect())


def _row_ids() -> Any:
    """An id generator that gives the ids of the row in hand. One thread makes all spans."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class RowIds(IdGenerator):
        next = (1, 1)

        def generate_trace_id(self) -> int:
            return self.next[0]

        def generate_span_id(self) -> int:
            return self.next[1]

    return RowIds()


class _LogSender(logging.Handler):
    """Hands log records with their fields to the exporter's queue."""

    def __init__(self, provider: Any) -> None:
        super().__init__(logging.INFO)
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record; a traceback goes as its text."""
        from opentelemetry._logs import LogRecord, SeverityNumber

        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        attributes = {k: v if isinstance(v, str | int | float | bool) else str(v) for k, v in fields.items()}
        if record.exc_info and record.exc_info[0]:
            attributes["exception.type"] = record.exc_info[0].__name__
            attributes["exception.stacktrace"] = _FORMATTER.formatException(record.exc_info)
        self._provider.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                observed_timestamp=time.time_ns(),
                severity_text=record.levelname,
                severity_number=SeverityNumber(_SEVERITIES.get(record.levelno, 9)),
                body=record.getMessage(),
                attributes=attributes,
            )
        )


_FORMATTER = logging.Formatter()
