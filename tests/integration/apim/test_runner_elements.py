"""Each element does to a call what API Management's reference says."""

from __future__ import annotations

import json

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from tests.integration.apim.conftest import Start
from tests.support.policy_files import FORWARD, Backend

CHAT = "/openai/v1/chat/completions"


async def test_variables_keep_the_type_of_their_expression(start: Start, client: httpx.AsyncClient) -> None:
    """An int stays an int, a literal is a string, and a JObject can be read again."""
    runner = await start(
        """<set-variable name="n" value="@(41)" />
        <set-variable name="s" value="41" />
        <set-variable name="o" value='@(new JObject(new JProperty("x", 7)))' />
        <return-response><set-body>@(((int)context.Variables["n"] + 1) + (string)context.Variables["s"]
            + ((JObject)context.Variables["o"])["x"])</set-body></return-response>"""
    )
    assert (await client.post(runner.url + CHAT)).text == "42417"


async def test_set_header_overrides_skips_appends_and_deletes(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Each action on a header that is there and on one that is not, with several values."""
    runner = await start(
        """<set-header name="a" exists-action="override"><value>new</value></set-header>
        <set-header name="b" exists-action="skip"><value>new</value></set-header>
        <set-header name="c" exists-action="append"><value>new</value></set-header>
        <set-header name="d" exists-action="delete" />
        <set-header name="e" exists-action="skip"><value>1</value><value>2</value></set-header>
        <set-header name='@("f" + context.Request.Headers["a"].First())'><value>@(null)</value></set-header>"""
    )
    await client.post(runner.url + CHAT, headers=dict.fromkeys("abcd", "old"))
    sent = backend.request.headers
    assert [sent.getlist(name) for name in ("a", "b", "c", "d", "e", "fnew")] == [
        ["new"],
        ["old"],
        ["old", "new"],
        [],
        ["1", "2"],
        [""],
    ]


async def test_headers_may_hold_any_letter_but_no_line_break(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Bytes that came go as they came, other letters as UTF-8; a line break would smuggle a header in."""
    runner = await start(
        """<set-header name="x-policy"><value>@("\u20ac")</value></set-header>
        <set-header name="x-line"><value>@(context.Request.Headers.ContainsKey("x-break") ? "a\\nb: c" : "ok")</value>
        </set-header>"""
    )
    await client.post(runner.url + CHAT, headers={"x-client": "caf\u00e9".encode()})
    sent = dict(backend.request.headers.raw)
    assert (sent[b"x-client"], sent[b"x-policy"]) == ("caf\u00e9".encode(), "\u20ac".encode())
    assert (await client.post(runner.url + CHAT, headers={"x-break": "1"})).status_code == 500


async def test_set_body_replaces_the_request_and_the_answer(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """By text or expression, with the length that belongs to it, and read again by later expressions."""
    runner = await start(
        """<set-body>@{
            var body = context.Request.Body.As&lt;JObject&gt;();
            body["model"] = "small";
            return body.ToString();
        }</set-body>
        <set-variable name="model" value='@((string)context.Request.Body.As&lt;JObject&gt;(true)["model"])' />""",
        outbound='<set-body>@((string)context.Variables["model"])</set-body>',
    )
    answer = await client.post(runner.url + CHAT, json={"model": "big", "n": 1})
    assert backend.json() == {"model": "small", "n": 1}
    assert (answer.text, answer.headers["content-length"]) == ("small", "5")


async def test_a_body_that_was_consumed_is_gone(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """Read without preserveContent and not set again, the backend gets nothing; so does the client of an answer."""
    runner = await start(
        '<set-variable name="x" value="@(context.Request.Body.As&lt;string&gt;())" />',
        outbound='<set-variable name="y" value="@(context.Response.Body.As&lt;string&gt;())" />',
    )
    answer = await client.post(runner.url + CHAT, content=b"hello")
    assert (backend.bodies[-1], answer.content) == (b"", b"")


async def test_query_parameters_method_and_path_change_what_the_backend_sees(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """rewrite-uri copies what its template does not name, and context.Request.Url shows the way to the backend."""
    runner = await start(
        """<set-query-parameter name="b" exists-action="override"><value>2 3</value></set-query-parameter>
        <set-query-parameter name="c" exists-action="delete" />
        <set-query-parameter name="a" exists-action="append"><value>x</value></set-query-parameter>
        <set-query-parameter name="b" exists-action="skip"><value>no</value></set-query-parameter>
        <set-method>PUT</set-method>
        <rewrite-uri template="/other/{deployment-id}/go?fixed=1" />
        <set-header name="seen">
          <value>@(context.Request.Url.Path + context.Request.OriginalUrl.Path)</value></set-header>"""
    )
    await client.post(f"{runner.url}/openai/deployments/gpt/chat/completions?a=1&c=9")
    assert (backend.request.method, backend.request.url.path) == ("PUT", "/other/gpt/go")
    assert backend.request.url.query == "fixed=1&a=1&b=2%203&a=x"
    assert backend.request.headers["seen"] == "/other/gpt/go/openai/deployments/gpt/chat/completions"


async def test_rewrite_uri_can_drop_the_query(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """With copy-unmatched-params false only the template's own parameters go on."""
    runner = await start('<rewrite-uri template="@(&quot;/x?y=1&quot;)" copy-unmatched-params="false" />')
    await client.post(f"{runner.url}{CHAT}?a=1")
    assert str(backend.request.url) == f"{backend.url}/x?y=1"


async def test_a_backend_is_chosen_by_id_or_url_and_a_pool_takes_turns(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """set-backend-service with backend-id, with base-url, and with an id that does not exist."""
    runner = await start(
        """<choose>
          <when condition='@(context.Request.Headers.ContainsKey("x-url"))'>
            <set-backend-service base-url='@(context.Request.Headers["x-url"].First())' /></when>
          <otherwise>
            <set-backend-service backend-id='@(context.Request.Headers.GetValueOrDefault("x-id", "pool"))' />
          </otherwise>
        </choose>""",
        backends={"pool": [f"{backend.url}/one", f"{backend.url}/two"]},
    )
    for _ in range(3):
        await client.post(runner.url + CHAT)
    await client.post(runner.url + CHAT, headers={"x-url": f"{backend.url}/three/"})
    assert [request.url.path.split("/")[1] for request in backend.requests] == ["one", "two", "one", "three"]
    assert (await client.post(runner.url + CHAT, headers={"x-id": "nobody"})).status_code == 500
    assert runner.errors[-1]["Source"] == "set-backend-service"


async def test_return_response_ends_the_call(start: Start, backend: Backend, client: httpx.AsyncClient) -> None:
    """Neither the backend nor outbound runs; without a status it is 200 and empty."""
    runner = await start(
        "<return-response />",
        outbound='<set-header name="x-outbound"><value>ran</value></set-header>',
    )
    answer = await client.post(runner.url + CHAT)
    assert (answer.status_code, answer.content, backend.requests) == (200, b"", [])
    assert "x-outbound" not in answer.headers


async def test_return_response_can_return_what_a_request_answered(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """response-variable-name gives the answer, and the children change it."""
    backend.answers = [JSONResponse({"from": "service"}, 402, {"x-kept": "1", "x-changed": "1"})]
    runner = await start(
        f"""<send-request mode="new" response-variable-name="answer"><set-url>{backend.url}/ask</set-url></send-request>
        <return-response response-variable-name="answer">
          <set-header name="x-changed"><value>2</value></set-header>
        </return-response>"""
    )
    answer = await client.post(runner.url + CHAT)
    assert (answer.status_code, answer.json()) == (402, {"from": "service"})
    assert (answer.headers["x-kept"], answer.headers["x-changed"]) == ("1", "2")


async def test_set_status_changes_the_answer(start: Start, client: httpx.AsyncClient) -> None:
    """In outbound, with an expression."""
    runner = await start(outbound='<set-status code="@(context.Response.StatusCode + 1)" reason="Made up" />')
    assert (await client.post(runner.url + CHAT)).status_code == 201


async def test_choose_takes_the_first_branch_that_holds(start: Start, client: httpx.AsyncClient) -> None:
    """Later conditions are not even evaluated; without a match otherwise runs."""
    branch = "<return-response><set-body>{}</set-body></return-response>"
    runner = await start(
        f"""<choose>
        <when condition='@(context.Request.Headers.ContainsKey("a"))'>{branch.format("a")}</when>
        <when condition='@(context.Request.Headers["b"].First() == "1")'>{branch.format("b")}</when>
        <otherwise>{branch.format("none")}</otherwise></choose>"""
    )
    answers = [await client.post(runner.url + CHAT, headers=h) for h in ({"a": "1"}, {"b": "1"}, {"b": "0"}, {})]
    assert [answer.text[:4] for answer in answers] == ["a", "b", "none", '{ "s']


async def test_trace_and_context_trace_are_kept(start: Start, client: httpx.AsyncClient) -> None:
    """Source, message and metadata of <trace>, and what expressions say themselves."""
    runner = await start(
        """<trace source="gate" severity="verbose">
          <message>@("hello")</message><metadata name="n" value="@(1)" /></trace>
        <set-variable name="x" value='@{ context.Trace("said"); return 1; }' />"""
    )
    await client.post(runner.url + CHAT)
    assert runner.traces == ["gate hello n=1", "said"]


async def test_named_values_are_text_before_expressions_are_read(start: Start, client: httpx.AsyncClient) -> None:
    """In literals, inside C# strings, and an override over the default."""
    runner = await start(
        '<return-response><set-body>@("{{a}}" + {{n}})</set-body></return-response>', named_values={"a": "x", "n": "1"}
    )
    assert (await client.post(runner.url + CHAT)).text == "x1"


async def test_fragments_run_in_place(start: Start, client: httpx.AsyncClient) -> None:
    """A fragment included twice runs twice, and sees the variables of its place."""
    runner = await start(
        """<set-variable name="n" value="@(0)" />
        <include-fragment fragment-id="f" /><include-fragment fragment-id="f" />
        <return-response><set-body>@(((int)context.Variables["n"]).ToString())</set-body></return-response>""",
        fragments={"f": '<set-variable name="n" value=\'@((int)context.Variables["n"] + 1)\' />'},
    )
    assert (await client.post(runner.url + CHAT)).text == "2"


async def test_values_are_cached_for_their_time(start: Start, client: httpx.AsyncClient) -> None:
    """Stored, found with its type, removed; and a default for what is not there."""
    runner = await start(
        """<cache-lookup-value key="k" variable-name="found" default-value="@(-1)" />
        <cache-lookup-value key="other" variable-name="missing" />
        <choose>
          <when condition='@(context.Request.Headers.ContainsKey("x-remove"))'><cache-remove-value key="k" /></when>
          <otherwise><cache-store-value key="k" value="@(7)" duration="60" caching-type="internal" /></otherwise>
        </choose>
        <return-response><set-body>@(((int)context.Variables["found"]).ToString()
            + context.Variables.ContainsKey("missing"))</set-body></return-response>"""
    )
    seen = [(await client.post(runner.url + CHAT, headers=h)).text for h in ({}, {}, {"x-remove": "1"}, {})]
    assert seen == ["-1False", "7False", "7False", "-1False"]
    runner.gateway.cache.put("k", 7, seconds=0)  # its time is over
    assert (await client.post(runner.url + CHAT)).text == "-1False"


async def test_retry_repeats_while_its_condition_holds(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """Until an answer is good, at most `count` further times, with the request body each time."""
    runner = await start(
        backend=f"""<retry condition="@(context.Response.StatusCode &gt;= 500)" count="2" interval="0">
        {FORWARD}</retry>"""
    )
    backend.answers = [Response(status_code=503), JSONResponse({"ok": 1})]
    assert (await client.post(runner.url + CHAT, content=b"body")).json() == {"ok": 1}
    assert backend.bodies == [b"body", b"body"]
    backend.answers = [Response(status_code=status) for status in (500, 501, 502)]
    assert (await client.post(runner.url + CHAT)).status_code == 502
    assert len(backend.requests) == 5


@pytest.mark.parametrize(
    ("attributes", "waits"),
    [
        ('interval="2"', [2, 2, 2]),
        ('interval="2" first-fast-retry="true"', [0, 2, 2]),
        ('interval="2" delta="3"', [2, 5, 8]),
        ('interval="2" delta="10" max-interval="15"', [2, pytest.approx(12, abs=2), 15]),
    ],
)
async def test_retry_waits_as_documented(
    start: Start, backend: Backend, client: httpx.AsyncClient, attributes: str, waits: list[float]
) -> None:
    """Fixed, first at once, linear and exponential up to a most."""
    runner = await start(backend=f'<retry condition="true" count="3" {attributes}>{FORWARD}</retry>')
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    runner.gateway.sleep = sleep  # type: ignore[method-assign]
    await client.post(runner.url + CHAT)
    assert slept == waits


async def test_a_managed_identity_authenticates_to_the_backend(
    start: Start, backend: Backend, client: httpx.AsyncClient
) -> None:
    """As Authorization, or in a variable; and ignore-error leaves the request as it is."""

    def mint(resource: str, client_id: str | None) -> str:
        if resource == "https://down":
            raise RuntimeError("no identity")
        return f"{resource}|{client_id}"

    runner = await start(
        """<authentication-managed-identity resource="https://a" client-id="c" />
        <authentication-managed-identity resource="https://b" output-token-variable-name="t" />
        <authentication-managed-identity resource="https://down" ignore-error="true" />
        <set-header name="x-t"><value>@((string)context.Variables["t"])</value></set-header>""",
        mint_token=mint,
    )
    await client.post(runner.url + CHAT, headers={"authorization": "Bearer mine"})
    assert backend.request.headers.getlist("authorization") == ["Bearer https://a|c"]
    assert backend.request.headers["x-t"] == "https://b|None"


async def test_a_token_that_cannot_be_had_is_an_error(start: Start, client: httpx.AsyncClient) -> None:
    """Without ignore-error the call ends in on-error."""

    def mint(resource: str, client_id: str | None) -> str:
        raise RuntimeError("no identity")

    runner = await start('<authentication-managed-identity resource="https://a" />', mint_token=mint)
    assert (await client.post(runner.url + CHAT)).status_code == 500
    assert runner.errors[-1]["Source"] == "authentication-managed-identity"


async def test_expressions_see_the_call(start: Start, client: httpx.AsyncClient) -> None:
    """Operation, subscription, product, deployment, matched parameters and request id."""
    runner = await start(
        """<return-response><set-body>@(new JObject(
            new JProperty("operation", context.Operation.Id), new JProperty("subscription", context.Subscription.Id),
            new JProperty("product", context.Product.Id), new JProperty("service", context.Deployment.ServiceName),
            new JProperty("deployment", context.Request.MatchedParameters["deployment-id"]),
            new JProperty("api", context.Api.Id), new JProperty("id", context.RequestId.ToString())
        ).ToString())</set-body></return-response>""",
        keys={"key": "search-prod"},
        products={"search-prod": "gold"},
    )
    url = f"{runner.url}/openai/deployments/gpt%2Dx/chat/completions"
    seen = json.loads((await client.post(url, headers={"api-key": "key"})).text)
    assert len(seen.pop("id")) == 36
    assert seen == {
        "operation": "chat-deployment",
        "subscription": "search-prod",
        "product": "gold",
        "service": "apim-local",
        "deployment": "gpt-x",
        "api": "openai",
    }
