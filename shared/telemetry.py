"""Telemetry: structured logs here, traces and logs in Application Insights when it is configured.

Nothing in the product depends on it: when the exporter cannot be set up, the process says so and goes on.
"""

from __future__ import annotations

import logging
from typing import Any

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
