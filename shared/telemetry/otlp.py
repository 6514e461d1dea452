"""Spans, metrics and logs to OTLP/HTTP endpoints, by OpenTelemetry's standard environment variables.

Everything here runs on daemon threads behind bounded queues. Nothing raises into the product and nothing waits: what
does not fit, or cannot be sent, is dropped and counted. Endpoints, headers, timeouts, batch sizes and samplers are read
by the SDK itself, from the variables that its documentation names.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

from shared.telemetry import names
from shared.telemetry.spans import CallSpans, RowIds

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SEVERITIES = {logging.DEBUG: 5, logging.INFO: 9, logging.WARNING: 13, logging.ERROR: 17, logging.CRITICAL: 21}


class Otlp:
    """What was started of it. `calls` is for whoever bills, and to be closed first; `close` flushes and stops."""

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
        threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in self._closing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start_traces(self, resource: Resource, *, with_people: bool) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        ids = RowIds()
        # mypy: the SDK's base class of id generators cannot be named before it is imported
        provider = TracerProvider(resource=resource, id_generator=cast("Any", ids), shutdown_on_exit=False)
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
