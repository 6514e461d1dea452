"""send-request and send-one-way-request, and what log-to-eventhub puts on a real hub."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import JSONResponse

from local.apim.elements.events import MAX_MESSAGE_BYTES
from local.eventhub.embedded import EmbeddedHub
from local.process import free_port
from tests.integration.apim.conftest import Start
from tests.support.policy_files import Backend

CHAT = "/openai/v1/chat/completions"
RETURN = "<return-response><set-body>{}</set-body></return-response>"


async def test_send_request_makes_the_request_and_keeps_the_answer(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Method, headers, body and the gateway's own token go out; status, headers and body can be read after."""
    backend.answers = [JSONResponse({"left": 3}, 429, {"retry-after": "7"})]
    runner = await start(
        """<send-request mode="new" response-variable-name="a" timeout="@(5)" ignore-error="false">
          <set-url>@(context.Request.Headers["x-service"].First() + "/check?x=1")</set-url>
          <set-method>POST</set-method>
          <set-header name="Content-Type" exists-action="override"><value>application/json</value></set-header>
          <set-body>@(new JObject(new JProperty("n", 1)).ToString())</set-body>
          <authentication-managed-identity resource="api://service" />
        </send-request>"""
        + RETURN.format(
            """@{ var a = (IResponse)context.Variables["a"]; return a.StatusCode + a.Headers["Retry-After"].First()
            + a.Body.As&lt;JObject&gt;()["left"]; }"""
        ),
        mint_token=lambda resource, client_id: f"token-for-{resource}",
    )
    answer = await client.post(runner.url + CHAT, headers={"x-service": backend.url}, json={"secret": 1})
    assert answer.text == "42973"
    assert (backend.request.method, str(backend.request.url)) == ("POST", f"{backend.url}/check?x=1")
    assert backend.json() == {"n": 1}
    assert backend.request.headers["authorization"] == "Bearer token-for-api://service"
    assert "x-service" not in backend.request.headers


async def test_cookies_stay_with_the_call_that_got_them(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """What a backend sets for one caller reaches that caller, and no later request of the gateway."""
    set_cookie = JSONResponse({})
    set_cookie.set_cookie("session", "of-the-first-caller")
    backend.answers = [set_cookie]
    runner = await start()
    assert "of-the-first-caller" in (await client.post(runner.url + CHAT)).headers["set-cookie"]
    client.cookies.clear()
    await client.post(runner.url + CHAT)
    assert "cookie" not in backend.request.headers


@pytest.mark.parametrize("kind", ["slow", "away"])
async def test_an_ignored_error_leaves_null(
    start: Start, backend: Backend, client: httpx.AsyncClient, kind: str
) -> None:
    """After the time limit or without a listener the variable is null, and the call goes on."""
    backend.answers = [20.0]
    url = backend.url if kind == "slow" else f"http://127.0.0.1:{free_port()}"
    runner = await start(
        f"""<send-request response-variable-name="a" timeout="0.2" ignore-error="true"><set-url>{url}</set-url>
        </send-request>{RETURN.format('@((context.Variables["a"] == null).ToString())')}"""
    )
    async with asyncio.timeout(5):
        assert (await client.post(runner.url + CHAT)).text == "True"


@pytest.mark.parametrize(("kind", "reason"), [("slow", "Timeout"), ("away", "BackendConnectionFailure")])
async def test_an_error_that_is_not_ignored_goes_to_on_error(
    start: Start, backend: Backend, client: httpx.AsyncClient, kind: str, reason: str
) -> None:
    """As an error of send-request."""
    backend.answers = [20.0]
    url = backend.url if kind == "slow" else f"http://127.0.0.1:{free_port()}"
    runner = await start(
        f'<send-request response-variable-name="a" timeout="0.2"><set-url>{url}</set-url></send-request>'
    )
    assert (await client.post(runner.url + CHAT)).status_code == 500
    assert (runner.errors[0]["Source"], runner.errors[0]["Reason"]) == ("send-request", reason)


async def test_a_copy_carries_the_request(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """mode="copy" takes method, headers and body; the children change them."""
    runner = await start(
        f"""<send-request mode="copy" response-variable-name="a"><set-url>{backend.url}/copy</set-url>
        <set-header name="x-b" exists-action="override"><value>2</value></set-header></send-request>
        <return-response />"""
    )
    await client.post(runner.url + CHAT, content=b"text", headers={"x-a": "1", "x-b": "1"})
    sent = backend.request
    assert (sent.method, sent.url.path, backend.bodies[-1]) == ("POST", "/copy", b"text")
    assert (sent.headers["x-a"], sent.headers["x-b"]) == ("1", "2")


async def test_a_one_way_request_keeps_nobody_waiting(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """The client has its answer while the request still runs; a failure is a line in the trace."""
    runner = await start(
        """<send-one-way-request mode="new" timeout="1"><set-url>@(context.Request.Headers["x-to"].First())</set-url>
        <set-method>POST</set-method><set-body>given back</set-body></send-one-way-request><return-response />"""
    )
    backend.answers = [0.3]
    assert (await client.post(runner.url + CHAT, headers={"x-to": backend.url})).status_code == 200
    await runner.settle()
    assert backend.bodies == [b"given back"]
    await client.post(runner.url + CHAT, headers={"x-to": f"http://127.0.0.1:{free_port()}"})
    await runner.settle()
    assert "failed: ConnectError" in runner.traces[0]


async def test_events_reach_the_hub_in_order_with_their_key(
    start: Start, client: httpx.AsyncClient, hub: EmbeddedHub, hub_name: str
) -> None:
    """Through the real SDK, from inbound and outbound; longer than 200 KB they are cut without an error."""
    long = "é" * MAX_MESSAGE_BYTES
    runner = await start(
        """<log-to-eventhub logger-id="l" partition-key="@(context.Operation.Id)">@("in")</log-to-eventhub>""",
        outbound="""<log-to-eventhub logger-id="l" partition-key="chat-v1">
        @(context.Request.Body.As&lt;string&gt;(true))</log-to-eventhub>""",
        hub=hub,
        loggers={"l": hub_name},
    )
    await client.post(runner.url + CHAT, content=long.encode())
    await runner.settle()
    recorded = hub.log(hub_name)
    assert [(each.partition_key, len(each.body)) for each in recorded] == [
        ("chat-v1", 2),
        ("chat-v1", MAX_MESSAGE_BYTES),
    ]
    assert [event.logger_id for event in runner.events] == ["l", "l"]


async def test_a_hub_that_takes_nothing_fails_no_call(
    start: Start, client: httpx.AsyncClient, hub: EmbeddedHub
) -> None:
    """Nobody hears of it, as in API Management; the runner keeps it for tests."""
    log = '<log-to-eventhub logger-id="l">x</log-to-eventhub>'
    runner = await start(log, hub=hub, loggers={"l": "no-such-hub"})
    assert (await client.post(runner.url + CHAT)).status_code == 200
    await runner.settle()
    assert len(runner.gateway.hub_failures) == 1


async def test_a_logger_that_does_not_exist_is_an_error(start: Start, client: httpx.AsyncClient) -> None:
    """It would be refused at deployment; here the call says so."""
    runner = await start('<log-to-eventhub logger-id="nobody">x</log-to-eventhub>')
    assert (await client.post(runner.url + CHAT)).status_code == 500
