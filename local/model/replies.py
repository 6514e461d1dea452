"""What the simulated model replies with, as HTTP responses: whole answers, and errors as each provider words them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from local.model import anthropic, faults
from local.model.answers import Answer
from local.model.dialects import Dialect
from local.model.knobs import Knobs, failing_status
from local.model.served import Usage

REGION = "westeurope"
FILLER = " and so on"


def error(status: int, code: str, message: str, param: str | None, retry_after: str | None = None) -> JSONResponse:
    """An OpenAI-shaped error; 429 and 503 ask to come back in a second unless told otherwise."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    if retry_after is None and status in (429, 503):
        retry_after = "1"
    headers = {"Retry-After": retry_after} if retry_after else {}
    content = {"error": {"code": code, "message": message, "type": kind, "param": param}}
    return JSONResponse(content, status_code=status, headers=headers)


async def simulated_failure(knobs: Knobs, attempt: int, usages: tuple[Usage, ...]) -> Response | None:
    """The error that this attempt gets, after the latency that knobs ask for; None when it is to be served."""
    if knobs.latency_ms:
        await asyncio.sleep(knobs.latency_ms / 1000)
    if knobs.fault in ("reset", "stall") and knobs.fault_after is None:
        for usage in usages:
            usage.errors += 1
        if knobs.fault == "reset":
            raise faults.reset()
        await faults.stall()
        return Response(status_code=499)
    status = failing_status(knobs, attempt)
    if status is None:
        return None
    for usage in usages:
        usage.errors += 1
    return error(status, "simulated_error", f"x-sim-status asked for {status}", None, knobs.retry_after)


def worded(failure: Response, dialect: Dialect) -> Response:
    """A simulated failure as the provider words it; status and when to come back stay the same."""
    headers = {name: failure.headers[name] for name in ("retry-after",) if name in failure.headers}
    message = f"x-sim-status asked for {failure.status_code}"
    return dialect.failure(failure.status_code, message, headers) or failure


def worded_by_anthropic(failure: Response) -> Response:
    """A simulated failure as Anthropic words it; only the status and when to come back stay the same."""
    headers = {name: failure.headers[name] for name in ("retry-after",) if name in failure.headers}
    content = anthropic.error(failure.status_code, f"x-sim-status asked for {failure.status_code}")
    return JSONResponse(content, failure.status_code, headers)


def whole(
    knobs: Knobs, answer: Answer, usages: tuple[Usage, ...], content: Callable[[str], dict[str, Any]]
) -> Response:
    """A whole answer in JSON; `content` takes the filler that makes it as large as the knob asks."""
    for usage in usages:
        if knobs.fault == "error":
            usage.errors += 1
        else:
            usage.add(answer)
    filler = FILLER * (knobs.answer_bytes // len(FILLER) + 1) if knobs.answer_bytes else ""
    headers = {"x-ms-region": REGION}
    found = JSONResponse(content(filler), headers=headers)
    if knobs.fault is not None:
        return spoiled(found, knobs.fault)
    if not knobs.chunked:
        return found

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(found.body)

    return StreamingResponse(pieces(), media_type="application/json", headers=headers)


def spoiled(answer: JSONResponse, fault: faults.Fault) -> Response:
    """A whole answer with a fault in it."""
    headers = {"x-ms-region": REGION}
    if faults.promises_length(fault):
        headers["content-length"] = str(len(answer.body))
    content = faults.spoiled_whole(fault, bytes(answer.body))
    return StreamingResponse(content, media_type="application/json", headers=headers)
