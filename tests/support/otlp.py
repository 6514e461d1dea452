"""A receiver of OTLP/HTTP: a real server that decodes what exporters send, and keeps it in small dicts."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_server import Reply, Request, serving


class Collector:
    """What arrived, and how it answers: `status`, after `wait_seconds` or once it is released."""

    def __init__(self) -> None:
        self.address = ""
        self.status = 200
        self.wait_seconds = 0.0
        self.released = Event()
        self.requests: list[Request] = []
        self.spans: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        self.metrics: dict[str, list[tuple[dict[str, Any], float]]] = {}
        self.resources: list[dict[str, Any]] = []

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        self.released.wait(self.wait_seconds)
        if self.status == 200:
            body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
            {"traces": self._traces, "metrics": self._metrics, "logs": self._logs}[request.path.split("/")[-1]](body)
        return Reply(status=self.status)

    def _traces(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_attributes(group.resource.attributes))
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        {
                            "name": span.name,
                            "kind": span.kind,
                            "trace_id": span.trace_id.hex(),
                            "start_ns": span.start_time_unix_nano,
                            "end_ns": span.end_time_unix_nano,
                            "status": span.status.code,
                            "schema": scope.schema_url,
                            "attributes": _attributes(span.attributes),
                        }
                    )

    def _metrics(self, body: bytes) -> None:
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    points = getattr(metric, metric.WhichOneof("data")).data_points
                    self.metrics[metric.name] = [(_attributes(p.attributes), p.as_double or p.as_int) for p in points]

    def _logs(self, body: bytes) -> None:
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in group.scope_logs:
                for record in scope.log_records:
                    self.logs.append(
                        {
                            "logger": scope.scope.name,
                            "body": record.body.string_value,
                            "severity": record.severity_text,
                            "attributes": _attributes(record.attributes),
                        }
                    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()
    with serving(collector.answer) as port:
        collector.address = f"http://127.0.0.1:{port}"
        yield collector


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if which == "array_value" else getattr(value, which)
