"""The simulated model as an ASGI app: OpenAI's and Azure OpenAI's paths, stream and not.

Request headers turn its knobs (`local.model.knobs`). Beside the model's own paths:

* `GET /sim/usage`: what was really served, by model; with `?by=call` by the `x-sim-call-id` that requests carried;
* `GET /sim/requests?call=<id>&containing=<text>`: the requests as they arrived, headers by name;
* `POST /sim/release/<call id>`: let a stream that `x-sim-hold-after` holds go on;
* `POST /sim/knobs/<name>`: `{"seconds": 3, "knobs": {"x-sim-status": "429"}}` holds for every request to this
  deployment, model or place (`*`: to all); without knobs it takes them away.

Every path is also there below `/at/<place>`, so that one process can stand for several providers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from local.model import anthropic, chat, faults, responses
from local.model.answers import Answer, Prompt, answer_to, chat_prompt, responses_prompt
from local.model.anthropic_prompt import cached, problem_with, prompt_of
from local.model.connection import with_connection
from local.model.dialects import DATABRICKS, OPENAI, OPENROUTER, PLAIN, Dialect
from local.model.embeddings import embed, embedding_base64, embedding_inputs
from local.model.knobs import Knobs, StandingKnobs, knobs_for
from local.model.pieces import Piece
from local.model.replies import REGION, error, simulated_failure, spoiled, whole, worded, worded_by_anthropic
from local.model.served import Served, Usage

MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini", "o4-mini", "text-embedding-3-small")
MOST_TEMPERATURE = 2
LONGEST_HOLD_SECONDS = 30  # a client that never releases its stream sees it broken, not hanging


class SimulatedModel:
    """One model process: its counters and its request handlers."""

    def __init__(self, deployments: Mapping[str, str]) -> None:
        self.served = Served()
        self._deployments = deployments
        self._ids = itertools.count(1)
        self._released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._standing = StandingKnobs({})

    async def chat(self, request: Request, dialect: Dialect = OPENAI) -> Response:
        """POST .../chat/completions."""
        body, knobs = await self._receive(request)
        if body is not None and (refused := dialect.refusal(body)) is not None:
            return refused
        if body is None or not isinstance(body.get("messages"), list) or not body["messages"]:
            return error(400, "invalid_request", "messages: expected a list that is not empty", "messages")
        if not 0 <= (body.get("temperature") or 0) <= MOST_TEMPERATURE:
            return error(400, "invalid_request", f"temperature: expected 0 to {MOST_TEMPERATURE}", "temperature")
        begun = await self._begin(request, body, knobs, chat_prompt)
        if isinstance(begun, Response):
            return worded(begun, dialect)
        model, answer, usages = begun
        answer_id, created = f"chatcmpl-sim-{next(self._ids)}", int(time.time())
        if body.get("stream"):
            wanted = bool(_object(body, "stream_options").get("include_usage")) and not knobs.without_usage_chunk
            pieces = chat.chunks(answer_id, created, model, answer, include_usage=wanted)
            return self._stream(dialect.pieces(pieces, answer), knobs, answer, usages)

        def completion(filler: str) -> dict[str, Any]:
            return dialect.completion(chat.completion(answer_id, created, model, answer, filler), answer)

        return whole(knobs, answer, usages, completion)

    async def invocations(self, request: Request) -> Response:
        """POST .../serving-endpoints/{deployment}/invocations: chat or embeddings, by what the body holds."""
        body = json.loads(await request.body() or b"{}")
        return await (self.embeddings(request) if "input" in body else self.chat(request, DATABRICKS))

    async def responses(self, request: Request) -> Response:
        """POST .../responses."""
        body, knobs = await self._receive(request)
        if body is None or not isinstance(body.get("input"), str | list) or not body["input"]:
            return error(400, "invalid_request", "input: expected text or a list of items", "input")
        begun = await self._begin(request, body, knobs, responses_prompt)
        if isinstance(begun, Response):
            return begun
        model, answer, usages = begun
        answer_id, created = f"resp_sim_{next(self._ids)}", int(time.time())
        if body.get("stream"):
            wanted = not knobs.without_usage_chunk
            pieces = responses.events(answer_id, created, model, body, answer, include_usage=wanted)
            return self._stream(pieces, knobs, answer, usages)
        return whole(
            knobs, answer, usages, lambda filler: responses.response(answer_id, created, model, body, answer, filler)
        )

    async def messages(self, request: Request) -> Response:
        """POST .../anthropic/v1/messages: Anthropic's Messages API."""
        body, knobs = await self._receive(request)
        if (problem := problem_with(body, request.headers)) is not None or body is None:
            return JSONResponse(anthropic.error(400, str(problem)), 400)
        begun = await self._begin(request, body, knobs, prompt_of)
        if isinstance(begun, Response):
            return worded_by_anthropic(begun)
        model, answer, usages = begun
        known = cached(body, lambda prefix: self.served.seen_before(f"{model}/cached", prefix))
        answer = replace(answer, cached_tokens=known.read_tokens)
        answer = anthropic.thinking(answer) if anthropic.is_thinking(body) else answer
        said = anthropic.Message(f"msg_sim_{next(self._ids)}", model, answer, known)
        if body.get("stream"):
            return self._stream(
                anthropic.events(said, include_usage=not knobs.without_usage_chunk), knobs, answer, usages
            )
        return whole(knobs, answer, usages, lambda filler: anthropic.message(said, filler))

    async def embeddings(self, request: Request) -> Response:
        """POST .../embeddings."""
        body, knobs = await self._receive(request)
        inputs = embedding_inputs((body or {}).get("input"))
        model = self._model(request, body or {})
        if inputs is None or model is None:
            return error(400, "invalid_request", "input: expected texts or lists of tokens; model: a name", "input")
        attempt, usages = self.served.attempt(knobs.call_id, model)
        if (failure := await simulated_failure(knobs, attempt, usages)) is not None:
            return failure
        tokens = sum(count for _, count in inputs)
        for usage in usages:
            usage.calls += 1
            usage.prompt_tokens += tokens
        shape = embedding_base64 if (body or {}).get("encoding_format") == "base64" else list
        vectors = [shape(embed(text)) for text, _ in inputs]
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        content = {"object": "list", "data": data, "model": model}
        answer = JSONResponse({**content, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
        return answer if knobs.fault is None else spoiled(answer, knobs.fault)

    async def models(self, request: Request) -> Response:
        """GET .../models."""
        data = [{"id": model, "object": "model", "created": 0, "owned_by": "simulation"} for model in MODELS]
        return JSONResponse({"object": "list", "data": data})

    async def usage(self, request: Request) -> Response:
        """GET /sim/usage: what was really served, by model or by call."""
        return JSONResponse(self.served.as_dict(by_call=request.query_params.get("by") == "call"))

    async def requests(self, request: Request) -> Response:
        """GET /sim/requests: what arrived."""
        query = request.query_params
        return JSONResponse(self.served.received(query.get("call"), query.get("containing")))

    async def release(self, request: Request) -> Response:
        """POST /sim/release/{call}: the stream of this call goes on."""
        self._released[request.path_params["call"]].set()
        return JSONResponse({})

    async def stand(self, request: Request) -> Response:
        """POST /sim/knobs/{name}: knobs that stand until they are taken away."""
        asked = json.loads(await request.body() or b"{}")
        self._standing.hold(request.path_params["name"], asked.get("knobs") or {}, asked.get("seconds"))
        return JSONResponse({})

    async def _receive(self, request: Request) -> tuple[dict[str, Any] | None, Knobs]:
        raw = await request.body()
        self.served.receive(
            request.headers.get("x-sim-call-id"), request.url.path, request.url.query, request.headers, raw
        )
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else None
        knobs = knobs_for(request.headers, self._standing, self._names(request, body or {}))
        if 0 < knobs.fail_first <= self.served.attempts(knobs.call_id):
            knobs = replace(knobs, fault=None)  # the next attempt is served as if nothing had been
        return body, knobs

    def _names(self, request: Request, body: Mapping[str, Any]) -> list[str]:
        """What a knob may call the one that answers: its place, its model, its deployment."""
        named = (request.path_params.get("deployment") or body.get("model"), request.path_params.get("place"))
        return [name for name in (named[1], self._model(request, body), named[0]) if isinstance(name, str)]

    def _model(self, request: Request, body: Mapping[str, Any]) -> str | None:
        """The model behind the deployment that the path or the body names: its own name is what answers carry."""
        named = request.path_params.get("deployment") or body.get("model")
        return self._deployments.get(named, named) if isinstance(named, str) else None

    async def _begin(
        self, request: Request, body: dict[str, Any], knobs: Knobs, read: Callable[[Mapping[str, Any]], Prompt]
    ) -> tuple[str, Answer, tuple[Usage, ...]] | Response:
        """(the model, its answer, the counters it counts in), or the error that a knob asked for."""
        model = self._model(request, body)
        if model is None:
            return error(400, "invalid_request", "model: expected the name of a model", "model")
        attempt, usages = self.served.attempt(knobs.call_id, model)
        if (failure := await simulated_failure(knobs, attempt, usages)) is not None:
            return failure
        prompt = read(body)
        seen = self.served.seen_before(model, prompt.text)
        answer = answer_to(model, prompt, knobs.output_tokens, seen_before=seen, echo=knobs.echo)
        return model, answer, usages

    def _stream(
        self, pieces: Iterable[Piece], knobs: Knobs, answer: Answer, usages: tuple[Usage, ...]
    ) -> StreamingResponse:
        content = self._paced(pieces, knobs, answer, usages)
        return StreamingResponse(content, media_type="text/event-stream", headers={"x-ms-region": REGION})

    async def _paced(
        self, pieces: Iterable[Piece], knobs: Knobs, answer: Answer, usages: tuple[Usage, ...]
    ) -> AsyncIterator[bytes]:
        produced_tokens, finished = 0, False
        try:
            for sent, piece in enumerate(pieces):
                if knobs.fault is not None and sent == (knobs.fault_after or 0):
                    async for spoiled in faults.spoiled_piece(knobs.fault, piece):
                        yield spoiled
                    if not faults.goes_on_after(knobs.fault):
                        return
                    produced_tokens += piece.tokens
                    continue
                if knobs.break_after is not None and sent >= knobs.break_after:
                    raise ConnectionResetError("x-sim-break-after asked to cut the stream")
                if knobs.hold_after is not None and sent == knobs.hold_after:
                    await asyncio.wait_for(self._released[knobs.call_id or ""].wait(), LONGEST_HOLD_SECONDS)
                yield piece.content
                produced_tokens += piece.tokens
                await asyncio.sleep(knobs.chunk_ms / 1000)
            finished = True
        finally:
            for usage in usages:
                if finished:
                    usage.add(answer)
                else:
                    usage.add_aborted(produced_tokens, answer.prompt_tokens)


def build_app(deployments: Mapping[str, str] | None = None) -> ASGIApp:
    """A fresh simulated model. `deployments` says which model is behind each; what it does not name is a model."""
    model = SimulatedModel(deployments or {})
    routes = [
        Route("/health", model.models),
        Route("/sim/usage", model.usage),
        Route("/sim/requests", model.requests),
        Route("/sim/release/{call}", model.release, methods=["POST"]),
        Route("/sim/knobs/{name}", model.stand, methods=["POST"]),
    ]
    for prefix in ("/v1", "/openai/v1", "/openai/deployments/{deployment}"):
        routes += [
            Route(f"{prefix}/chat/completions", model.chat, methods=["POST"]),
            Route(f"{prefix}/embeddings", model.embeddings, methods=["POST"]),
            Route(f"{prefix}/models", model.models),
        ]
    # Azure OpenAI's Responses API names the model in the body on every path; there is none per deployment.
    for prefix in ("/v1", "/openai/v1", "/openai"):
        routes.append(Route(f"{prefix}/responses", model.responses, methods=["POST"]))
    routes.append(Route("/openai/models", model.models))
    for prefix, dialect in (("/openrouter/api/v1", OPENROUTER), ("/plain/v1", PLAIN)):
        spoken = partial(model.chat, dialect=dialect)
        routes.append(Route(f"{prefix}/chat/completions", spoken, methods=["POST"]))
        routes.append(Route(f"{prefix}/embeddings", model.embeddings, methods=["POST"]))
    for path in ("/openrouter/api/v1/responses", "/databricks/serving-endpoints/responses"):
        routes.append(Route(path, model.responses, methods=["POST"]))
    invocations = "/databricks/serving-endpoints/{deployment}/invocations"
    routes.append(Route(invocations, model.invocations, methods=["POST"]))
    routes.append(Route("/anthropic/v1/messages", model.messages, methods=["POST"]))
    return with_connection(Starlette(routes=[*routes, Mount("/at/{place}", routes=routes)]))


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    return found if isinstance(found, dict) else {}
