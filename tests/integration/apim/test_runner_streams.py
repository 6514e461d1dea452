"""Streams stay streams: order is asserted by events, never by the clock."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from local.apim.settings import LlmLog
from tests.integration.apim.conftest import Start
from tests.support.policy_files import Backend

CHAT = "/openai/v1/chat/completions"
LOG = LlmLog(delay_seconds=0.01, duplicate_every=0)
STREAMED = '<forward-request buffer-response="false" />'


async def test_the_first_chunk_reaches_the_client_before_the_last_is_made(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """The backend makes each chunk only after the client has the one before; outbound ran before the first."""
    status = '<set-header name="x-status"><value>@(context.Response.StatusCode)</value></set-header>'
    runner = await start(backend=STREAMED, outbound=status)
    backend.answers = [backend.stream()]
    backend.chunks.put_nowait(b"data: 0\n\n")
    async with asyncio.timeout(10), client.stream("POST", runner.url + CHAT, content=b"{}") as answer:
        assert answer.headers["x-status"] == "200"
        seen = []
        async for chunk in answer.aiter_bytes():
            seen.append(chunk)
            backend.chunks.put_nowait(f"data: {len(seen)}\n\n".encode() if len(seen) < 5 else None)
    assert seen == [f"data: {number}\n\n".encode() for number in range(5)]
    assert not runner.violations


async def test_with_buffering_nothing_arrives_before_the_end(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """buffer-response defaults to true: the client waits for the whole, and a policy may read it."""
    runner = await start(
        backend="<forward-request />",
        outbound="""<set-header name="x-length">
        <value>@(context.Response.Body.As&lt;string&gt;(true).Length.ToString())</value></set-header>""",
    )
    backend.answers = [backend.stream()]
    call = asyncio.create_task(client.post(runner.url + CHAT, content=b"{}"))
    await backend.requested.wait()
    backend.chunks.put_nowait(b"data: 0\n\n")
    done, _ = await asyncio.wait({call}, timeout=0.2)
    assert not done
    backend.chunks.put_nowait(None)
    answer = await call
    assert (answer.content, answer.headers["x-length"], runner.violations) == (b"data: 0\n\n", "9", [])


@pytest.mark.parametrize(
    "policy",
    [
        '<set-variable name="b" value="@(context.Response.Body.As&lt;string&gt;(true))" />',
        """<set-variable name="b" value='@{ try { return context.Response.Body.As&lt;string&gt;(true); }
        catch (Exception) { return ""; } }' />""",
        "<set-body>mine</set-body>",
    ],
    ids=["read", "read and caught", "replaced"],
)
async def test_touching_the_body_of_a_stream_is_a_violation(
    start: Start, backend: Backend, client: httpx.AsyncClient, policy: str
) -> None:
    """It would stop the stream in API Management: here the call fails, and the tests hear of it by file and line."""
    runner = await start(backend=STREAMED, outbound=policy)
    backend.answers = [backend.stream()]
    backend.chunks.put_nowait(b"data: 0\n\n")
    answer = await client.post(runner.url + CHAT, content=b"{}")
    assert answer.status_code == 500
    assert len(runner.violations) == 1
    assert "outbound-policy.xml:2" in runner.violations[0]


async def test_an_answer_that_is_no_stream_may_be_read_up_to_the_limit(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """JSON can be read whatever buffer-response says; above 2 MiB the read fails, unread it passes whole."""
    runner = await start(
        backend=STREAMED,
        outbound="""<choose><when condition='@(!context.Request.Headers.ContainsKey("x-unread"))'>
        <set-header name="x-a">
          <value>@((string)context.Response.Body.As&lt;JObject&gt;(true)["a"])</value></set-header></when></choose>""",
    )
    large = Response(json.dumps({"a": "1", "b": "x" * 3_000_000}), media_type="application/json")
    backend.answers = [JSONResponse({"a": "1"}), large, large]
    small = await client.post(runner.url + CHAT)
    assert (small.headers["x-a"], small.json(), runner.violations) == ("1", {"a": "1"}, [])
    assert (await client.post(runner.url + CHAT)).status_code == 500
    assert "2097152" in runner.errors[-1]["Message"]
    assert (await client.post(runner.url + CHAT, headers={"x-unread": "1"})).content == large.body


async def test_a_request_above_the_limit_passes_unread_and_fails_when_read(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """2 MiB is what API Management buffers for an expression."""
    runner = await start(
        """<choose><when condition='@(context.Request.Headers.ContainsKey("x-read"))'>
        <set-variable name="b" value="@(context.Request.Body.As&lt;string&gt;(true).Length)" /></when></choose>"""
    )
    body = b"x" * 2_500_000
    assert (await client.post(runner.url + CHAT, content=body)).status_code == 200
    assert backend.bodies[-1] == body
    assert (await client.post(runner.url + CHAT, content=body, headers={"x-read": "1"})).status_code == 500


async def test_a_client_that_leaves_ends_the_stream_at_the_backend(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """The backend is let go at once; outbound ran long before and cannot know; only the gateway's log shows it."""
    runner = await start(backend=STREAMED, outbound="<trace source='out'><message>ran</message></trace>", llm_log=LOG)
    backend.answers = [backend.stream()]
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}
    backend.chunks.put_nowait(f"data: {json.dumps(usage)}\n\n".encode())
    async with client.stream("POST", runner.url + CHAT, json={"model": "gpt-4o"}) as answer:
        await anext(answer.aiter_bytes())
    async with asyncio.timeout(10):
        await backend.stream_ended.wait()
        while len(runner.llm_records) < 3:  # noqa: ASYNC110 - the runner keeps a list, not an event
            await asyncio.sleep(0.01)
    await runner.settle()
    assert runner.traces == ["out ran"]
    assert runner.errors == []
    by_category = {}
    for record in runner.llm_records:
        by_category.setdefault(record["category"], []).append(record["properties"])
    assert by_category["GatewayLogs"][0]["isRequestSuccess"] is False
    assert by_category["GatewayLogs"][0]["lastErrorReason"] == "ClientConnectionFailure"
    assert sum(each.get("totalTokens", 0) for each in by_category["GatewayLlmLogs"]) == 0


async def test_a_stream_that_breaks_off_at_the_backend_breaks_off_at_the_client(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """The status is long sent, so the connection is cut: the client must not take the part for the whole."""
    runner = await start(backend=STREAMED, llm_log=LOG)

    async def broken(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 0\n\n", "more_body": True})

    backend.answers = [broken]
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(runner.url + CHAT, json={"model": "gpt-4o"})
    await runner.settle()
    [failed] = [each["properties"] for each in runner.llm_records if each["category"] == "GatewayLogs"]
    assert failed["lastErrorReason"] == "BackendConnectionFailure"
