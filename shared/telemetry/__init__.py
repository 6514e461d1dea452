"""Telemetry: structured logs here, traces and logs in Application Insights and at OTLP endpoints when configured.

Nothing in the product depends on it: when an exporter cannot be set up, the process says so and goes on.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.ledger.row import LedgerRow
    from shared.telemetry.otlp import Otlp
    from shared.telemetry.spans import CallSpans

log = logging.getLogger("tollkeeper.telemetry")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """`time LEVEL event key=value ...`: the fields given as `extra`, which the default formatter drops."""

    def format(self, record: logging.LogRecord) -> str:
        """One line per record, with the traceback below it if there is one."""
        fields: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        text = super().format(record)
        head, newline, traceback = text.partition("\n")
        return " ".join([head, *(f"{name}={value!r}" for name, value in sorted(fields.items()))]) + newline + traceback


def log_to_stderr() -> None:
    """Readable logs for processes that no platform collects from: the laptop and the gateway."""
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValueFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("azure", "httpx"):  # they would log every request, with its address
        logging.getLogger(noisy).setLevel(logging.WARNING)


def export_to_azure_monitor(connection_string: str | None) -> bool:
    """Send traces and logs to Application Insights; whether that was set up. Without a connection string: not.

    The exporter itself reads APPLICATIONINSIGHTS_AUTHENTICATION_STRING, as the functions host does, and then sends with
    the managed identity that it names: a resource whose local authentication is off takes nothing else.
    """
    if not connection_string:
        return False
    try:
        from azure.monitor.opentelemetry import configure_azure_monitor

        configure_azure_monitor(
            connection_string=connection_string,
            logger_name="tollkeeper",
            enable_live_metrics=False,  # the host has its own, and these would look at every log record
            enable_performance_counters=False,
        )
    except (ImportError, ValueError):
        log.exception("telemetry_not_exported")
        return False
    logging.getLogger("tollkeeper").setLevel(logging.INFO)  # the workbook's records are of this level; WARNING is usual
    return True


class Telemetry:
    """What this process tells the outside of itself and of its calls. Every method is safe whatever was started."""

    def __init__(self) -> None:
        self._otlp: Otlp | None = None
        self._calls: list[CallSpans] = []

    def start(
        self,
        connection_string: str | None,
        otlp_signals: Collection[str],
        *,
        with_people: bool,
        calls_to_azure: bool = False,
    ) -> None:
        """Export to Application Insights and to OTLP endpoints, as far as they are configured and can be set up.

        Application Insights gets log records, with `calls_to_azure` a span of each call too, which it bills by size.
        """
        atexit.register(self.close)  # the platform stops a worker without asking its services
        if export_to_azure_monitor(connection_string) and calls_to_azure:
            self._calls.append(_azure_calls(with_people=with_people))
        if not otlp_signals:
            return
        try:
            from shared.telemetry.otlp import Otlp

            otlp = Otlp()
            otlp.start(otlp_signals, with_people=with_people)
        except Exception:  # a mistyped variable, a missing package: billing goes on without
            log.exception("telemetry_not_exported")
            return
        self._otlp = otlp
        if otlp.calls is not None:
            self._calls.append(otlp.calls)

    @property
    def tells_calls(self) -> bool:
        """Whether anybody wants to hear of single calls."""
        return bool(self._calls)

    def billed(self, rows: Sequence[LedgerRow]) -> None:
        """Tell of calls in rows that were just inserted, once their tokens are known. Never waits, never raises."""
        if self._calls and (told := [row for row in rows if row.kind in ("usage", "true_up")]):
            self.unmeasured(told)

    def unmeasured(self, rows: Sequence[LedgerRow]) -> None:
        """Tell of accrued calls whose tokens nobody will name any more: at their estimate, which they say."""
        for calls in self._calls:
            calls.add(rows)

    def close(self, timeout_seconds: float = 3.0) -> None:
        """Send what waits, for so long at most."""
        for calls in self._calls:
            calls.close(timeout_seconds / 2)
        self._calls = []
        if self._otlp is not None:
            self._otlp.close(timeout_seconds / 2)
            self._otlp = None


def _azure_calls(*, with_people: bool) -> CallSpans:
    """Spans by the provider that Azure's package has set up; it gives ids of its own."""
    from opentelemetry.trace import get_tracer

    from shared.telemetry import names
    from shared.telemetry.spans import CallSpans, RowIds

    return CallSpans(get_tracer("tollkeeper", schema_url=names.SCHEMA_URL), RowIds(), with_people=with_people)
