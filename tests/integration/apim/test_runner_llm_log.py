"""The LLM log as a diagnostic setting writes it to a real hub, and what is counted of each kind of answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from local.apim.settings import LlmLog
from local.eventhub.embedded import EmbeddedHub
from tests.integration.apim.conftest import Start
from tests.support.policy_files import Backend

CHAT, RESPONSES = "/openai/v1/chat/completions", "/openai/v1/responses"
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
NEWER_USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}


def sse(*events: Any) -> Response:
    """A whole event stream."""
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Response(text + "data: [DONE]\n\n", media_type="text/event-stream")


def records_in(hub: EmbeddedHub, name: str) -> list[dict[str, Any]]:
    """Every record on the hub, duplicates too, in lower case."""
    messages = [json.loads(event.body) for event in hub.log(name)]
    return [_lower(record) for message in messages for record in message["records"]]


def _lower(record: dict[str, Any]) -> dict[str, Any]:
    properties = {name.lower(): value for name, value in record["properties"].items()}
    return {**{name.lower(): value for name, value in record.items()}, "properties": properties}


ANSWERS = {
    "whole chat": (CHAT, lambda: JSONResponse({"model": "m", "usage": USAGE}), 12),
    "chat stream with usage": (CHAT, lambda: sse({"model": "m", "choices": [{}]}, {"choices": [], "usage": USAGE}), 12),
    "chat stream without usage": (CHAT, lambda: sse({"model": "m", "choices": [{}]}), 0),
    "whole response": (RESPONSES, lambda: JSONResponse({"model": "m", "usage": NEWER_USAGE}), 12),
    "response stream": (
        RESPONSES,
        lambda: sse({"type": "response.created"}, {"type": "response.completed", "response": {"usage": NEWER_USAGE}}),
        12,
    ),
    "not JSON": (CHAT, lambda: Response("hello", media_type="text/plain"), 0),
}


@pytest.mark.parametrize(("path", "answer", "tokens"), ANSWERS.values(), ids=ANSWERS)
async def test_tokens_are_read_from_what_passes_by(
    start: Start, backend: Backend, client: httpx.AsyncClient, path: str, answer: Any, tokens: int
) -> None:
    """Two rows a call: the first without tokens, the second with what the answer said, zero when it said nothing."""
    runner = await start(llm_log=LlmLog(delay_seconds=0.01))
    backend.answers = [answer()]
    await client.post(runner.url + path, json={"model": "asked"})
    await runner.settle()
    rows = [_lower(each)["properties"] for each in runner.llm_records if each["category"] == "GatewayLlmLogs"]
    rows.sort(key=lambda row: row["sequencenumber"])
    assert "totaltokens" not in rows[0]
    assert rows[1]["totaltokens"] == tokens
    assert rows[1]["prompttokens"] + rows[1]["completiontokens"] == tokens


async def test_the_log_reaches_the_hub_late_mixed_and_doubled(
    start: Start, client: httpx.AsyncClient, backend: Backend, hub: EmbeddedHub, hub_name: str
) -> None:
    """Several calls in a message, spelled in more than one way, in no order, some twice; the id is the request's."""
    log = LlmLog(hub=hub_name, delay_seconds=0.3, duplicate_every=2, calls_per_message=2)
    runner = await start(
        outbound='<set-header name="x-id"><value>@(context.RequestId.ToString())</value></set-header>',
        llm_log=log,
        hub=hub,
    )
    backend.answers = [JSONResponse({"model": "m", "usage": USAGE}) for _ in range(6)]
    ids = [(await client.post(runner.url + CHAT, json={"model": "m"})).headers["x-id"] for _ in range(6)]
    assert hub.log(hub_name) == []  # not yet
    await runner.settle()
    found = records_in(hub, hub_name)
    assert {record["correlationid"] for record in found} == set(ids)
    assert len(found) > len(runner.llm_records)
    assert max(len(json.loads(event.body)["records"]) for event in hub.log(hub_name)) == 6
    spellings = {name for each in runner.llm_records for name in each["properties"] if name.lower() == "modelname"}
    assert spellings == {"modelName", "ModelName"}


async def test_texts_are_logged_only_when_asked_for(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """By default no prompt and no answer is in the log; a careless setting puts both there."""
    answer = {"model": "m", "usage": USAGE, "choices": [{"message": {"content": "canary-out"}}]}
    for messages in (False, True):
        backend.answers = [JSONResponse(answer)]
        runner = await start(llm_log=LlmLog(delay_seconds=0.01, messages=messages))
        await client.post(runner.url + CHAT, json={"messages": [{"content": "canary-in"}]})
        await runner.settle()
        text = json.dumps(runner.llm_records)
        assert ("canary-in" in text, "canary-out" in text) == (messages, messages)


async def test_calls_that_reach_no_model_have_no_llm_row(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Refused by a policy, failed at the backend, or no LLM operation: only the gateway's own record."""
    runner = await start(
        """<choose><when condition='@(context.Request.Headers.ContainsKey("x-no"))'><return-response />
        </when></choose>""",
        llm_log=LlmLog(delay_seconds=0.01),
    )
    backend.answers = [Response(status_code=500)]
    await client.post(runner.url + CHAT, headers={"x-no": "1"})
    await client.post(runner.url + CHAT)
    await client.get(f"{runner.url}/openai/v1/models")
    await runner.settle()
    assert [record["category"] for record in runner.llm_records] == ["GatewayLogs"] * 3


async def test_the_deployment_is_the_one_that_was_called(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """After a policy rewrote the path, the log names what served the call."""
    runner = await start(
        '<rewrite-uri template="/deployments/small/chat/completions" />', llm_log=LlmLog(delay_seconds=0.01)
    )
    await client.post(f"{runner.url}/openai/deployments/big/chat/completions", json={})
    await runner.settle()
    names = {_lower(each)["properties"].get("deploymentname") for each in runner.llm_records}
    assert names - {None} == {"small"}
