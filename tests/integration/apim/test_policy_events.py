"""What the hub is told of a call, how answers and streams pass, and what happens when model or gateway fail."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.apim.settings import POLICIES
from shared.usage.events import decode_event
from tests.support.policy_bench import (
    ADMITTED_AT,
    AZURE,
    CHAT,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Bench,
    admission,
    start_bench,
    utc,
)

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def raw(status: int, body: Any, **headers: str) -> dict[str, str]:
    """Request headers that make the model answer just this."""
    text = body if isinstance(body, str) else json.dumps(body)
    given = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {"x-raw-status": str(status), "x-raw-body": text, "x-raw-headers": json.dumps(given)}


def code_of(answer: httpx.Response) -> str:
    """The error's code, in OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "type", "param"}
    return str(error["code"])


@pytest.mark.parametrize(
    ("path", "fields"),
    [(CHAT, {}), (EMBEDDINGS, {"input": "hello"}), (RESPONSES, {"input": "hello"}), (AZURE.format("gpt-4o-weu"), {})],
)
async def test_whole_answer_is_reported_with_the_models_own_counts(bench: Bench, path: str, fields: dict) -> None:
    """The event decodes, keeps below 4 KB, and holds numbers and names only."""
    answer = await bench.post(bench.subscribe(), path, max_tokens=30, user="canary-user", **fields)
    assert answer.status_code == 200
    event = await bench.event(answer)
    usage = answer.json()["usage"]
    assert event["data"]["usage"] == usage
    assert (event["source"], event["time"]) == ("apim/apim-local", ADMITTED_AT)
    assert event["id"] == answer.headers["x-request-id"]
    data = event["data"]
    assert (data["streamed"], data["status"], data["attempt"]) == (False, 200, 1)
    assert data["latency_ms"] >= 0
    text = json.dumps(event)
    assert len(text) < 4096
    assert "canary-user" not in text
    assert "hello" not in text
    assert "How much" not in text
    decoded = decode_event(text.encode(), utc(ADMITTED_AT))
    assert decoded.identity_id == event["id"]


async def test_stream_is_relayed_as_it_comes_and_reported_without_counts(bench: Bench) -> None:
    """The first piece reaches the client while the model still holds back the last; nothing reads the stream."""
    headers = {"api-key": bench.subscribe(), "x-sim-call-id": "held-policies", "x-sim-hold-after": "3"}
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    model_url = bench.runner.options.backends["openai-pool"].removesuffix("/openai")  # type: ignore[union-attr]
    async with bench.client.stream("POST", CHAT, json=body, headers=headers) as answer:
        lines = answer.aiter_lines()
        first = await anext(line async for line in lines if line)
        assert first.startswith("data: ")
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(f"{model_url}/sim/release/held-policies")
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    data = (await bench.event(answer))["data"]
    assert (data["streamed"], data["usage"], data["status"]) == (True, None, 200)
    assert data["reservation"].startswith("hold-")
    assert answer.headers["x-budget-state"] == "active"
    assert bench.runner.violations == []


@pytest.mark.parametrize("path", [RESPONSES, CHAT])
async def test_streams_of_every_kind_are_never_read(bench: Bench, path: str) -> None:
    """Both APIs, and a stream that breaks off: what the client does not get is not counted here either."""
    fields = {"input": "x"} if path == RESPONSES else {}
    whole = await bench.post(bench.subscribe(), path, stream=True, **fields)
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert (await bench.event(whole))["data"]["usage"] is None
    key = bench.subscribe()
    with pytest.raises(httpx.RemoteProtocolError):
        await bench.post(key, path, stream=True, headers={"x-sim-break-after": "2"}, **fields)
    await bench.runner.settle()
    last = json.loads(bench.runner.events[-1].body)["data"]
    assert (last["streamed"], last["usage"], last["status"]) == (True, None, 200)
    assert bench.runner.violations == []


@pytest.mark.parametrize(
    ("answered", "usage", "tier"),
    [
        ({"usage": USAGE}, USAGE, None),
        (
            {"usage": {**USAGE, "note": "secret", "flag": True, "list": [1, "secret"], "none": None}},
            {**USAGE, "none": None},
            None,
        ),
        (
            {"usage": {**USAGE, "details": {"cached_tokens": 1, "text": "secret", "deep": {"x": "secret"}}}},
            {**USAGE, "details": {"cached_tokens": 1, "deep": {}}},
            None,
        ),
        ({"usage": {**USAGE, "cost": 1.5}, "service_tier": "priority"}, {**USAGE, "cost": 1.5}, "priority"),
        ({"usage": USAGE, "service_tier": "Not A Tier"}, USAGE, None),
        ({"usage": USAGE, "service_tier": 5}, USAGE, None),
        ({"usage": None}, None, None),
        ({"usage": "secret"}, None, None),
        ({"usage": [1]}, None, None),
        ({"usage": {f"count_{n}": n for n in range(200)}}, None, None),
        ({}, None, None),
        ([1], None, None),
        ('{"usage": {"prompt_tokens": 3, "odd": NaN, "odder": Infinity}}', {"prompt_tokens": 3}, None),
        ("{broken", None, None),
        ("", None, None),
    ],
)
async def test_counts_are_taken_and_texts_are_not(bench: Bench, answered: Any, usage: Any, tier: str | None) -> None:
    """Whatever a model answers, the event holds numbers, and the client gets the answer as it was."""
    answer = await bench.post(bench.subscribe(), headers=raw(200, answered, x_ms_region="West Europe"))
    assert answer.status_code == 200
    assert answer.text == (answered if isinstance(answered, str) else json.dumps(answered))
    event = await bench.event(answer)
    assert event["data"]["usage"] == usage
    assert event["data"].get("processing_tier") == tier
    assert event["data"]["region"] == "westeurope"
    assert "secret" not in json.dumps(event)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-sim-chunked": "1"},
        {"x-sim-answer-bytes": "2200000"},
        raw(200, {"usage": USAGE}, content_type="text/plain"),
        raw(200, {"usage": USAGE}, content_type="application/x-ndjson"),
    ],
)
async def test_answer_that_may_not_be_read_passes_unread(bench: Bench, headers: dict[str, str]) -> None:
    """Without a stated size, above the buffer, or no JSON: the client gets it whole, the event has no counts."""
    answer = await bench.post(bench.subscribe(), headers=headers)
    assert answer.status_code == 200
    data = (await bench.event(answer))["data"]
    assert (data["usage"], data["streamed"], data["status"]) == (None, False, 200)


async def test_stream_that_was_asked_for_and_came_whole_is_billed_by_its_own_counts(bench: Bench) -> None:
    """The answer decides, not the request: what states its size is no stream, and its counts are exact."""
    answer = await bench.post(bench.subscribe(), stream=True, headers=raw(200, {"usage": USAGE}))
    assert answer.json() == {"usage": USAGE}
    data = (await bench.event(answer))["data"]
    assert (data["usage"], data["streamed"]) == (USAGE, False)


@pytest.mark.parametrize(
    ("headers", "is_stream"),
    [
        (raw(200, {"usage": USAGE}) | {"x-sim-chunked": "1"}, False),
        (raw(200, {"usage": USAGE}, content_type="text/event-stream"), True),
    ],
)
async def test_stream_that_pretends_to_be_whole_is_not_read(
    bench: Bench, headers: dict[str, str], is_stream: bool
) -> None:
    """Called JSON it still states no size, and with a size it is still an event stream."""
    answer = await bench.post(bench.subscribe(), stream=True, headers=headers)
    assert answer.json() == {"usage": USAGE}
    data = (await bench.event(answer))["data"]
    assert (data["usage"], data["streamed"]) == (None, is_stream)


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_error_of_the_model_is_the_clients_and_costs_nothing(bench: Bench, status: int) -> None:
    """Passed on as it is, tried once, reported with its status so that the hold is freed."""
    answer = await bench.post(bench.subscribe(), headers={"x-sim-status": str(status)})
    assert (answer.status_code, code_of(answer)) == (status, "simulated_error")
    data = (await bench.event(answer))["data"]
    assert (data["status"], data["usage"], data["attempt"]) == (status, None, 1)


@pytest.mark.parametrize("status", [401, 403])
async def test_refusal_of_the_gateways_own_identity_is_502(bench: Bench, status: int) -> None:
    """Never passed on as the caller's 401; for the list of models too."""
    key = bench.subscribe()
    answer = await bench.post(key, headers=raw(status, {"error": {"code": "401", "message": "subscription key"}}))
    assert (answer.status_code, code_of(answer)) == (502, "upstream_refused")
    assert "subscription key" not in answer.text
    assert (await bench.event(answer))["data"]["status"] == status
    models = await bench.client.get("/openai/v1/models", headers={"api-key": key, **raw(status, {})})
    assert (models.status_code, code_of(models)) == (502, "upstream_refused")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_passing_trouble_is_tried_again(bench: Bench, status: int) -> None:
    """Before the first byte, stream or not; one event, which says how many tries it took."""
    for stream in (False, True):
        headers = {"x-sim-fail-first": "1", "x-sim-status": str(status), "x-sim-call-id": f"retry-{status}-{stream}"}
        answer = await bench.post(bench.subscribe(), stream=stream, headers=headers)
        assert answer.status_code == 200
        data = (await bench.event(answer))["data"]
        assert (data["status"], data["attempt"], data["streamed"]) == (200, 2, stream)


async def test_lasting_trouble_ends_after_the_tries(bench: Bench) -> None:
    """The model's own last answer reaches the client, Retry-After included."""
    headers = {"x-sim-status": "429", "x-sim-retry-after": "7"}
    answer = await bench.post(bench.subscribe(), headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    data = (await bench.event(answer))["data"]
    assert (data["status"], data["attempt"]) == (429, 3)


async def test_unread_body_is_sent_once(bench: Bench) -> None:
    """It streamed through, so there is nothing left to send again."""
    content = json.dumps({"messages": MESSAGES, "user": "u" * 2_200_000}).encode()
    headers = {"x-sim-status": "503"}
    answer = await bench.post(bench.subscribe(), AZURE.format("gpt-4o-weu"), content=content, headers=headers)
    assert answer.status_code == 503
    assert (await bench.event(answer))["data"]["attempt"] == 1


async def test_a_pool_serves_what_one_backend_cannot(mono: None) -> None:
    """The next try goes to the next backend."""
    async with start_bench() as bench:
        pool = ["http://127.0.0.1:9/openai", bench.runner.options.backends["openai-pool"]]
        bench.runner.options.backends["openai-pool"] = pool  # type: ignore[index]
        answer = await bench.post(bench.subscribe())
        assert answer.status_code == 200
        assert (await bench.event(answer))["data"]["attempt"] == 2


async def test_backend_that_cannot_be_reached_is_502(mono: None) -> None:
    """Said in our words, reported so that the hold is freed, without a word of the gateway's inside."""
    async with start_bench(backends={"openai-pool": "http://127.0.0.1:9/openai"}) as bench:
        answer = await bench.post(bench.subscribe())
        assert (answer.status_code, code_of(answer)) == (502, "upstream_unreachable")
        assert answer.headers["retry-after"] == "1"
        assert "127.0.0.1" not in answer.text
        event = await bench.event(answer)
        assert (event["data"]["status"], event["data"]["attempt"], event["data"]["usage"]) == (502, 3, None)
        assert event["data"]["reservation"].startswith("hold-")
        models = await bench.client.get("/openai/v1/models", headers={"api-key": bench.subscribe()})
        assert models.status_code == 502
        assert await bench.events(models) == []
        await bench.runner.settle()
        assert bench.service.released == []


async def test_model_that_takes_too_long_is_504(mono: None) -> None:
    """Within the named time; the call is on record, because the model may go on with it."""
    async with start_bench({"tk-model-timeout-seconds": "1", "tk-retry-count": "1"}) as bench:
        answer = await bench.post(bench.subscribe(), stream=True, headers={"x-sim-latency-ms": "4000"})
        assert (answer.status_code, code_of(answer)) == (504, "upstream_failed")
        data = (await bench.event(answer))["data"]
        assert (data["status"], data["attempt"], data["streamed"]) == (504, 2, True)


async def test_client_that_leaves_before_the_answer_is_on_record(bench: Bench) -> None:
    """The model may have served it; the event frees the hold, and nobody reads the answer."""
    key = bench.subscribe()
    seen, asked = len(bench.runner.events), len(bench.model.requests)
    call = asyncio.create_task(bench.post(key, headers={"x-sim-latency-ms": "1500"}))
    while len(bench.model.requests) == asked:  # noqa: ASYNC110 - the model has no event to wait for
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    for _ in range(100):
        if len(bench.runner.events) > seen:
            break
        await asyncio.sleep(0.05)
    assert json.loads(bench.runner.events[-1].body)["data"]["status"] == 499


async def test_method_that_no_operation_knows_is_404(bench: Bench) -> None:
    """API Management finds no operation for it, and on-error says so in OpenAI's shape."""
    answer = await bench.client.request("PROPFIND", CHAT, headers={"api-key": bench.subscribe()})
    assert (answer.status_code, code_of(answer)) == (404, "not_found")


async def test_error_after_the_event_reports_nothing_twice(mono: None, tmp_path: Path) -> None:
    """Two events of one call with different statuses would be a conflict, and the call would go to the dead letters."""
    policies = _changed_policies(
        tmp_path,
        "outbound-policy.xml",
        '<include-fragment fragment-id="tk-remember-team" />',
        '<set-variable name="broken" value=\'@(int.Parse("canary"))\' />',
    )
    async with start_bench(policies=policies) as bench:
        answer = await bench.post(bench.subscribe())
        assert (answer.status_code, code_of(answer)) == (500, "gateway_error")
        assert "canary" not in answer.text
        assert (await bench.event(answer))["data"]["status"] == 200


async def test_error_between_decision_and_model_gives_the_hold_back(mono: None, tmp_path: Path) -> None:
    """The model was never reached, so nothing is billed and the budget is free again at once."""
    policies = _changed_policies(
        tmp_path,
        "inbound-policy.xml",
        '<include-fragment fragment-id="tk-apply-decision" />',
        '<set-variable name="broken" value=\'@(int.Parse("canary"))\' />',
    )
    async with start_bench(policies=policies) as bench:
        key = bench.subscribe(says=lambda asked: admission(asked, reservation="2026-11-21T10:00:00Z.hold"))
        answer = await bench.post(key)
        assert (answer.status_code, code_of(answer)) == (500, "gateway_error")
        await bench.runner.settle()
        assert bench.service.released == ["2026-11-21T10:00:00Z.hold"]
        assert await bench.events(answer) == []


def _changed_policies(directory: Path, file: str, replaced: str, by: str) -> Path:
    """The project's policies with one element replaced."""
    copy = directory / "policies"
    shutil.copytree(POLICIES, copy)
    text = (copy / file).read_text()
    assert replaced in text
    (copy / file).write_text(text.replace(replaced, by))
    if (unused := copy / "fragments" / f"{replaced.split(chr(34))[1]}.xml").exists():
        unused.unlink()
    return copy
