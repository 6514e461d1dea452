"""rate-limit-by-key and llm-token-limit refuse as API Management does."""

from __future__ import annotations

import json

import httpx
from starlette.responses import JSONResponse

from tests.integration.apim.conftest import Start
from tests.support.policy_files import Backend

CHAT = "/openai/v1/chat/completions"


def answer_with(tokens: int) -> JSONResponse:
    """A model's answer that used so many tokens."""
    usage = {"prompt_tokens": 1, "completion_tokens": tokens - 1, "total_tokens": tokens}
    return JSONResponse({"model": "gpt-4o", "usage": usage})


async def test_calls_above_the_rate_are_refused_by_key(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """429 with Retry-After for one key, while another still has calls; what is left is told."""
    runner = await start(
        """<rate-limit-by-key calls="2" renewal-period="60" counter-key='@(context.Request.Headers["x-key"].First())'
        remaining-calls-header-name="x-left" remaining-calls-variable-name="left" retry-after-variable-name="wait" />
        <set-header name="x-left"><value>@(((int)context.Variables["left"]).ToString())</value></set-header>""",
        on_error='<set-header name="x-wait"><value>@(context.Variables["wait"].ToString())</value></set-header>',
    )
    answers = [await client.post(runner.url + CHAT, headers={"x-key": key}) for key in ("a", "a", "a", "b")]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert [answers[0].headers["x-left"], answers[1].headers["x-left"]] == ["1", "0"]
    assert [request.headers["x-left"] for request in backend.requests] == ["1", "0", "1"]
    wait = answers[2].headers["retry-after"]
    assert answers[2].json() == {"statusCode": 429, "message": f"Rate limit is exceeded. Try again in {wait} seconds."}
    assert (answers[2].headers["x-wait"], 0 < int(wait) <= 60) == (wait, True)
    assert (runner.errors[0]["Source"], runner.errors[0]["Reason"]) == ("rate-limit-by-key", "RateLimitExceeded")


async def test_a_rate_window_slides(start: Start, client: httpx.AsyncClient) -> None:
    """After the renewal period the key has its calls again."""
    runner = await start('<rate-limit-by-key calls="1" renewal-period="60" counter-key="k" />')
    assert [(await client.post(runner.url + CHAT)).status_code for _ in range(2)] == [200, 429]
    window = runner.gateway.rate_windows["k"]
    window.entries[0] = (window.entries[0][0] - 61, 1)
    assert (await client.post(runner.url + CHAT)).status_code == 200


async def test_tokens_above_the_minute_are_refused(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """The answer's own count is what fills the minute: the call that passes the limit is served, the next is not."""
    runner = await start(
        """<llm-token-limit counter-key="k" tokens-per-minute="100" estimate-prompt-tokens="false"
        remaining-tokens-variable-name="left" />
        <set-header name="x-left"><value>@(((int)context.Variables["left"]).ToString())</value></set-header>"""
    )
    backend.answers = [answer_with(60), answer_with(60)]
    answers = [await client.post(runner.url + CHAT, json={"messages": []}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [request.headers["x-left"] for request in backend.requests] == ["100", "40"]
    assert answers[2].json()["message"].startswith("Token limit is exceeded. Try again in ")


async def test_a_prompt_that_does_not_fit_is_refused_before_the_model(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """With an estimate, and always for a stream."""
    runner = await start('<llm-token-limit counter-key="k" tokens-per-minute="100" estimate-prompt-tokens="false" />')
    long = {"messages": [{"role": "user", "content": "word " * 200}]}
    assert (await client.post(runner.url + CHAT, json=long)).status_code == 200
    assert (await client.post(runner.url + CHAT, json={**long, "stream": True})).status_code == 429
    assert len(backend.requests) == 1


async def test_tokens_above_the_quota_are_forbidden(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """403 for the rest of the period; tokens of a stream count as well."""
    runner = await start(
        """<llm-token-limit counter-key="k" token-quota="50" token-quota-period="Monthly"
        estimate-prompt-tokens="false" />"""
    )
    chunk = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60}}
    backend.answers = [backend.stream()]
    backend.chunks.put_nowait(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
    backend.chunks.put_nowait(None)
    answers = [await client.post(runner.url + CHAT, json={"stream": True}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 403]
    assert runner.errors[0]["Reason"] == "TokenQuotaExceeded"


async def test_a_body_that_nests_deeper_than_can_be_read_passes_the_token_limit(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """It has no prompt to count; it must not end the call either."""
    runner = await start('<llm-token-limit counter-key="k" tokens-per-minute="10" estimate-prompt-tokens="true" />')
    body = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = await client.post(runner.url + CHAT, content=body)
    assert (answer.status_code, backend.bodies) == (200, [body])
