"""The LLM log: tokens that the gateway read from the passing bytes, published late and untidily."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local.apim.expressions import BUFFER_LIMIT_BYTES
from local.apim.messages import json_object
from local.apim.recent import Recent
from local.apim.settings import LlmLog

if TYPE_CHECKING:
    from local.apim.call import Call

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DEPLOYMENT = re.compile(r"/deployments/([^/?]+)/")

Publish = Callable[[bytes], Awaitable[None]]


@dataclass
class Watch:
    """Reads one answer on its way to the client."""

    is_stream: bool
    keeps_texts: bool
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    is_complete: bool = False
    texts: list[str] = field(default_factory=list)
    _held: bytes = b""

    def feed(self, piece: bytes) -> None:
        """The next bytes of the body."""
        self._held += piece
        if self.is_stream:
            while (end := _EVENT_END.search(self._held)) is not None:
                event, self._held = self._held[: end.start()], self._held[end.end() :]
                self._read_event(event)
        if len(self._held) > BUFFER_LIMIT_BYTES:
            self._held = b""

    def finish(self) -> None:
        """The body is complete."""
        self.is_complete = True
        if self.is_stream:
            self._read_event(self._held)
        else:
            self._read(self._held)
        self._held = b""

    def _read_event(self, event: bytes) -> None:
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if data and data != b"[DONE]":
            self._read(data)

    def _read(self, data: bytes) -> None:
        answer = json_object(data)
        # A Responses stream carries the whole response, usage and all, in its last event.
        nested = answer.get("response")
        source = nested if isinstance(nested, dict) else answer
        self.model = str(source.get("model") or self.model)
        if self.keeps_texts:
            self.texts.append(data.decode("utf-8", "replace"))
        if isinstance(usage := source.get("usage"), dict):
            self.prompt_tokens = _count(usage, "prompt_tokens", "input_tokens")
            self.completion_tokens = _count(usage, "completion_tokens", "output_tokens")
            self.total_tokens = _count(usage, "total_tokens") or self.prompt_tokens + self.completion_tokens


class LlmLogWriter:
    """Holds records back, then publishes several calls' at once, now and then the same message twice."""

    def __init__(self, options: LlmLog, publish: Publish) -> None:
        self._options = options
        self._publish = publish
        self._waiting: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._messages = itertools.count(1)
        self._flush: asyncio.Task[None] | None = None
        self.records: list[dict[str, Any]] = Recent()  # everything written, each once

    def write(self, call: Call, watch: Watch | None, *, aborted: bool) -> None:
        """The records of a call that is over."""
        records = [_gateway_record(call, aborted=aborted)]
        if watch is not None:
            records = [*_llm_records(call, watch, self._options), *records]
        # Nothing promises an order or a spelling; consumers that rely on one fail here first.
        number = next(self._numbers)
        records = [_respelled(record, number) for record in (reversed(records) if number % 2 else records)]
        self.records += records
        self._waiting += records
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._publish_later())

    async def settle(self) -> None:
        """Return when every record so far is published."""
        while self._flush is not None and not self._flush.done():
            await asyncio.shield(self._flush)

    async def _publish_later(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._options.delay_seconds)
            batch, self._waiting = self._waiting, []
            size = max(1, self._options.calls_per_message) * 3
            for start in range(0, len(batch), size):
                message = json.dumps({"records": batch[start : start + size]}).encode()
                await self._publish(message)
                every = self._options.duplicate_every
                if every and next(self._messages) % every == 0:
                    await self._publish(message)


def _llm_records(call: Call, watch: Watch, options: LlmLog) -> list[dict[str, Any]]:
    request = json_object(call.request.body)
    deployment = _DEPLOYMENT.search(call.request.backend_path)
    common = {
        "requestId": str(call.request_id),
        "modelName": watch.model or str(request.get("model") or ""),
        "deploymentName": deployment[1] if deployment else str(request.get("model") or ""),
        "apiVersion": dict(call.request.query()).get("api-version", ""),
        "isStreamCompletion": watch.is_stream,
        "region": call.gateway.options.region,
    }
    first: dict[str, Any] = {**common, "sequenceNumber": 0}
    # An answer that broke off has no counts: its last chunk, which would carry them, never came.
    complete = watch.is_complete
    tokens = {
        "promptTokens": watch.prompt_tokens if complete else 0,
        "completionTokens": watch.completion_tokens if complete else 0,
        "totalTokens": watch.total_tokens if complete else 0,
    }
    second: dict[str, Any] = {**common, **tokens, "sequenceNumber": 1}
    if options.messages:
        first["requestMessages"] = (call.request.body or b"").decode("utf-8", "replace")
        second["responseMessages"] = "".join(watch.texts)
    return [_record(call, "GatewayLlmLogs", properties) for properties in (first, second)]


def _gateway_record(call: Call, *, aborted: bool) -> dict[str, Any]:
    response, failure = call.response, call.failure
    status = response.status if response is not None else 0
    reason = "ClientConnectionFailure" if aborted else failure.reason if failure is not None else None
    succeeded = reason is None and status < 400
    properties: dict[str, Any] = {
        "method": call.request.method,
        "url": call.request.original_url.partition("?")[0],  # a query may carry a key
        "responseCode": status,
        "apiId": call.gateway.policy.api.id,
        "operationId": call.operation.id if call.operation else None,
        "isRequestSuccess": succeeded,
    }
    if reason is not None:
        section = failure.section if failure is not None and not aborted else "backend"
        source = failure.source if failure is not None and not aborted else "transfer-response"
        properties["lastErrorReason"] = reason
        properties["lastError"] = {"reason": reason, "section": section, "source": source}
    return _record(call, "GatewayLogs", properties)


def _record(call: Call, category: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "category": category,
        "operationName": f"Microsoft.ApiManagement/{category}",
        "correlationId": str(call.request_id),
        "properties": properties,
    }


def _respelled(record: dict[str, Any], number: int) -> dict[str, Any]:
    if number % 3 == 0:
        return {**record, "properties": {name[:1].upper() + name[1:]: v for name, v in record["properties"].items()}}
    return record


def _count(usage: dict[str, Any], *names: str) -> int:
    return next((usage[name] for name in names if isinstance(usage.get(name), int)), 0)
