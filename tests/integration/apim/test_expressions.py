"""Expressions compiled by the real compiler see the `context` that API Management documents."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from local.apim.expressions import (
    BUFFER_LIMIT_BYTES,
    Body,
    Context,
    ContextParts,
    CSharpObject,
    Expression,
    ExpressionError,
    ExpressionHost,
    HostLostError,
    RequestMessage,
    ResponseMessage,
    StreamedBodyRead,
    compile_expressions,
)

REQUEST_ID = uuid.UUID("0b2e9f0c-51f6-4f0e-9a53-6f1c5d5a1c11")
NOON = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)


def _token(claims: dict[str, Any]) -> str:
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, "signature"))


TOKEN = _token(
    {
        "iss": "https://login/",
        "sub": "s-1",
        "aud": ["a1", "a2"],
        "jti": "j-1",
        "exp": 1_795_000_000,
        "nbf": 1_794_000_000,
        "iat": 1_793_000_000,
        "groups": ["g1", "g2"],
        "admin": True,
        "level": 3,
    }
)

PARTS = ContextParts(
    request_id=REQUEST_ID,
    timestamp=NOON,
    tracing=True,
    api={
        "Id": "openai",
        "Name": "OpenAI",
        "Path": "openai",
        "Version": "v2",
        "Revision": "3",
        "IsCurrentRevision": False,
        "Protocols": ["http", "https"],
        "ServiceUrl": "https://backend:8443/openai",
        "SubscriptionKeyParameterNames": {"Header": "api-key", "Query": "subscription-key"},
    },
    backend={"Id": "pool", "Type": "Pool", "AzureRegion": "westeurope"},
    deployment={"Region": "West Europe", "ServiceName": "apim-1", "ServiceId": "svc"},
    last_error={
        "Source": "rate-limit",
        "Reason": "RateLimitExceeded",
        "Message": "too many",
        "Scope": "api",
        "Section": "inbound",
        "Path": "choose[1]",
        "PolicyId": "limit",
    },
    operation={"Id": "chat", "Name": "Chat", "Method": "POST", "UrlTemplate": "/chat/completions"},
    product={
        "Id": "team-a",
        "Name": "Team A",
        "ApprovalRequired": True,
        "SubscriptionRequired": True,
        "SubscriptionsLimit": 5,
        "State": "Published",
        "Groups": [{"Id": "g", "Name": "Guests"}],
        "Apis": [{"Id": "openai", "Name": "OpenAI"}],
    },
    subscription={
        "Id": "sub-1",
        "Name": "Key of team A",
        "Key": "k",
        "PrimaryKey": "p",
        "SecondaryKey": "s",
        "CreatedDate": "2026-01-02T03:04:05Z",
        "StartDate": "2026-01-03T00:00:00Z",
    },
    user={
        "Id": "u-1",
        "Email": "ada@example.com",
        "FirstName": "Ada",
        "LastName": "Lovelace",
        "Note": "first",
        "RegistrationDate": "2025-12-31T00:00:00Z",
        "Groups": [{"Id": "dev", "Name": "Developers"}],
        "Identities": [{"Id": "ada", "Provider": "AAD"}],
    },
    workspace={"Id": "ws", "Name": "Workspace"},
)

REQUEST = RequestMessage(
    method="POST",
    url="https://gateway.example:8443/openai/deployments/gpt%2D4o/chat?api-version=1&x=a&x=b%20c",
    original_url="https://gateway.example/original?y=1",
    headers={"Api-Key": ["secret"], "X-Many": ["one", "two"]},
    ip_address="203.0.113.9",
    matched_parameters={"deployment": "gpt-4o"},
    foundry_deployment="gpt-4o",
)
RESPONSE = ResponseMessage(status_code=429, status_reason="Too Many Requests", headers={"Retry-After": ["7"]})

MEMBERS: list[tuple[str, Any]] = [
    ("context.RequestId", REQUEST_ID),
    ("context.Timestamp", NOON),
    ("context.Elapsed > TimeSpan.Zero", True),
    ("context.Tracing", True),
    ("context.Api.Id", "openai"),
    ("context.Api.Name", "OpenAI"),
    ("context.Api.Path", "openai"),
    ("context.Api.Version", "v2"),
    ("context.Api.Revision", "3"),
    ("context.Api.IsCurrentRevision", False),
    ('string.Join("+", context.Api.Protocols)', "http+https"),
    ("context.Api.ServiceUrl.Host + context.Api.ServiceUrl.Port", "backend8443"),
    ("context.Api.SubscriptionKeyParameterNames.Header", "api-key"),
    ("context.Api.SubscriptionKeyParameterNames.Query", "subscription-key"),
    ("context.Backend.Id + context.Backend.Type + context.Backend.AzureRegion", "poolPoolwesteurope"),
    ("context.Deployment.Region", "West Europe"),
    ("context.Deployment.ServiceName", "apim-1"),
    ("context.Deployment.ServiceId", "svc"),
    ("context.Deployment.GatewayId", "managed"),
    ("context.Deployment.Certificates.Count", 0),
    ("context.LastError.Source", "rate-limit"),
    ("context.LastError.Reason", "RateLimitExceeded"),
    ("context.LastError.Message", "too many"),
    ("context.LastError.Scope", "api"),
    ("context.LastError.Section", "inbound"),
    ("context.LastError.Path", "choose[1]"),
    ("context.LastError.PolicyId", "limit"),
    ("context.Operation.Id", "chat"),
    ("context.Operation.Name", "Chat"),
    ("context.Operation.Method", "POST"),
    ("context.Operation.UrlTemplate", "/chat/completions"),
    ("context.Product.Id", "team-a"),
    ("context.Product.Name", "Team A"),
    ("context.Product.ApprovalRequired", True),
    ("context.Product.SubscriptionRequired", True),
    ("context.Product.SubscriptionsLimit", 5),
    ("context.Product.State == ProductState.Published", True),
    ("context.Product.Groups.Single().Name", "Guests"),
    ("context.Product.Apis.Single().Id", "openai"),
    ("context.Subscription.Id", "sub-1"),
    ("context.Subscription.Name", "Key of team A"),
    ("context.Subscription.Key", "k"),
    ("context.Subscription.PrimaryKey", "p"),
    ("context.Subscription.SecondaryKey", "s"),
    ("context.Subscription.CreatedDate", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("context.Subscription.StartDate", datetime(2026, 1, 3, tzinfo=UTC)),
    ("context.Subscription.EndDate", None),
    ("context.User.Id", "u-1"),
    ("context.User.Email", "ada@example.com"),
    ('context.User.FirstName + " " + context.User.LastName', "Ada Lovelace"),
    ("context.User.Note", "first"),
    ("context.User.RegistrationDate", datetime(2025, 12, 31, tzinfo=UTC)),
    ("context.User.Groups.Single().Id", "dev"),
    ("context.User.Identities.Single().Provider", "AAD"),
    ("context.Workspace.Id + context.Workspace.Name", "wsWorkspace"),
    ("context.Request.Method", "POST"),
    ("context.Request.IpAddress", "203.0.113.9"),
    ("context.Request.Body == null", True),
    ("context.Request.Certificate == null", True),
    ("context.Request.PrivateEndpointConnection == null", True),
    ("context.Request.Foundry.Deployment", "gpt-4o"),
    ('context.Request.Headers["api-key"][0]', "secret"),
    ('context.Request.Headers.GetValueOrDefault("X-MANY", "")', "one,two"),
    ('context.Request.Headers.GetValueOrDefault("x-none", "default")', "default"),
    ('context.Request.Headers.ContainsKey("x-none")', False),
    ('context.Request.MatchedParameters["deployment"]', "gpt-4o"),
    ('context.Request.MatchedParameters.GetValueOrDefault("other", "none")', "none"),
    ("context.Request.Url.Scheme", "https"),
    ("context.Request.Url.Host", "gateway.example"),
    ("context.Request.Url.Port", 8443),
    ("context.Request.Url.Path", "/openai/deployments/gpt%2D4o/chat"),
    ("context.Request.Url.QueryString", "?api-version=1&x=a&x=b%20c"),
    ('context.Request.Url.Query["x"][1]', "b c"),
    ('context.Request.Url.Query.GetValueOrDefault("x", "")', "a,b c"),
    ('context.Request.Url.Query.GetValueOrDefault("none", "-")', "-"),
    ("context.Request.OriginalUrl.ToString()", "https://gateway.example/original?y=1"),
    ("context.Request.OriginalUrl.Port", 443),
    ("context.Response.StatusCode", 429),
    ("context.Response.StatusReason", "Too Many Requests"),
    ('context.Response.Headers.GetValueOrDefault("retry-after", "0")', "7"),
    ('context.Variables.ContainsKey("none")', False),
    ('context.Variables.GetValueOrDefault<string>("none", "default")', "default"),
    ('context.Variables.GetValueOrDefault<int>("none")', 0),
]

VALUES: list[tuple[str, Any, str]] = [
    ("@(null)", None, ""),
    ("@(1 == 1)", True, "True"),
    ("@(7)", 7, "7"),
    ("@(3000000000)", 3_000_000_000, "3000000000"),
    ("@(18446744073709551615)", 2**64 - 1, "18446744073709551615"),
    ("@(1m / 3)", Decimal("0.3333333333333333333333333333"), "0.3333333333333333333333333333"),
    ("@(0.000001m * 3)", Decimal("0.000003"), "0.000003"),
    ("@(0.1 + 0.2)", 0.1 + 0.2, "0.3"),
    ("@(1234.5.ToString())", "1234.5", "1234.5"),
    ("@('x')", "x", "x"),
    ('@("Grüße, 世界 🎉 \\"\\n")', 'Grüße, 世界 🎉 "\n', 'Grüße, 世界 🎉 "\n'),
    ("@(new byte[] { 0, 255, 10 })", b"\x00\xff\n", "System.Byte[]"),
    ("@(TimeSpan.FromMilliseconds(1500))", timedelta(seconds=1.5), "00:00:01.5000000"),
    (
        "@(new DateTimeOffset(2026, 11, 21, 12, 0, 0, TimeSpan.FromHours(2)))",
        datetime(2026, 11, 21, 12, tzinfo=UTC) - timedelta(hours=2),
        "11/21/2026 12:00:00 +02:00",
    ),
    ('@(new JArray(1, "a", null))', [1, "a", None], '[\n  1,\n  "a",\n  null\n]'),
    ('@(JObject.Parse("{\\"a\\": 1.5}")["a"])', 1.5, "1.5"),
    ('@(JObject.Parse("{}").ContainsKey("a"))', False, "False"),
    ('@(JObject.Parse("{\\"a\\": 1}").ToString(Newtonsoft.Json.Formatting.None))', '{"a":1}', '{"a":1}'),
    ('@(JsonConvert.SerializeObject(new { a = 1, b = "x" }))', '{"a":1,"b":"x"}', '{"a":1,"b":"x"}'),
    ('@{ var n = 2; return string.Join(",", new[] { 1, 2 }.Where(x => x >= n).Select(x => $"{x:D2}")); }', "02", "02"),
    ('@{ if (!int.TryParse("5", out var n)) { return 0; } return n; }', 5, "5"),
    ('@{ object o = "s"; return o is string s && s.Length == 1 ? s : null; }', "s", "s"),
    ('@{ switch ("b") { case "a": return 1; case "b": return 2; default: return 3; } }', 2, "2"),
    ('@{ try { throw new Exception("a"); } catch (Exception e) when (e.Message == "a") { return 1; } }', 1, "1"),
    ('@{ var s = ""; foreach (Match m in Regex.Matches("a1b2", @"\\d")) { s += m.Value; } return s; }', "12", "12"),
    ('@(Regex.Match("max-age=30", @"max-age=(?<age>\\d+)").Groups["age"]?.Value)', "30", "30"),
    (
        '@{ using (var h = SHA256.Create()) { var hash = h.ComputeHash(Encoding.UTF8.GetBytes("a"));'
        " return BitConverter.ToString(hash, 0, 2); } }",
        "CA-97",
        "CA-97",
    ),
    ('@(Convert.ToBase64String(new HMACSHA256(new byte[] { 1 }).ComputeHash(new byte[] { 2 })).Length)', 44, "44"),
    ('@("a,b".Split(\',\').Length + "/x/".Trim(\'/\').Length)', 3, "3"),
    ('@(new Dictionary<string, int> { ["a"] = 1 }["a"])', 1, "1"),
    ('@(Tuple.Create(1, "a").Item2)', "a", "a"),
    ('@(DateTimeOffset.FromUnixTimeSeconds(0).ToString("yyyy-MM-ddZ"))', "1970-01-01Z", "1970-01-01Z"),
    ('@(XElement.Parse("<a><b>1</b></a>").Element("b").Value)', "1", "1"),
    ('@("dXNlcjpwYXNz".Length > 0 ? "Basic dXNlcjpwYXNz".AsBasic().UserId : "")', "user", "user"),
    ('@{ BasicAuthCredentials c; return "Bearer x".TryParseBasic(out c); }', False, "False"),
    ('@("not a token".AsJwt() == null)', True, "True"),
    (f'@("Bearer {TOKEN}".AsJwt().Claims.GetValueOrDefault("GROUPS", ""))', "g1,g2", "g1,g2"),
    (f'@{{ Jwt jwt; return "{TOKEN}".TryParseJwt(out jwt) ? jwt.Subject : ""; }}', "s-1", "s-1"),
    (
        '@{ var key = new byte[16]; var iv = new byte[16]; var data = Encoding.UTF8.GetBytes("abc");'
        ' return Encoding.UTF8.GetString(data.Encrypt("AES", key, iv).Decrypt("AES", key, iv)); }',
        "abc",
        "abc",
    ),
]  # fmt: skip

JWT_MEMBERS: list[tuple[str, Any]] = [
    ("Algorithm", "RS256"),
    ("Type", "JWT"),
    ("Issuer", "https://login/"),
    ("Subject", "s-1"),
    ("Id", "j-1"),
    ("Audiences.Last()", "a2"),
    ("ExpirationTime", datetime.fromtimestamp(1_795_000_000, UTC)),
    ("NotBefore", datetime.fromtimestamp(1_794_000_000, UTC)),
    ("IssuedAt", datetime.fromtimestamp(1_793_000_000, UTC)),
    ('Claims["groups"].Length', 2),
    ('Claims.GetValueOrDefault("admin", "")', "true"),
    ('Claims.GetValueOrDefault("level", "")', "3"),
    ('Claims.GetValueOrDefault("none", "-")', "-"),
]

OTHERS = {
    "body text": "@(context.Request.Body.As<string>())",
    "body text kept": "@(context.Request.Body.As<string>(preserveContent: true))",
    "body bytes kept": "@(context.Request.Body.As<byte[]>(preserveContent: true))",
    "body object kept": "@(context.Request.Body.As<JObject>(true))",
    "body token kept": "@(context.Request.Body.As<JToken>(true))",
    "body array kept": "@(context.Request.Body.As<JArray>(true))",
    "body xml kept": "@(context.Request.Body.As<XElement>(true).Name.LocalName)",
    "body document kept": "@(context.Request.Body.As<XDocument>(true).Root.Name.LocalName)",
    "body node kept": "@(context.Request.Body.As<XNode>(true).ToString())",
    "body as list": "@(context.Request.Body.As<List<string>>(true).Count)",
    "body form kept": '@(string.Join("|", context.Request.Body.AsFormUrlEncodedContent(true)["a"]))',
    "response text": "@(context.Response.Body.As<string>())",
    "response kept": "@(context.Response.Body.As<string>(true))",
    "response status": "@(context.Response == null ? 0 : context.Response.StatusCode)",
    "catch response": '@{ try { return context.Response.Body.As<string>(true); } catch { return "caught"; } }',
    "change usage": '@{ var u = (JObject)context.Variables["usage"]; u["n"] = (int)u["n"] + 1; return u; }',
    "usage": '@(((JObject)context.Variables["usage"])["n"])',
    "variable": '@(context.Variables["v"])',
    "variable as int": '@(context.Variables.GetValueOrDefault<int>("v", 1))',
    "missing": '@(context.Variables["none"])',
    "all": '@(context.Variables["all"])',
    "answer": '@(((IResponse)context.Variables["answer"]).Body.As<JObject>()["reason"].ToString())',
    "no answer": '@(context.Variables["answer"] == null)',
    "list": "@(new List<string> { \"a\" })",
    "parse": '@(int.Parse("x"))',
    "null reference": "@(context.User.Id)",
    "trace": '@{ context.Trace("one"); context.Trace("two"); return 1; }',
    "number": '@((int)context.Variables["n"] + 1)',
    "endless": "@{ while (true) { } }",
    "now": "@(context.Timestamp > DateTime.UtcNow.AddMinutes(-1) && context.Elapsed < TimeSpan.FromMinutes(1))",
}  # fmt: skip

EXPRESSIONS = [
    *(f"@({text})" for text, _ in MEMBERS),
    *(text for text, _, _ in VALUES),
    *(f'@(((Jwt)context.Variables["jwt"]).{text})' for text, _ in JWT_MEMBERS),
    *OTHERS.values(),
]
INDEX = {name: len(EXPRESSIONS) - len(OTHERS) + at for at, name in enumerate(OTHERS)}


@pytest.fixture(scope="module")
async def host(mono: None) -> AsyncIterator[ExpressionHost]:
    """One process with all expressions of this file."""
    compiled = compile_expressions([Expression(text, f"test.xml:{index}") for index, text in enumerate(EXPRESSIONS)])
    async with ExpressionHost(compiled) as host:
        yield host


@pytest.fixture
async def context(host: ExpressionHost) -> AsyncIterator[Context]:
    """A call of which everything is known."""
    context = host.open(PARTS)
    context.set_request(REQUEST)
    context.set_response(RESPONSE)
    yield context
    context.close()


async def value_of(context: Context, expression: int) -> Any:
    """The Python form of what an expression returns."""
    return (await context.evaluate(expression)).value


async def test_every_documented_member_of_context_is_readable(context: Context) -> None:
    """Each member has the value that the call was opened with, in the type that C# gives it."""
    seen = [(text, await value_of(context, index)) for index, (text, _) in enumerate(MEMBERS)]
    assert seen == MEMBERS


async def test_results_keep_their_types_and_their_texts(context: Context) -> None:
    """Values survive the way to Python, decimals and any Unicode exactly; texts are what C# writes without a locale."""
    first = len(MEMBERS)
    results = [(text, await context.evaluate(first + at)) for at, (text, _, _) in enumerate(VALUES)]
    assert [(text, result.value, result.text) for text, result in results] == VALUES
    assert [type(result.value) for _, result in results] == [type(expected) for _, expected, _ in VALUES]


async def test_a_jwt_variable_shows_the_tokens_claims(context: Context) -> None:
    """validate-jwt's output variable: registered claims by their names, all claims in Claims."""
    context.set_jwt_variable("jwt", TOKEN)
    first = len(MEMBERS) + len(VALUES)
    seen = [(text, await value_of(context, first + at)) for at, (text, _) in enumerate(JWT_MEMBERS)]
    assert seen == JWT_MEMBERS


async def test_what_was_not_told_is_null(host: ExpressionHost) -> None:
    """A call without a user has no context.User, and using it fails as in C#."""
    context = host.open(ContextParts())
    assert await value_of(context, INDEX["now"]) is True
    assert await value_of(context, INDEX["response status"]) == 0
    with pytest.raises(ExpressionError) as raised:
        await value_of(context, INDEX["null reference"])
    assert raised.value.type == "System.NullReferenceException"
    assert raised.value.where == f"test.xml:{INDEX['null reference']}"
    context.set_part("user", {"Id": "late"})
    assert await value_of(context, INDEX["null reference"]) == "late"


async def test_bodies_are_readable_as_every_documented_type(context: Context) -> None:
    """Text, bytes of any value, JSON and XML; a type that is not documented is refused."""
    reads: list[tuple[str, bytes, Any]] = [
        ("body text kept", "ü".encode(), "ü"),
        ("body text kept", b"\xef\xbb\xbfx", "x"),  # a byte order mark is no text
        ("body bytes kept", bytes(range(256)), bytes(range(256))),
        ("body object kept", b'{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("body token kept", b"3", 3),
        ("body array kept", b"[1]", [1]),
        ("body xml kept", b"<a/>", "a"),
        ("body document kept", b"<a/>", "a"),
        ("body node kept", b"<a />", "<a />"),
        ("body form kept", b"a=1&b=2&a=x+y%26", "1|x y&"),
    ]
    for name, content, expected in reads:
        context.set_request(RequestMessage("POST", "http://gateway/", body=Body(content)))
        assert await value_of(context, INDEX[name]) == expected
    with pytest.raises(ExpressionError, match="cannot be read as"):
        await value_of(context, INDEX["body as list"])


async def test_a_body_that_is_no_json_says_so(context: Context) -> None:
    """The message begins as API Management's does."""
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"[1]")))
    with pytest.raises(ExpressionError, match="The message body is not a valid JSON"):
        await value_of(context, INDEX["body object kept"])
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"<a>")))
    with pytest.raises(ExpressionError, match="The message body is not a valid XML"):
        await value_of(context, INDEX["body xml kept"])


async def test_a_body_read_without_preserve_content_is_gone(context: Context) -> None:
    """The second read fails, the gateway learns that there is nothing left to forward, and a new body is readable."""
    body = Body(b"once")
    context.set_request(RequestMessage("POST", "http://gateway/", body=body))
    assert await value_of(context, INDEX["body text kept"]) == "once"
    assert not body.consumed
    assert await value_of(context, INDEX["body text"]) == "once"
    assert body.consumed
    # Headers may change in between: the body is still the same one.
    context.set_request(RequestMessage("POST", "http://gateway/", {"x": ["1"]}, body=body))
    with pytest.raises(ExpressionError, match="read without preserveContent") as raised:
        await value_of(context, INDEX["body text kept"])
    assert raised.value.type == "Apim.BodyConsumedException"
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"twice")))
    assert await value_of(context, INDEX["body text"]) == "twice"


async def test_a_body_crosses_over_only_when_it_is_read(
    host: ExpressionHost, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are asked for once, by the first expression that reads them."""
    asked = []
    content_of = host._body
    monkeypatch.setattr(host, "_body", lambda *names: asked.append(1) or content_of(*names))  # type: ignore[func-returns-value]
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"late")))
    assert await value_of(context, INDEX["response status"]) == 429
    assert asked == []
    assert await value_of(context, INDEX["body text kept"]) == "late"
    assert await value_of(context, INDEX["body text kept"]) == "late"
    assert asked == [1]


async def test_bodies_above_the_buffer_limit_cannot_be_read(context: Context) -> None:
    """2 MiB can be read, one byte more cannot, and is not even asked for."""
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"x" * BUFFER_LIMIT_BYTES)))
    assert len(await value_of(context, INDEX["body text"])) == BUFFER_LIMIT_BYTES

    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"", size=BUFFER_LIMIT_BYTES + 1)))
    with pytest.raises(ExpressionError, match="2097153 bytes") as raised:
        await value_of(context, INDEX["body text kept"])
    assert raised.value.type == "Apim.BodyTooLargeException"


@pytest.mark.parametrize("name", ["response text", "response kept", "catch response"])
async def test_a_read_of_a_streamed_response_is_always_noticed(context: Context, name: str) -> None:
    """Even when the expression catches what it sees: in the cloud there is nothing to catch, the stream just stops."""
    context.set_response(ResponseMessage(200, body=Body(b"", streamed=True)))
    assert await value_of(context, INDEX["response status"]) == 200
    with pytest.raises(StreamedBodyRead) as raised:
        await value_of(context, INDEX[name])
    assert raised.value.where == f"test.xml:{INDEX[name]}"


async def test_a_stored_object_stays_an_object(context: Context) -> None:
    """A JObject kept by one expression is changed by another and seen by a third, as one object."""
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b'{"n": 1}')))
    await context.store(INDEX["body object kept"], "usage")
    assert await value_of(context, INDEX["change usage"]) == {"n": 2}
    assert await value_of(context, INDEX["usage"]) == 2


async def test_json_that_nests_deep_costs_only_what_asks_for_it(context: Context) -> None:
    """What Python cannot read stays in C#; what is stored is not written out, which would take gigabytes."""
    for depth in (2_000, 100_000):
        body = Body(b'{"n": 1, "a": ' + b"[" * depth + b"]" * depth + b"}")
        context.set_request(RequestMessage("POST", "http://gateway/", body=body))
        await context.store(INDEX["body object kept"], "usage")
        assert await value_of(context, INDEX["usage"]) == 1
        if depth < 10_000:
            assert isinstance(await value_of(context, INDEX["body object kept"]), CSharpObject)


async def test_only_the_documented_types_can_be_stored(context: Context) -> None:
    """set-variable keeps basic types and JSON; a list is an error here as it is there."""
    assert (await context.evaluate(INDEX["list"])).type == (
        "System.Collections.Generic.List`1[[System.String, mscorlib, Version=4.0.0.0, Culture=neutral, "
        "PublicKeyToken=b77a5c561934e089]]"
    )
    with pytest.raises(ExpressionError, match="cannot be kept in the context variable `all`"):
        await context.store(INDEX["list"], "all")
    with pytest.raises(ExpressionError, match="'all' was not present"):
        await context.evaluate(INDEX["all"])


async def test_variables_set_from_outside_have_their_c_sharp_types(context: Context) -> None:
    """And come back unchanged."""
    values: list[tuple[Any, str | None]] = [
        (None, None),
        (True, "System.Boolean"),
        (7, "System.Int32"),
        (2**31, "System.Int64"),
        (0.1, "System.Double"),
        (Decimal("1.10"), "System.Decimal"),
        ("ü", "System.String"),
        (b"\x00\xff", "System.Byte[]"),
        (REQUEST_ID, "System.Guid"),
        (NOON, "System.DateTime"),
        ({"a": [1]}, "Newtonsoft.Json.Linq.JObject"),
        ([1], "Newtonsoft.Json.Linq.JArray"),
    ]
    for value, type_name in values:
        context.set_variable("v", value)
        kept = await context.evaluate(INDEX["variable"])
        assert (kept.type, kept.value) == (type_name, value)
    context.remove_variable("v")
    with pytest.raises(ExpressionError, match="'v' was not present"):
        await context.evaluate(INDEX["variable"])
    with pytest.raises(TypeError, match="cannot hold a set"):
        context.set_variable("v", {1})


async def test_a_variable_of_another_type_is_an_error(context: Context) -> None:
    """GetValueOrDefault<int> of a string throws, as documented; a missing variable throws when it is indexed."""
    context.set_variable("v", "7")
    with pytest.raises(ExpressionError, match=r"Unable to convert context variable `v` of type `System.String`"):
        await value_of(context, INDEX["variable as int"])
    with pytest.raises(ExpressionError) as raised:
        await value_of(context, INDEX["missing"])
    assert raised.value.type == "System.Collections.Generic.KeyNotFoundException"


async def test_a_response_in_a_variable_is_read_like_any(context: Context) -> None:
    """What send-request leaves: an IResponse, or null when the request got no answer."""
    body = Body(b'{"reason": "budget"}')
    context.set_message_variable("answer", ResponseMessage(200, body=body))
    assert await value_of(context, INDEX["answer"]) == "budget"
    assert body.consumed
    context.set_message_variable("answer", None)
    assert await value_of(context, INDEX["no answer"]) is True


async def test_what_an_expression_throws_names_the_expression(context: Context) -> None:
    """Type, message and place of the failure."""
    with pytest.raises(ExpressionError) as raised:
        await value_of(context, INDEX["parse"])
    error = raised.value
    assert (error.type, error.where) == ("System.FormatException", f"test.xml:{INDEX['parse']}")
    assert error.text == OTHERS["parse"]
    assert error.message in str(error)


async def test_traces_are_collected(context: Context) -> None:
    """What expressions say with context.Trace, in order."""
    await value_of(context, INDEX["trace"])
    await value_of(context, INDEX["trace"])
    assert context.traces == ["one", "two", "one", "two"]


async def test_hundreds_of_calls_do_not_mix(host: ExpressionHost) -> None:
    """200 calls at once, each with its own variables and body, which the process asks each for in turn."""

    async def call(number: int) -> None:
        context = host.open(ContextParts())
        body = Body(json.dumps({"n": number}).encode())
        context.set_request(RequestMessage("POST", "http://gateway/", body=body))
        context.set_variable("n", number)
        for step in range(3):
            assert await value_of(context, INDEX["number"]) == number + 1
            await context.store(INDEX["body object kept"], "usage")
            assert await value_of(context, INDEX["change usage"]) == {"n": number + 1}, step
        context.close()

    await asyncio.gather(*(call(number) for number in range(200)))


async def test_a_message_of_another_call_waits_while_a_body_is_fetched(host: ExpressionHost) -> None:
    """It too has a body: taken for the one that is waited for, it would be lost and its call never answered."""
    reading, other = host.open(ContextParts()), host.open(ContextParts())
    reading.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"mine")))
    other.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"another's")))
    text, others = await asyncio.gather(
        value_of(reading, INDEX["body text"]),
        value_of(other, INDEX["body text"]),
    )
    assert (text, others) == ("mine", "another's")


async def test_a_call_that_is_cancelled_holds_up_nobody(host: ExpressionHost) -> None:
    """Its caller went away while its expression was about to read the body."""
    context = host.open(ContextParts())
    context.set_request(RequestMessage("POST", "http://gateway/", body=Body(b"x")))
    reading = asyncio.create_task(context.evaluate(INDEX["body text"]))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    del context
    other = host.open(PARTS)
    assert await value_of(other, INDEX["null reference"]) == "u-1"


async def test_the_end_of_the_process_fails_every_waiting_call(host: ExpressionHost) -> None:
    """An expression that never ends: its call and those behind it fail with the reason, and so do later ones."""
    async with ExpressionHost(host._compiled, timeout_seconds=1.0) as doomed:
        context, other = doomed.open(PARTS), doomed.open(PARTS)
        results = await asyncio.gather(
            context.evaluate(INDEX["endless"]), other.evaluate(INDEX["null reference"]), return_exceptions=True
        )
        assert all(isinstance(result, HostLostError) for result in results), results
        assert "while (true)" in str(results[0])
        with pytest.raises(HostLostError, match="no answer within 1 s"):
            await value_of(other, INDEX["null reference"])
        other.close()


async def test_a_process_that_is_killed_says_how_it_ended(host: ExpressionHost) -> None:
    """The error names the exit code."""
    async with ExpressionHost(host._compiled) as doomed:
        context = doomed.open(PARTS)
        waiting = asyncio.create_task(context.evaluate(INDEX["endless"]))
        await asyncio.sleep(0.2)
        assert doomed._process is not None
        doomed._process.kill()
        with pytest.raises(HostLostError, match="mono ended with code -9"):
            await waiting
    with pytest.raises(HostLostError, match="mono ended"):
        doomed.open(PARTS)
