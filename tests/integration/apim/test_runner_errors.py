"""Errors go to on-error with the LastError that API Management documents, and else have its own shape."""

from __future__ import annotations

import asyncio

import httpx
from starlette.responses import Response

from local.process import free_port
from tests.integration.apim.conftest import Start
from tests.support.policy_files import FORWARD, Backend

CHAT = "/openai/v1/chat/completions"
SHOW = """<return-response><set-status code="@(context.Response.StatusCode)" /><set-body>@(string.Join("|",
    context.LastError.Source, context.LastError.Reason, context.LastError.Section, context.LastError.Path,
    context.LastError.PolicyId, context.LastError.Message))</set-body></return-response>"""


async def test_an_unhandled_expression_error_has_the_shape_of_api_management(
    start: Start, client: httpx.AsyncClient
) -> None:
    """500, statusCode, message and an activity id; nothing of the cause."""
    runner = await start('<set-variable name="a" value=\'@((string)context.Variables["missing"])\' />')
    answer = await client.post(runner.url + CHAT)
    assert answer.status_code == 500
    body = answer.json()
    assert len(body.pop("activityId")) == 36
    assert body == {"statusCode": 500, "message": "Internal server error"}


async def test_last_error_names_policy_section_path_and_id(start: Start, client: httpx.AsyncClient) -> None:
    """As on-error sees them, of a policy inside a choose."""
    runner = await start(
        """<choose><when condition="@(false)"><base /></when></choose>""".replace(
            "<base />", '<set-variable name="x" value="1" />'
        )
        + """<choose><when condition="@(false)"><set-variable name="x" value="1" /></when><when condition="@(true)">
        <set-variable id="mine" name="a" value='@(int.Parse("x"))' /></when></choose>""",
        on_error=SHOW,
    )
    answer = await client.post(runner.url + CHAT)
    source, reason, section, path, policy_id, message = answer.text.split("|")
    assert (answer.status_code, source, reason) == (500, "set-variable", "ExpressionValueEvaluationFailure")
    assert (section, path, policy_id) == ("inbound", "choose[2]/when[2]/set-variable[1]", "mine")
    assert "format" in message


async def test_an_error_in_on_error_is_a_plain_500(start: Start, client: httpx.AsyncClient) -> None:
    """Nothing handles an error of the handler; both are on record."""
    bad = '<set-variable name="a" value=\'@(int.Parse("x"))\' />'
    runner = await start(bad, on_error=bad)
    answer = await client.post(runner.url + CHAT)
    assert (answer.status_code, answer.json()["message"]) == (500, "Internal server error")
    assert [error["Section"] for error in runner.errors] == ["inbound", "on-error"]


async def test_a_wrong_key_is_refused_although_the_api_needs_none(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """No key and a valid key pass; a key that is not known gets 401 through on-error."""
    runner = await start(on_error=SHOW, keys={"good": "search-prod"})
    answers = [await client.post(runner.url + CHAT, headers=h) for h in ({}, {"api-key": "good"}, {"api-key": "bad"})]
    assert [answer.status_code for answer in answers] == [200, 200, 401]
    assert answers[2].text.startswith("authorization|SubscriptionKeyInvalid|inbound|||Access denied")
    by_query = await client.post(f"{runner.url}{CHAT}?subscription-key=bad")
    assert (by_query.status_code, len(backend.requests)) == (401, 2)


async def test_a_refused_key_without_a_handler_names_the_header(start: Start, client: httpx.AsyncClient) -> None:
    """The built-in answer: statusCode, message and WWW-Authenticate."""
    runner = await start()
    answer = await client.post(runner.url + CHAT, headers={"api-key": "bad"})
    assert answer.json()["message"].startswith("Access denied due to invalid subscription key.")
    assert 'name="api-key",type="header"' in answer.headers["www-authenticate"]


async def test_what_matches_no_operation_is_not_found(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Through on-error inside the API, without any policy outside it; another method is another operation."""
    runner = await start(on_error=SHOW)
    inside = await client.post(f"{runner.url}/openai/v1/files")
    assert (inside.status_code, inside.text.split("|")[:2]) == (404, ["configuration", "OperationNotFound"])
    assert (await client.get(runner.url + CHAT)).status_code == 404
    outside = await client.post(f"{runner.url}/v1/chat/completions")
    assert (outside.status_code, outside.json()) == (404, {"statusCode": 404, "message": "Resource not found"})
    assert backend.requests == []


async def test_a_backend_that_is_away_and_one_that_is_slow(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """BackendConnectionFailure and Timeout, both of forward-request in the backend section."""
    runner = await start(
        "<set-backend-service backend-id='@(context.Request.Headers[\"x-to\"].First())' />",
        '<forward-request timeout="0.2" />',
        on_error=SHOW,
        backends={"away": f"http://127.0.0.1:{free_port()}", "slow": backend.url},
    )
    away = await client.post(runner.url + CHAT, headers={"x-to": "away"})
    assert away.text.startswith("forward-request|BackendConnectionFailure|backend|forward-request[1]|")
    backend.answers = [5.0]
    slow = await client.post(runner.url + CHAT, headers={"x-to": "slow"})
    assert slow.text.startswith("forward-request|Timeout|backend|forward-request[1]|")


async def test_a_connection_failure_is_retried_and_then_reported(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """The condition sees a 500; when the tries are used up the failure reaches on-error."""
    runner = await start(
        '<set-backend-service backend-id="pool" /><set-variable name="n" value="@(0)" />',
        f"""<retry condition="@(context.Response.StatusCode == 500)" count="1" interval="0">
        <set-variable name="n" value='@((int)context.Variables["n"] + 1)' />{FORWARD}</retry>""",
        '<set-header name="x-n"><value>@(context.Variables["n"].ToString())</value></set-header>',
        SHOW,
        backends={"pool": [f"http://127.0.0.1:{free_port()}", backend.url, f"http://127.0.0.1:{free_port()}"]},
    )
    first = await client.post(runner.url + CHAT)
    assert (first.status_code, first.headers["x-n"]) == (200, "2")
    second = await client.post(runner.url + CHAT)  # away, then away again
    assert (second.status_code, second.text.split("|")[1]) == (500, "BackendConnectionFailure")


async def test_a_client_that_leaves_while_the_backend_thinks_ends_in_on_error(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """The backend is let go, and on-error hears ClientConnectionFailure."""
    runner = await start(on_error="<trace source='on-error'><message>@(context.LastError.Reason)</message></trace>")
    backend.answers = [30.0]
    call = asyncio.create_task(client.post(runner.url + CHAT))
    await backend.requested.wait()
    call.cancel()
    async with asyncio.timeout(5):
        while not runner.traces:  # noqa: ASYNC110 - the runner keeps a list, not an event
            await asyncio.sleep(0.01)
    assert runner.traces == ["on-error ClientConnectionFailure"]


async def test_fail_on_error_status_code_turns_an_answer_into_an_error(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Only where the policy asks for it."""
    backend.answers = [Response(status_code=418)]
    runner = await start(backend='<forward-request fail-on-error-status-code="true" />', on_error=SHOW)
    assert (await client.post(runner.url + CHAT)).text.startswith("forward-request|")


async def test_without_forward_request_outbound_still_runs(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """An empty backend section forwards nothing; the answer is an empty 200 that outbound may change."""
    runner = await start(backend="", outbound='<set-header name="x-out"><value>1</value></set-header>')
    answer = await client.post(runner.url + CHAT)
    assert (answer.status_code, answer.headers["x-out"], backend.requests) == (200, "1", [])
