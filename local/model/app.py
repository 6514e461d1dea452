"""The simulated model as an ASGI app: OpenAI's and Azure OpenAI's paths, stream and not.

Request headers turn its knobs: `x-sim-output-tokens` (what the answer would be long, before max_tokens cuts it),
`x-sim-latency-ms` (before the first byte), `x-sim-chunk-ms` (between the chunks of a stream), `x-sim-status` (answer
with this error), `x-sim-break-after` (cut the connection after so many chunks of a stream).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from local.model.answers import Answer, answer_chat, count_tokens, embed, prompt_text
from local.model.served import ModelUsage, Served

MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini", "o4-mini", "text-embedding-3-small")
MOST_CHUNKS = 60  # of one stream: longer answers carry more words per chunk, so that they stay quick to relay
REGION = "westeurope"


class SimulatedModel:
    """One model process: its counters and its request handlers."""

    def __init__(self) -> None:
        self.served = Served()
        self._ids = itertools.count(1)

    async def chat(self, request: Request) -> Response:
        """POST .../chat/completions."""
        body = await _json_object(request)
        if body is None or not isinstance(body.get("messages"), list) or not body["messages"]:
            return error(400, "invalid_request", "messages: expected a list that is not empty", "messages")
        model = request.path_params.get("deployment") or body.get("model")
        if not isinstance(model, str):
            return error(400, "invalid_request", "model: expected the name of a model", "model")
        usage = self.served.of(model)
        if (failure := await self._simulated_failure(request, usage)) is not None:
            return failure
        seen = self.served.seen_before(model, prompt_text(body))
        answer = answer_chat(model, body, _number(request.headers, "x-sim-output-tokens"), seen)
        head = {"id": f"chatcmpl-sim-{next(self._ids)}", "created": int(time.time()), "model": model}
        if body.get("stream"):
            chunks = self._stream(request, head, answer, usage, bool(_stream_options(body).get("include_usage")))
            return StreamingResponse(chunks, media_type="text/event-stream", headers={"x-ms-region": REGION})
        _count(usage, answer)
        choices = [_choice(answer, index) for index in range(answer.choices)]
        content = {**head, "object": "chat.completion", "choices": choices, "usage": answer.usage}
        return JSONResponse(content, headers={"x-ms-region": REGION})

    async def embeddings(self, request: Request) -> Response:
        """POST .../embeddings."""
        body = await _json_object(request)
        texts = body.get("input") if body else None
        texts = [texts] if isinstance(texts, str) else texts
        model = request.path_params.get("deployment") or (body or {}).get("model")
        if not isinstance(texts, list) or not isinstance(model, str):
            return error(400, "invalid_request", "input: expected text or a list of texts; model: a name", "input")
        usage = self.served.of(model)
        if (failure := await self._simulated_failure(request, usage)) is not None:
            return failure
        tokens = sum(count_tokens(str(text)) for text in texts)
        usage.calls += 1
        usage.prompt_tokens += tokens
        data = [{"object": "embedding", "index": i, "embedding": embed(str(text))} for i, text in enumerate(texts)]
        content = {"object": "list", "data": data, "model": model}
        return JSONResponse({**content, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    async def models(self, request: Request) -> Response:
        """GET .../models."""
        data = [{"id": model, "object": "model", "created": 0, "owned_by": "simulation"} for model in MODELS]
        return JSONResponse({"object": "list", "data": data})

    async def usage(self, request: Request) -> Response:
        """GET /sim/usage: what was really served, by model."""
        return JSONResponse(self.served.as_dict())

    async def _simulated_failure(self, request: Request, usage: ModelUsage) -> Response | None:
        if (latency_ms := _number(request.headers, "x-sim-latency-ms")) is not None:
            await asyncio.sleep(latency_ms / 1000)
        status = _number(request.headers, "x-sim-status")
        if status is None or status < 400:
            return None
        usage.errors += 1
        return error(status, "simulated_error", f"x-sim-status asked for {status}", None)

    async def _stream(
        self, request: Request, head: dict[str, Any], answer: Answer, usage: ModelUsage, include_usage: bool
    ) -> AsyncIterator[bytes]:
        head = {**head, "object": "chat.completion.chunk"}
        if include_usage:
            head["usage"] = None  # as OpenAI does: every chunk but the last carries a null
        pause_seconds = (_number(request.headers, "x-sim-chunk-ms") or 0) / 1000
        break_after = _number(request.headers, "x-sim-break-after")
        produced_tokens, finished = 0, False
        try:
            for sent, (delta, tokens, finish_reason) in enumerate(_deltas(answer)):
                if break_after is not None and sent >= break_after:
                    raise ConnectionResetError("x-sim-break-after asked to cut the stream")
                choices = [_delta(index, delta, finish_reason) for index in range(answer.choices)]
                yield _sse({**head, "choices": choices})
                produced_tokens += tokens * answer.choices
                await asyncio.sleep(pause_seconds)
            if include_usage:
                yield _sse({**head, "choices": [], "usage": answer.usage})
            yield b"data: [DONE]\n\n"
            finished = True
        finally:
            if finished:
                _count(usage, answer)
            else:
                usage.aborted += 1
                usage.aborted_completion_tokens += produced_tokens


def build_app() -> Starlette:
    """A fresh simulated model."""
    model = SimulatedModel()
    routes = [Route("/sim/usage", model.usage), Route("/health", model.models)]
    for prefix in ("/v1", "/openai/v1", "/openai/deployments/{deployment}"):
        routes += [
            Route(f"{prefix}/chat/completions", model.chat, methods=["POST"]),
            Route(f"{prefix}/embeddings", model.embeddings, methods=["POST"]),
            Route(f"{prefix}/models", model.models),
        ]
    return Starlette(routes=routes)


def error(status: int, code: str, message: str, param: str | None) -> JSONResponse:
    """An OpenAI-shaped error; 429 and 503 ask to come back in a second."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    content = {"error": {"code": code, "message": message, "type": kind, "param": param}}
    return JSONResponse(content, status_code=status, headers=headers)


async def _json_object(request: Request) -> dict[str, Any] | None:
    try:
        body = await request.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isdigit() else None


def _stream_options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("stream_options")
    return options if isinstance(options, dict) else {}


def _count(usage: ModelUsage, answer: Answer) -> None:
    usage.calls += 1
    usage.prompt_tokens += answer.prompt_tokens
    usage.cached_tokens += answer.cached_tokens
    usage.completion_tokens += answer.completion_tokens


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    arguments = json.dumps({"query": " ".join(answer.words)})
    return [{"id": "call_sim_1", "type": "function", "function": {"name": answer.tool_name, "arguments": arguments}}]


def _choice(answer: Answer, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": " ".join(answer.words)}
    if answer.tool_name:
        message = {"role": "assistant", "content": None, "tool_calls": _tool_calls(answer)}
    return {"index": index, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def _deltas(answer: Answer) -> list[tuple[dict[str, Any], int, str | None]]:
    """The stream's pieces: (delta, tokens it carries, finish reason on the last)."""
    pieces: list[tuple[dict[str, Any], int, str | None]] = [({"role": "assistant", "content": ""}, 0, None)]
    if answer.tool_name:
        calls = [{"index": 0, **call} for call in _tool_calls(answer)]
        pieces.append(({"tool_calls": calls}, len(answer.words), None))
    else:
        size = -(-len(answer.words) // MOST_CHUNKS) or 1
        for start in range(0, len(answer.words), size):
            words = answer.words[start : start + size]
            pieces.append(({"content": (" " if start else "") + " ".join(words)}, len(words), None))
    pieces.append(({}, 0, answer.finish_reason))
    return pieces


def _sse(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
