"""What an attempt comes to whose stream is an error, or nothing, before anybody has seen anything of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.answers import Caller, Streamed, Whole
from gateway.asking import Asking
from gateway.breakers import Breakers
from gateway.call import call_of
from gateway.events import EventQueue
from gateway.exchange import Exchange
from gateway.failures import Failure
from gateway.pipeline import Pipeline
from gateway.providers.base import Target
from gateway.upstream import Upstream
from shared.budgets.answer import CheckAnswer
from shared.config.loader import load_config
from shared.config.model import Endpoint
from shared.settings import Settings

SAID = [{"role": "user", "content": "hi"}]
CALL = call_of("chat", {"model": "m", "messages": SAID, "stream": True}, 100)
RESPONSE = call_of("responses", {"model": "m", "input": "hi", "stream": True}, 100)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
MODELS = b"""
endpoints:
  - {id: a, provider: house, api: openai, url: "https://a.test"}
  - {id: c, provider: claude, api: anthropic, url: "https://c.test"}
models:
  - {id: main, provider: house}
  - {id: sonnet, provider: claude, fallbacks: [spare]}
  - {id: spare, provider: house}
  - {id: lone, provider: house, fallbacks: [sonnet]}
"""


def admitted(model: str = "m", asked: str = "m", provider: str = "house") -> CheckAnswer:
    return CheckAnswer(
        decision="allow" if model == asked else "downgrade",
        reason="",
        tenant="default",
        scopes={},
        requested_model=asked,
        model=model,
        provider=provider,
        deployment=model,
        state="active",
        disabled_tools=[],
        budget=None,
        admitted_at_utc=datetime(2026, 11, 21, tzinfo=UTC),
    )


async def attempt(api: str, *said: bytes, call: Any = CALL) -> tuple[Any, dict[str, Any], bool]:
    """(outcome, its event's data, whether it counted against the place)."""
    endpoint = Endpoint(id="e", provider="house", api=api, url="https://e.test")

    async def send(*_: Any) -> httpx.Response:
        head = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=head, content=pieces())

    async def pieces() -> AsyncIterator[bytes]:
        for piece in said:
            yield piece

    counted: list[Any] = []
    breakers: Any = Breakers()
    breakers.failed = lambda key, *, probe: counted.append(key)
    queue = EventQueue(SimpleNamespace())
    queue.reserve()
    asking = Asking(SimpleNamespace(send=send), queue, breakers)
    exchange = Exchange("gateway/test", "r-1", call, admitted())
    outcome = await asking.ask(exchange, ("e", "m"), Target("m", "house", "m", endpoint, None), Caller({}, {}))
    if isinstance(outcome, Streamed):
        async for piece in outcome.pieces:
            outcome.stream.feed(piece)
        outcome.ended()
    (event,) = queue._events
    return outcome, json.loads(event)["data"], bool(counted)


def event(data: Any) -> bytes:
    return b": open\n\ndata: %b\n\n" % json.dumps(data).encode()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 400, "message": "odd"}, 400),
        ({"code": 403, "message": "no", "metadata": {"reasons": [], "flagged_input": "..."}}, 403),
    ],
    ids=["bad", "flagged"],
)
async def test_an_error_of_the_callers_own_goes_to_the_caller(error: dict[str, Any], status: int) -> None:
    """It is carried to no other provider, and closes the place to nobody: any caller could bring it about at will."""
    outcome, data, counts = await attempt("openrouter", event({"error": error}))
    assert isinstance(outcome, Whole)
    assert (outcome.status, data["status"], counts) == (status, status, False)
    assert (outcome.headers["content-type"], data["usage"]) == ("application/json", None)
    assert json.loads(outcome.content)["error"]["message"] == error["message"]


@pytest.mark.parametrize(
    ("api", "said", "status", "counts"),
    [
        ("anthropic", event({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}), 529, True),
        ("openrouter", event({"error": {"code": 429, "message": "wait"}}), 429, False),
        ("openai", event({"error": {"message": "down"}}), 502, True),
        ("openai", b"data: {\n\n", 502, True),
    ],
    ids=["overloaded", "busy", "down", "unreadable"],
)
async def test_an_error_of_the_places_own_is_for_another_to_make_good(
    api: str, said: bytes, status: int, counts: bool
) -> None:
    """With the status that it stands for; being busy says nothing against a place."""
    outcome, data, counted = await attempt(api, said)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.reply, Whole)
    assert (outcome.reply.status, data["status"], outcome.again, counted) == (status, status, True, counts)


@pytest.mark.parametrize("said", [b"", b": open\n\n: wait\n\n", b"\r\n"], ids=["nothing", "comments", "blank"])
async def test_a_stream_that_ends_before_it_began_is_for_another_to_make_good(said: bytes) -> None:
    """It is no answer, so the client pays nothing for it: proxies end streams so whose backend broke."""
    outcome, data, counts = await attempt("openai", said)
    assert isinstance(outcome, Failure)
    assert (outcome.again, outcome.is_billed, counts) == (True, False, True)
    assert (data["status"], data["usage"]) == (504, None)


async def test_what_is_written_behind_a_count_is_billed_beside_all_that_was_counted() -> None:
    """Thoughts too that only the total tells: here 7, beside the two tokens of text and the one behind the count."""
    counted = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 12}
    said = [{"index": 0, "delta": {"content": "So"}}]
    more = event({"choices": said})
    outcome, data, _ = await attempt("openai", event({"choices": said, "usage": counted}), more)
    assert isinstance(outcome, Streamed)
    assert (data["aborted"], data["usage"], data["output_tokens_estimate"]) == (True, counted, 12 - 3 + 1)


async def test_a_stream_that_tells_usage_and_nothing_else_is_billed() -> None:
    """The chunk with the count is not for the client; the provider worked for it all the same."""
    outcome, data, _ = await attempt("openai", event({"choices": [], "usage": USAGE}))
    assert isinstance(outcome, Streamed)
    assert (outcome.first, data["usage"]) == (b": open\n\n", USAGE)


@pytest.mark.parametrize(
    ("code", "status", "counts"),
    [("invalid_prompt", 400, False), ("rate_limit_exceeded", 429, False), ("server_error", 500, True)],
)
async def test_a_response_that_fails_before_it_wrote_anything_costs_nothing(
    code: str, status: int, counts: bool
) -> None:
    """As when it comes whole. And whoever sends refused prompts does not close the place to everybody else."""
    error = {"code": code, "message": "m"}
    begun = event({"type": "response.created", "response": {"id": "r", "usage": None}})
    failed = event({"type": "response.failed", "response": {"id": "r", "error": error, "usage": None}})
    outcome, data, counted = await attempt("openai", begun, failed, call=RESPONSE)
    assert isinstance(outcome, Streamed)
    assert (data["status"], data["usage"], counted) == (status, None, counts)
    wrote = event({"type": "response.output_text.delta", "delta": "Hello"})
    _, data, _ = await attempt("openai", begun, wrote, failed, call=RESPONSE)
    assert (data["status"], data["output_tokens_estimate"]) == (200, 1)


@pytest.mark.parametrize(("name", "counts"), [("rate_limit_error", False), ("overloaded_error", True)])
async def test_a_message_that_ends_in_an_error_counts_as_what_that_is(name: str, counts: bool) -> None:
    """By Anthropic's names; what it had counted of the prompt is billed either way."""
    begun = event({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}})
    _, data, counted = await attempt("anthropic", begun, event({"type": "error", "error": {"type": name}}))
    assert (data["status"], data["usage"]["input_tokens"], counted) == (200, 3, counts)


async def test_what_a_message_had_counted_is_billed_however_its_pieces_come() -> None:
    """In one piece with its error, nobody has seen anything of it, and the next attempt is billed beside it."""
    begun = event({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}})
    outcome, data, _ = await attempt("anthropic", begun + event({"type": "error", "error": {"type": "api_error"}}))
    assert isinstance(outcome, Failure)
    assert (data["status"], data["usage"]["input_tokens"], outcome.is_billed) == (500, 3, True)


async def test_a_claude_that_is_busy_in_the_middle_of_an_answer_is_not_broken() -> None:
    """Its errors name no code, only a type."""
    busy = event({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}})
    _, data, counts = await attempt("anthropic", event({"type": "message_start", "message": {"id": "m"}}), busy)
    assert (data["status"], counts) == (429, False)


async def pipeline_answer(
    model: str, status: int, cheaper: dict[str, str]
) -> tuple[Whole, list[str], list[dict[str, Any]]]:
    """(answer, models checked, data of the events) of a call that Anthropic's API cannot serve; budgets serve the
    `cheaper` models, and every place of the others answers with the status.
    """
    config = load_config({"tenants.yaml": b"tenants: [{id: default}]", "models.yaml": MODELS})
    checks: list[str] = []

    async def check(request: Any) -> CheckAnswer:
        checks.append(request.model)
        served = cheaper.get(request.model, request.model)
        return admitted(served, request.model, config.models[served].provider)

    async def answer(request: httpx.Request) -> httpx.Response:
        said = json.dumps({"choices": [{"message": {"content": "hi"}}], "usage": USAGE}).encode()
        return httpx.Response(status, stream=httpx.ByteStream(said), request=request)

    services: Any = SimpleNamespace(budget=SimpleNamespace(check=check), config=SimpleNamespace(current=config))
    queue = EventQueue(SimpleNamespace())
    upstream = Upstream(Settings(), lambda: config, httpx.MockTransport(answer))
    call = call_of("chat", {"model": model, "messages": SAID, "seed": 7}, 100)
    outcome = await Pipeline(services, upstream, queue, "test").run(call, Caller({}, {}), "r-1")
    assert isinstance(outcome, Whole)
    assert queue._taken == len(queue._events)
    return outcome, checks, [json.loads(event)["data"] for event in queue._events]


async def test_a_cheaper_model_that_cannot_serve_the_call_is_not_the_callers_mistake() -> None:
    """The budget chose it, so what its API lacks is no reason to refuse: a fallback serves the call."""
    outcome, checks, (data,) = await pipeline_answer("main", 200, {"main": "sonnet"})
    assert (outcome.status, checks) == (200, ["main", "spare"])
    assert (data["model"], data["requested_model"], data["attempt"]) == ("spare", "main", 1)


async def test_a_fallback_that_cannot_serve_the_call_does_not_hide_why_it_was_asked() -> None:
    """The backend failed; told that its own request is wrong, a client would not send it again."""
    outcome, checks, (data,) = await pipeline_answer("lone", 401, {})
    assert (checks, data["status"]) == (["lone", "sonnet"], 401)
    assert (outcome.status, json.loads(outcome.content)["error"]["code"]) == (502, "upstream_refused")
