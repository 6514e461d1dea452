"""Whatever becomes of a call at the built-in gateway, its accounts come out even.

Random faults at every step (budget, connection, head, body, client, shutdown) of many calls at once. Afterwards no
place in the queue is taken, no hold is left behind, every request that reached a model is on record exactly once, and
the record says what the model counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.answers import Caller, Streamed
from gateway.call import read_call
from gateway.events import EventQueue
from gateway.pipeline import Pipeline
from gateway.relay import StreamRelay
from gateway.upstream import Upstream
from shared.budgets.answer import CheckAnswer
from shared.config.loader import load_config
from shared.errors import BudgetExhausted, Forbidden, StateUnavailable, TollkeeperError
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.settings import Settings

CONFIG = load_config(
    {
        "tenants.yaml": b"tenants: [{id: default}]",
        "models.yaml": b"""
endpoints:
  - {id: a, provider: house, api: openai, url: "https://a.test"}
  - {id: b, provider: house, api: openai, url: "https://b.test"}
  - {id: c, provider: claude, api: anthropic, url: "https://c.test"}
  - {id: d, provider: lake, api: databricks, url: "https://d.test", key: D_API_KEY}
models:
  - {id: main, provider: house, deployments: [main-a, {name: main-b, endpoint: b}], fallbacks: [sonnet, lake]}
  - {id: sonnet, provider: claude, fallbacks: [main]}
  - {id: lake, provider: lake, fallbacks: [main]}
""",
        "prices.yaml": b"""
prices:
  - {model: main, deployment: main-a, effective_from: 2026-01-01, usd_per_million: {input: 1.00, output: 2.00}}
  - {model: main, deployment: main-b, effective_from: 2026-01-01, usd_per_million: {input: 3.00, output: 6.00}}
""",
    }
)
MODELS = tuple(CONFIG.models)
CALLS = 150  # of one seed, all at once
ADMITTED = datetime(2026, 11, 21, tzinfo=UTC)
NAMED = re.compile(r"call-\d+")
GARBLED = {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}
NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
FAILURE = {"error": {"message": "no", "code": "server_error"}}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}
TEXT = {"choices": [{"index": 0, "delta": {"content": "abc "}}]}
CLAUDES_TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "abc "}}
Json = dict[str, Any]


@dataclass
class Budget:
    """Its holds are names that come back by a release or by an event."""

    chance: random.Random
    held: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    priced: dict[str, str] = field(default_factory=dict)  # for which deployment

    async def check(self, request: Any) -> CheckAnswer:
        await asyncio.sleep(0)
        what = self.chance.random()
        if what < 0.03:
            raise StateUnavailable("no counters")
        if what < 0.06:
            raise Forbidden("not this model", code="model_not_allowed")
        model = self.chance.choice(MODELS) if what < 0.2 else request.model
        known = CONFIG.models[model]
        answer = CheckAnswer(
            decision="allow",
            reason="",
            tenant="default",
            scopes={"team": "t"},
            requested_model=request.model,
            model=model,
            provider=known.provider,
            deployment=request.deployment if model == request.model and request.deployment else known.served_by[0],
            state="active",
            disabled_tools=[],
            budget=None,
            admitted_at_utc=ADMITTED,
        )
        if what > 0.95:
            answer.decision, answer.error = "refuse", BudgetExhausted("spent")
            return answer
        answer.reservation = f"hold-{self.chance.getrandbits(64)}"
        self.held.add(answer.reservation)
        self.priced[answer.reservation] = answer.deployment
        return answer

    async def release(self, token: str) -> bool:
        self.held.discard(token)
        self.released.add(token)
        await asyncio.sleep(0)
        if self.chance.random() < 0.05:
            raise StateUnavailable("no counters")
        return True


@dataclass
class Attempt:
    """One request that reached a model, and what has left the model of its answer."""

    usage: Json | None = None  # the last that says anything
    text: int = 0  # pieces of it
    written: int = 0  # of those, what came behind the usage
    made: bool = False  # an answer in one piece, all of it

    def leaves(self, chunk: Json) -> None:
        """Note what a part of the answer tells."""
        pieces = sum(bool(choice.get("delta", {}).get("content")) for choice in chunk.get("choices", ()))
        pieces += chunk.get("type") == "content_block_delta"
        self.text, self.written = self.text + pieces, self.written + pieces
        self.made |= "error" not in chunk and ("content" in chunk or "message" in str(chunk.get("choices")))
        usage = chunk.get("usage")
        if usage == GARBLED:  # nobody can bill by the last word, so nothing is left but what was seen
            self.usage, self.written = None, self.text
        elif usage and any(usage.values()):
            self.usage, self.written = usage, 0


@dataclass
class Backend:
    """Models of three APIs, which fail in every way."""

    chance: random.Random
    attempts: dict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))  # by call, in their order

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        what = self.chance.random()
        if what < 0.06:
            raise httpx.ConnectError("down")
        attempt = Attempt()
        self.attempts[NAMED.findall(request.content.decode())[0]].append(attempt)
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        if what < 0.10:
            raise httpx.ReadTimeout("silent")
        if what < 0.15:
            raise httpx.RemoteProtocolError("reset")
        if what < 0.35:
            status = self.chance.choice((400, 401, 404, 408, 429, 500, 503, 529))
            refused = httpx.ByteStream(b'{"error": {"message": "no"}}')
            return httpx.Response(status, headers={"retry-after": "0.01"}, stream=refused, request=request)
        streamed = bool(json.loads(request.content).get("stream"))
        answers = self.claude if request.url.host == "c.test" else self.openai
        parts = answers(streamed, everywhere=request.url.host == "d.test")
        kind = "text/event-stream" if streamed else "application/json"
        return httpx.Response(
            200, headers={"content-type": kind}, stream=Body(parts, streamed, attempt, self.chance), request=request
        )

    async def aclose(self) -> None:
        """Nothing is open."""

    def openai(self, streamed: bool, *, everywhere: bool) -> list[Json]:
        """An answer of OpenAI's API; `everywhere`: each chunk with text tells the usage so far."""
        usage = {"prompt_tokens": self.chance.randrange(1, 50), "completion_tokens": 5}
        counted = self.chance.choice((usage, usage, usage, {}, NOTHING, GARBLED, None))
        told = {} if counted is None else {"usage": counted}
        if not streamed:
            said = {"choices": [{"message": {"content": "one two three"}}]}
            return [{**self.chance.choice((said, said, said, FAILURE)), **told}]
        texts = [TEXT] * 5
        if everywhere:
            texts = [{**TEXT, "usage": {**usage, "completion_tokens": n}} for n in range(1, 6)]
        begun = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        if self.chance.random() < 0.1:
            begun |= {"usage": {**usage, "completion_tokens": 0}}
        ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        return self.or_failure([begun, *texts, ended, {"choices": [], **told}], FAILURE)

    def claude(self, streamed: bool, *, everywhere: bool) -> list[Json]:
        """An answer of the Messages API."""
        del everywhere
        begun = {"input_tokens": self.chance.randrange(1, 50), "cache_read_input_tokens": 3, "output_tokens": 1}
        usage = {**begun, "output_tokens": 5}
        if not streamed:
            said = {"type": "message", "content": [{"type": "text", "text": "a"}], "usage": usage}
            return [self.chance.choice((said, said, OVERLOADED))]
        start = {"type": "message_start", "message": {"id": "m", "usage": begun}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        return self.or_failure([start, *[CLAUDES_TEXT] * 5, end, {"type": "message_stop"}], OVERLOADED)

    def or_failure(self, parts: list[Json], failure: Json) -> list[Json]:
        """The stream, or its beginning with an error behind it."""
        return [*parts[: self.chance.choice((0, 0, 1, 2, 4))], failure] if self.chance.random() < 0.2 else parts


@dataclass
class Body(httpx.AsyncByteStream):
    """An answer in pieces of one or several parts, which may break off between any two."""

    parts: Sequence[Json]
    streamed: bool
    attempt: Attempt
    chance: random.Random

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = list(self.parts)
        while left:
            for _ in range(self.chance.randrange(3)):
                await asyncio.sleep(0)
            if self.chance.random() < 0.04:
                raise self.chance.choice((httpx.RemoteProtocolError("cut"), httpx.ReadTimeout("stalled")))
            count = self.chance.choice((1, 1, 2, len(left)))
            now, left = left[:count], left[count:]
            for part in now:
                self.attempt.leaves(part)
            yield (
                b"".join(b"data: %b\n\n" % json.dumps(part).encode() for part in now)
                if self.streamed
                else (json.dumps(now[0]).encode())
            )
        if self.streamed:
            yield b"data: [DONE]\n\n"


@dataclass
class Hub:
    """Takes every event."""

    events: list[Json] = field(default_factory=list)

    async def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        self.events += [json.loads(body) for _, body in bodies]


async def one_call(pipeline: Pipeline, chance: random.Random, call: str) -> None:
    """A client that may leave, of a gateway that may stop."""
    body: Json = {"model": chance.choice(MODELS), "messages": [{"role": "user", "content": call}]}
    body["stream"] = chance.random() < 0.6
    if chance.random() < 0.3:
        body["usage"] = {"include": True}
    patience = chance.choice((1, 3, 6, 10, 10**6, 10**6, 10**6))

    async def receive() -> Json:
        for _ in range(min(patience, 10**4)):
            await asyncio.sleep(0 if patience < 10**6 else 0.01)
        return {"type": "http.disconnect"}

    async def send(message: Json) -> None:
        await asyncio.sleep(0)

    async def served() -> None:
        outcome = await pipeline.run(
            read_call("chat", json.dumps(body).encode(), None), Caller({"subscription": "s"}, {}), call
        )
        if isinstance(outcome, Streamed):
            await StreamRelay(outcome, call)({}, receive, send)

    task = asyncio.create_task(served())
    if chance.random() < 0.2:
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
    with suppress(TollkeeperError, asyncio.CancelledError):
        await task


@pytest.mark.parametrize("seed", range(6))
async def test_accounts_come_out_even(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No place and no hold is lost, every request that a model got is one event, and what it counted is billed: its own
    usage where that arrived, else what was seen of its answer, else nothing.
    """
    monkeypatch.setattr("gateway.attempts._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("gateway.breakers.OPEN_SECONDS", 0.02)
    chance = random.Random(seed)
    budget, backend, hub = Budget(chance), Backend(chance), Hub()
    pricer = Pricer(PriceBook([]), CONFIG)
    services: Any = SimpleNamespace(
        budget=budget, config=SimpleNamespace(current=CONFIG), pricer=pricer, router=Router(CONFIG, pricer)
    )
    transport: Any = backend
    upstream = Upstream(Settings(model_keys={"D_API_KEY": "k"}), lambda: CONFIG, transport)
    queue = EventQueue(hub)
    await queue.start()
    pipeline = Pipeline(services, upstream, queue, "test")
    calls = [f"call-{seed}{n:04}" for n in range(CALLS)]
    await asyncio.gather(*(one_call(pipeline, chance, call) for call in calls))
    await queue.close(0.3)

    assert queue._taken == 0
    assert not budget.held - {event["data"]["reservation"] for event in hub.events}
    by_call: dict[str, list[Json]] = defaultdict(list)
    for event in hub.events:
        by_call[event["id"]].append(event["data"])
    for call in calls:
        events = sorted(by_call[call], key=lambda data: data["attempt"])
        assert len({data["attempt"] for data in events}) == len(events)
        assert len(events) == len(backend.attempts[call])
        for data, attempt in zip(events, backend.attempts[call], strict=True):
            assert_billed(data, attempt)
            assert budget.priced[data["reservation"]] == data["deployment"]
            if attempt.usage or data["status"] == 200:
                assert data["reservation"] not in budget.released


def assert_billed(data: Json, attempt: Attempt) -> None:
    """The event bills what is known of the attempt."""
    guess = data.get("output_tokens_estimate")
    if attempt.usage is not None and not attempt.written:
        assert (data["usage"], guess) == (attempt.usage, None)
    elif attempt.written:
        assert data["status"] == 200
        assert guess >= (attempt.usage or {}).get("completion_tokens", 0) + attempt.written
    elif attempt.made:
        assert data["status"] == 200
        assert guess is None or guess > 0  # None: ingest takes what such calls use on average
    else:
        assert not guess
