"""The process that evaluates compiled expressions.

One mono process serves all calls. It evaluates one expression at a time (tens of microseconds each); the calls of
hundreds of contexts take turns. A body crosses over only when an expression reads it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import tempfile
from types import TracebackType
from typing import IO, Any, Self
from weakref import WeakValueDictionary

import msgspec

from local.apim.expressions.compiler import Compiled, Expression
from local.apim.expressions.context import Context
from local.apim.expressions.errors import ExpressionError, HostLostError, StreamedBodyRead
from local.apim.expressions.parts import ContextParts

_LINE_LIMIT_BYTES = 64 * 1024 * 1024


class ExpressionHost:
    """Starts the process, and ends it. Use it in one event loop; `async with` or start() and close()."""

    def __init__(self, compiled: Compiled, *, timeout_seconds: float = 30.0) -> None:
        self._compiled = compiled
        self._timeout_seconds = timeout_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._input: asyncio.StreamWriter
        self._reader: asyncio.Task[None]
        self._errors: IO[bytes]  # what mono writes to stderr
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._contexts: WeakValueDictionary[str, Context] = WeakValueDictionary()
        self._reason = "it was not started"  # why it cannot answer; empty while it can
        self.lost: asyncio.Future[str]
        """Done, with the reason, once the process ended although nobody closed it."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the process and load the expressions."""
        self.lost = asyncio.get_running_loop().create_future()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._process = process = await asyncio.create_subprocess_exec(
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
        assert process.stdin is not None
        self._input, self._reason = process.stdin, ""
        self._reader = asyncio.create_task(self._read(process))
        load = {
            "op": "load",
            "path": str(self._compiled.assembly_path),
            "class": self._compiled.class_name,
            "count": len(self._compiled.expressions),
        }
        try:
            _result(await self._ask(load, "load"))
        except BaseException:
            await self.close()
            raise

    def open(self, parts: ContextParts) -> Context:
        """A new context, without request, response and variables. Raises HostLostError."""
        self._require()
        context = Context(self, parts)
        self._contexts[context.id] = context
        return context

    async def evaluate(
        self, context: Context, changes: list[dict[str, Any]], expression: int, store: str | None = None
    ) -> Any:
        """For Context: apply the changes, then evaluate. The answer of Values.Encode; None with `store`."""
        place = self._compiled.expressions[expression]
        request = {"op": "evaluate", "context": context.id, "changes": changes, "expression": expression}
        if store is not None:
            request["store"] = store
        answer = await self._ask(request, f"{place.where}: {place.text}")
        context.traces += answer.get("traces", ())
        for body_id in answer.get("consumed", ()):
            context.bodies[body_id].consumed = True
        if answer.get("streamed_read"):
            message = "the body of a streamed response was read"
            raise StreamedBodyRead("Apim.StreamedBodyException", message, where=place.where, text=place.text)
        return _result(answer, place)

    def forget(self, context: Context) -> None:
        """For Context.close; nobody waits for it."""
        if not self._reason:
            self._write({"op": "close", "context": context.id})

    async def close(self) -> None:
        """End the process. Calls that still wait fail."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._fail("it was closed")
        self._input.close()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            process.kill()
            await process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._errors.close()

    async def _ask(self, request: dict[str, Any], shown: str) -> dict[str, Any]:
        self._require()
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._write({**request, "id": number})
                with contextlib.suppress(ConnectionError):  # the reader sees the end too, and tells everybody why
                    await self._input.drain()
                return await answer
        except TimeoutError:
            # The process works on one expression at a time: one that never ends holds up every other call.
            self._lose(f"no answer within {self._timeout_seconds:g} s to {shown}")
            if self._process is not None and self._process.returncode is None:
                self._process.kill()
            raise self._lost_error() from None
        finally:
            del self._waiting[number]

    def _write(self, message: dict[str, Any]) -> None:
        self._input.write(msgspec.json.encode(message) + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                message = msgspec.json.decode(line)
                if "need" in message:
                    self._write(self._body(message["context"], message["need"]))
                elif (waiting := self._waiting.get(message["id"])) is not None and not waiting.done():
                    waiting.set_result(message)
        except (ValueError, msgspec.DecodeError):  # a line too long, or what a crashing mono says on its way out
            process.kill()
        code = await process.wait()
        self._lose(f"mono ended with code {code}{self._stderr()}")

    def _body(self, context_id: str, body_id: str) -> dict[str, str]:
        """What the process waits for; it would wait for ever if it got no answer."""
        context = self._contexts.get(context_id)
        if context is None:  # the call ended while its expression was running
            return {"body": body_id, "error": "the call is over"}
        return {"body": body_id, "content": base64.b64encode(context.bodies[body_id].content).decode()}

    def _require(self) -> None:
        if self._reason:
            raise self._lost_error()

    def _lost_error(self) -> HostLostError:
        return HostLostError(f"no expression can be evaluated: {self._reason}")

    def _lose(self, reason: str) -> None:
        if not self._reason:
            self._fail(reason)
            self.lost.set_result(reason)

    def _fail(self, reason: str) -> None:
        self._reason = self._reason or reason
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._lost_error())

    def _stderr(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f": {text[-2000:]}" if text else ""


def _result(answer: dict[str, Any], place: Expression | None = None) -> Any:
    if error := answer.get("error"):
        where, text = (place.where, place.text) if place else ("", "")
        raise ExpressionError(error["type"], error["message"], where=where, text=text)
    return answer["result"]
