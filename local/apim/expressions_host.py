"""The process that evaluates compiled expressions, and what a call tells it.

One mono process serves all calls. It evaluates one expression at a time (tens of microseconds each); the calls of
hundreds of contexts take turns. A body crosses over only when an expression reads it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import tempfile
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import IO, Any, Self

from local.apim.expressions_compiler import Compiled

BUFFER_LIMIT_BYTES = 2 * 1024 * 1024
"""What API Management buffers of a body for policies."""

_LINE_LIMIT_BYTES = 64 * 1024 * 1024
_INT_RANGE = range(-(2**31), 2**31)
_TICKS_PER_MICROSECOND = 10

_body_ids = itertools.count(1)


class ExpressionError(Exception):
    """An expression threw: `type` is the full name of the C# exception, `message` its message."""

    def __init__(self, type_name: str, message: str, *, where: str = "", text: str = "") -> None:
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{type_name}: {message}")
        self.type = type_name
        self.message = message
        self.where = where
        self.text = text


class StreamedBodyRead(ExpressionError):
    """An expression read the body of a streamed response: in API Management the stream would stop until its end."""


class HostLostError(Exception):
    """The mono process ended or stopped answering; the message quotes what it wrote to stderr."""


@dataclass(eq=False)
class Body:
    """A message's body. The same object may be in several messages: an expression consumes it once for all of them.

    `content` may be a function that is called when an expression first reads the body; give `size` then. A body that
    is larger than BUFFER_LIMIT_BYTES is never asked for: its size is enough (`Body(b"", size=3_000_000)`).
    """

    content: bytes | Callable[[], bytes]
    streamed: bool = False
    size: int | None = None
    consumed: bool = False  # an expression read it without preserveContent
    id: str = field(default_factory=lambda: f"b{next(_body_ids)}")

    def read(self) -> bytes:
        """The bytes."""
        return self.content() if callable(self.content) else self.content

    def _as_json(self) -> dict[str, Any]:
        size = self.size if self.size is not None else 0 if self.streamed else len(self.read())
        return {"id": self.id, "size": size, "streamed": self.streamed}


@dataclass
class RequestMessage:
    """`context.Request`. URLs are absolute; without a body, `context.Request.Body` is null."""

    method: str
    url: str
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Body | None = None
    original_url: str | None = None  # as the client sent it; `url` when None
    ip_address: str = "127.0.0.1"
    matched_parameters: Mapping[str, str] = field(default_factory=dict)
    foundry_deployment: str | None = None

    def _as_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "url": self.url,
            "original_url": self.original_url,
            "headers": {name: list(values) for name, values in self.headers.items()},
            "ip_address": self.ip_address,
            "matched_parameters": dict(self.matched_parameters),
            "foundry_deployment": self.foundry_deployment,
        }


@dataclass
class ResponseMessage:
    """`context.Response`, or a variable that send-request made."""

    status_code: int
    status_reason: str = ""
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Body | None = None

    def _as_json(self) -> dict[str, Any]:
        return {
            "status_code": self.status_code,
            "status_reason": self.status_reason,
            "headers": {name: list(values) for name, values in self.headers.items()},
        }


@dataclass
class ContextParts:
    """What surrounds a call. Each part is a mapping whose keys are the members that C# shows: {"Id": ..., "Name": ...}.

    A part that is None is null in C#: a call without a subscription has no context.Subscription. Times are strings
    in RFC 3339.
    """

    request_id: uuid.UUID = field(default_factory=uuid.uuid4)
    timestamp: datetime | None = None  # now, when None
    tracing: bool = False
    api: Mapping[str, Any] | None = None
    backend: Mapping[str, Any] | None = None
    deployment: Mapping[str, Any] | None = None
    last_error: Mapping[str, Any] | None = None
    operation: Mapping[str, Any] | None = None
    product: Mapping[str, Any] | None = None
    subscription: Mapping[str, Any] | None = None
    user: Mapping[str, Any] | None = None
    workspace: Mapping[str, Any] | None = None

    def _as_json(self) -> dict[str, Any]:
        parts = {_member(name): value for name, value in asdict(self).items()}
        parts["RequestId"] = str(self.request_id)
        parts["Timestamp"] = (self.timestamp or datetime.now(UTC)).isoformat()
        return parts


@dataclass(frozen=True)
class Value:
    """What an expression returned.

    `value` is its Python form (see Context.evaluate), `text` what API Management writes where an expression stands in
    an attribute or a text, `type` the full name of the C# type, None for null.
    """

    value: Any
    text: str
    type: str | None


@dataclass(frozen=True)
class CSharpObject:
    """The Python form of an object that has none, an IResponse for example. It is useful in C# only."""

    type: str
    text: str


class Context:
    """The `context` of one call. Made by ExpressionHost.open; calls on it take effect in the order they are made."""

    def __init__(self, host: ExpressionHost, context_id: str) -> None:
        self._host = host
        self._id = context_id
        self._bodies: dict[str, Body] = {}
        self.traces: list[str] = []
        """What expressions wrote with context.Trace."""

    async def evaluate(self, expression: int, *, store: str | None = None) -> Any:
        """Evaluate the expression with this index; `store` also keeps the C# object as that context variable.

        C# bool, string and null are bool, str and None; whole numbers int; decimal Decimal; double float; byte[] bytes;
        Guid UUID; DateTime and DateTimeOffset datetime; TimeSpan timedelta; JToken what json.loads gives. Any other
        object is a CSharpObject. Raises ExpressionError, StreamedBodyRead, HostLostError.
        """
        return (await self.evaluate_value(expression, store=store)).value

    async def evaluate_text(self, expression: int, *, store: str | None = None) -> str:
        """Evaluate, and give what API Management writes into an attribute or a text: null is "", true is "True"."""
        return (await self.evaluate_value(expression, store=store)).text

    async def evaluate_value(self, expression: int, *, store: str | None = None) -> Value:
        """Evaluate, and give all there is to know about the result."""
        request: dict[str, Any] = {"op": "evaluate", "expression": expression}
        if store is not None:
            request["store"] = store
        return _value(await self._call(request))

    async def set_request(self, request: RequestMessage) -> None:
        """Make this the request; a Body that was in the one before keeps its state."""
        await self._call_with_body({"op": "request", "message": request._as_json()}, request.body)

    async def set_response(self, response: ResponseMessage | None) -> None:
        """Make this the response, or null."""
        await self._set_response({"op": "response"}, response)

    async def set_message_variable(self, name: str, response: ResponseMessage | None) -> None:
        """Put an IResponse into a variable, as send-request does; None puts null there."""
        await self._set_response({"op": "message_variable", "name": name}, response)

    async def set_variable(self, name: str, value: Any) -> None:
        """Put a value into a variable: dict and list become JObject and JArray, an int the smaller of int and long."""
        await self._call({"op": "variable", "name": name, "value": _encoded(value)})

    async def set_jwt_variable(self, name: str, token: str) -> None:
        """Put the Jwt that a token parses to into a variable, as validate-jwt does."""
        await self._call({"op": "variable", "name": name, "value": {"type": "jwt", "value": token}})

    async def get_variable(self, name: str) -> Value | None:
        """A variable, or None when it does not exist."""
        result = await self._call({"op": "get_variable", "name": name})
        return None if result is None else _value(result)

    async def remove_variable(self, name: str) -> None:
        """Forget a variable."""
        await self._call({"op": "remove_variable", "name": name})

    async def set_part(self, name: str, part: Mapping[str, Any] | None) -> None:
        """Replace one part of ContextParts, by its name there: `set_part("product", {"Id": ...})`."""
        await self._call({"op": "part", "name": _member(name), "part": None if part is None else dict(part)})

    async def set_last_error(self, error: Mapping[str, Any] | None) -> None:
        """Set context.LastError: Source, Reason, Message, Scope, Section, Path, PolicyId."""
        await self.set_part("last_error", error)

    async def close(self) -> None:
        """Forget the context. Safe when the host is gone."""
        with contextlib.suppress(HostLostError):
            await self._call({"op": "close"})

    async def _set_response(self, request: dict[str, Any], response: ResponseMessage | None) -> None:
        if response is None:
            await self._call({**request, "message": None})
        else:
            await self._call_with_body({**request, "message": response._as_json()}, response.body)

    async def _call_with_body(self, request: dict[str, Any], body: Body | None) -> None:
        if body is not None:
            self._bodies[body.id] = self._host._bodies[body.id] = body
            request["body"] = body._as_json()
        await self._call(request)

    async def _call(self, request: dict[str, Any]) -> Any:
        return await self._host._call({**request, "context": self._id}, self)


class ExpressionHost:
    """Starts the process, and ends it. Use it in one event loop; `async with` or start() and close()."""

    def __init__(self, compiled: Compiled, *, timeout_seconds: float = 30.0) -> None:
        self._compiled = compiled
        self._timeout_seconds = timeout_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._errors: IO[bytes] | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._bodies: weakref.WeakValueDictionary[str, Body] = weakref.WeakValueDictionary()
        self._lost = "it was not started"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and load the expressions."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._process = await asyncio.create_subprocess_exec(
            "mono",
            self._compiled.host_path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for the parent, which closes stdin when it is done
            # C# formats numbers and dates by the locale; API Management's is the invariant one.
            env={**os.environ, "LC_ALL": "C"},
            limit=_LINE_LIMIT_BYTES,
        )
        self._lost = ""
        self._reader = asyncio.create_task(self._read())
        request = {
            "op": "load",
            "path": str(self._compiled.assembly_path),
            "class": self._compiled.class_name,
            "count": len(self._compiled.expressions),
        }
        try:
            await self._call(request, None)
        except BaseException:
            await self.close()
            raise

    async def open(self, parts: ContextParts) -> Context:
        """A new context, without request, response and variables."""
        context = Context(self, uuid.uuid4().hex)
        await self._call({"op": "open", "context": context._id, "parts": parts._as_json()}, None)
        return context

    async def close(self) -> None:
        """End the process. Calls that still wait fail."""
        if self._process is None:
            return
        self._lose("it was closed")
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._errors is not None:
            self._errors.close()
        self._process = None

    async def _call(self, request: dict[str, Any], context: Context | None) -> Any:
        if self._lost:
            raise HostLostError(f"the expression host cannot answer: {self._lost}")
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._send({**request, "id": number})
                answer = await future
        except TimeoutError:
            # The process works on one expression at a time: one that never ends holds up every other call.
            self._kill(f"no answer within {self._timeout_seconds:g} s to {_shown(request, self._compiled)}")
            raise HostLostError(f"the expression host cannot answer: {self._lost}") from None
        finally:
            self._waiting.pop(number, None)
        return self._result(answer, request, context)

    def _result(self, answer: dict[str, Any], request: dict[str, Any], context: Context | None) -> Any:
        if context is not None:
            context.traces += answer.get("traces", ())
            for body_id in answer.get("consumed", ()):
                context._bodies[body_id].consumed = True
        error: dict[str, str] | None = answer.get("error")
        if answer.get("streamed_read"):
            where, text = self._place(request)
            message = "the body of a streamed response was read"
            raise StreamedBodyRead("Apim.StreamedBodyException", message, where=where, text=text)
        if error:
            where, text = self._place(request)
            raise ExpressionError(error["type"], error["message"], where=where, text=text)
        return answer.get("result")

    def _place(self, request: dict[str, Any]) -> tuple[str, str]:
        if request["op"] != "evaluate":
            return "", ""
        expression = self._compiled.expressions[request["expression"]]
        return expression.where, expression.text

    async def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # the reader sees the end too, and tells everybody why
            await process.stdin.drain()

    async def _read(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        while line := await process.stdout.readline():
            message = json.loads(line)
            if "need" in message:
                await self._send(self._body(message["need"]))
            elif (future := self._waiting.get(message["id"])) is not None and not future.done():
                future.set_result(message)
        code = await process.wait()
        self._lose(f"mono ended with code {code}{self._stderr()}")

    def _body(self, body_id: str) -> dict[str, str]:
        """What the process waits for; it would wait for ever if it got no answer."""
        body = self._bodies.get(body_id)
        if body is None:  # the call ended while its expression was running
            return {"body": body_id, "error": "the call is over"}
        try:
            content = body.read()
        except Exception as error:  # noqa: BLE001 - the expression that reads the body fails with it
            return {"body": body_id, "error": f"{type(error).__name__}: {error}"}
        return {"body": body_id, "content": base64.b64encode(content).decode()}

    def _kill(self, reason: str) -> None:
        self._lose(reason)
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(HostLostError(f"the expression host cannot answer: {self._lost}"))

    def _stderr(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f": {text[-2000:]}" if text else ""


def _member(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _shown(request: dict[str, Any], compiled: Compiled) -> str:
    if request["op"] != "evaluate":
        return str(request["op"])
    expression = compiled.expressions[request["expression"]]
    return f"{expression.where}: {expression.text}"


def _encoded(value: Any) -> dict[str, Any]:
    if value is None:
        return {"type": "null", "value": None}
    if isinstance(value, bool):
        return {"type": "bool", "value": value}
    if isinstance(value, int):
        return {"type": "int" if value in _INT_RANGE else "long", "value": value}
    if isinstance(value, float):
        return {"type": "double", "value": repr(value)}
    if isinstance(value, Decimal):
        return {"type": "decimal", "value": str(value)}
    if isinstance(value, str):
        return {"type": "string", "value": value}
    if isinstance(value, bytes):
        return {"type": "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"type": "time", "value": value.isoformat()}
    if isinstance(value, uuid.UUID):
        return {"type": "guid", "value": str(value)}
    if isinstance(value, dict | list):
        return {"type": "json", "value": json.dumps(value)}
    raise TypeError(f"a context variable cannot hold a {type(value).__name__}")


def _value(result: dict[str, Any]) -> Value:
    return Value(_decoded(result["type"], result["value"], result["text"]), result["text"], result["type"])


def _decoded(type_name: str | None, value: Any, text: str) -> Any:
    if type_name is None or (isinstance(value, bool | int) and type_name != "System.TimeSpan"):
        return value
    decode = _DECODERS.get(type_name)
    if decode is not None:
        return decode(value)
    if type_name.startswith("Newtonsoft.Json.Linq.J"):
        return json.loads(value)
    return CSharpObject(type_name, text)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "System.String": str,
    "System.Char": str,
    "System.Decimal": Decimal,
    "System.Double": float,
    "System.Single": float,
    "System.UInt64": int,
    "System.Byte[]": base64.b64decode,
    "System.Guid": uuid.UUID,
    "System.DateTime": lambda value: _time(value),
    "System.DateTimeOffset": lambda value: _time(value),
    "System.TimeSpan": lambda ticks: timedelta(microseconds=ticks // _TICKS_PER_MICROSECOND),
}


def _time(text: str) -> datetime:
    """C# writes seven digits after the second, Python reads up to six."""
    head, dot, tail = text.partition(".")
    if not dot:
        return datetime.fromisoformat(text)
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return datetime.fromisoformat(f"{head}.{digits[:6]}{tail[len(digits) :]}")
