"""What a body asks for, however it was written, and what the model is sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.call import Operation, read_call
from gateway.needs import capabilities_needed
from tests.support.policy_bench import AZURE, CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Bench, admission, start_bench

BUFFER_BYTES = 2 * 1024 * 1024
BRINGING_TOOLS = ("additional_tools", "mcp_list_tools", "tool_search_output")
PIXELS, SOUND = "data:image/png;base64," + "A" * 400_000, "A" * 64_001


def saying(*parts: Any) -> dict[str, Any]:
    """A message of several parts."""
    return {"role": "user", "content": [*parts]}


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    """(status, code, param) of an answer that must be an error in OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "type", "param"}
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b"null",
        b"[]",
        b'"gpt-4o"',
        b"12",
        b'{"model": "gpt-4o"} trailing',
        b'{"model": "gpt-4o", "n": 1e999999}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[" * 200_000,
        b"{'model': 'gpt-4o'}",
        b'{"model": "gpt-4o" /* " */}',
        b'{"model": "gpt-4o", \'"\': ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe\x00\x01",
        b"\x1f\x8b\x08\x00garbage",
    ],
    ids=range(16),
)
async def test_hostile_bodies_are_400(bench: Bench, content: bytes) -> None:
    """Broken, deep, lenient or binary: no body ends in an APIM 500, and none of it is quoted."""
    for path in (CHAT, AZURE.format("gpt-4o-weu")):
        answer = await bench.post(
            bench.subscribe(), path, content=content, headers={"content-length": str(len(content))}
        )
        assert error_of(answer) == (400, "invalid_request", None)
        assert "nested too deep" in answer.text or "must be a JSON object" in answer.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 4}, "model"),
        ({"model": ["gpt-4o"]}, "model"),
        ({"model": {"id": "gpt-4o"}}, "model"),
        ({"model": "x" * 129}, "model"),
        ({"model": "gpt\u0000-4o"}, "model"),
        ({"model": "2026-11-21T10:00:00Z"}, "model"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": {}}, "stream"),
        ({"stream_options": "usage"}, "stream_options"),
        ({"stream_options": []}, "stream_options"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": "2"}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**40}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 10**10}, "max_tokens"),
        ({"max_completion_tokens": {}}, "max_completion_tokens"),
        ({"max_completion_tokens": 10**30, "max_tokens": 5}, "max_completion_tokens"),
        ({"tools": {}}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        ({"tools": [None]}, "tools"),
        ({"functions": "f"}, "tools"),
    ],
)
async def test_wrong_types_are_400_and_name_the_field(bench: Bench, fields: dict[str, Any], param: str) -> None:
    """Whatever counts for budget and bill is checked before anybody is asked."""
    asked = len(bench.service.asked)
    answer = await bench.post(bench.subscribe(), **fields)
    assert error_of(answer) == (400, "invalid_request", param)
    assert len(bench.service.asked) == asked


async def test_answers_in_the_background_are_refused(bench: Bench) -> None:
    """Their usage would come on a path that is not served: spend that nobody sees. False and null mean no."""
    key = bench.subscribe()
    for value, status in ((True, 400), ("yes", 400), (False, 200), (None, 200)):
        answer = await bench.client.post(
            RESPONSES, json={"model": "gpt-4o", "input": "hi", "background": value}, headers={"api-key": key}
        )
        assert answer.status_code == status
    assert error_of(await bench.post(key, RESPONSES, input="hi", background=1))[2] == "background"


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        (CHAT, {}, {"tools": [], "max_output_tokens": None, "choices": 1, "operation": "chat"}),
        (CHAT, {"max_tokens": 100}, {"max_output_tokens": 100}),
        (CHAT, {"max_completion_tokens": 70, "max_tokens": 100}, {"max_output_tokens": 70}),
        (CHAT, {"max_completion_tokens": None, "max_tokens": 100, "n": 3}, {"max_output_tokens": 300, "choices": 3}),
        (CHAT, {"max_tokens": 10**9, "n": 128}, {"max_output_tokens": 10**9, "choices": 128}),
        (CHAT, {"n": None, "stream": None, "tools": None, "stream_options": None}, {"choices": 1, "tools": []}),
        (RESPONSES, {"input": "x", "max_output_tokens": 50, "n": 7}, {"max_output_tokens": 50, "choices": 1}),
        (RESPONSES, {"input": "x", "stream_options": "odd"}, {"operation": "responses"}),
        (CHAT, {"service_tier": "priority"}, {"service_tier": "priority"}),
        (CHAT, {"service_tier": ["priority"]}, {"service_tier": ""}),
        (EMBEDDINGS, {"input": "x", "max_tokens": 5}, {"max_output_tokens": 0, "operation": "embeddings"}),
        (
            CHAT,
            {
                "tools": [
                    {"type": "function", "function": {"name": "look_up"}},
                    {"type": "web_search_preview_2025_03_11"},
                    {"type": "function", "name": "web_searcher"},
                    {"type": "function", "function": {"name": "look_up"}},
                    {},
                    {"type": 5},
                    {"type": "function", "function": "odd"},
                    {"type": "mcp", "name": ["odd"]},
                ],
                "functions": [{"name": "old"}],
                "web_search_options": {},
            },
            {"tools": ["look_up", "web_search", "web_searcher", "function", "mcp", "old"]},
        ),
    ],
)
async def test_the_service_is_asked_for_what_the_call_can_cost(
    bench: Bench, path: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Output of all choices together, tools by the names that budgets know, input by the bytes of the body."""
    answer = await bench.post(bench.subscribe(), path, headers={"x-sim-output-tokens": "1"}, **fields)
    asked = bench.service.asked[-1]
    assert {name: asked[name] for name in expected} == expected
    assert asked["model"] == "gpt-4o"
    assert asked["input_tokens"] == -(-int(answer.request.headers["content-length"]) // 4)
    assert (asked["capabilities"], asked["required_region"], asked["required_data_zone"]) == (None, "", "")
    assert asked["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("chat", {"messages": MESSAGES}),
        ("chat", {"messages": [saying({"type": "image_url", "image_url": {"url": PIXELS}})]}),
        ("chat", {"messages": [saying({"type": "text", "text": "é" * 9}, {"type": "image_url", "image_url": PIXELS})]}),
        ("chat", {"messages": [saying({"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}})]}),
        ("chat", {"messages": [saying({"type": "image"}), saying({"type": "image_url"}, {"type": "input_audio"})]}),
        ("chat", {"messages": [saying({"type": "file", "image_url": {"url": PIXELS}})], "tools": [{"type": "mcp"}]}),
        ("chat", {"messages": [saying(None, 5, "image", [], {}, {"type": None}, {"type": ["image"]}), 7, {}, None]}),
        ("chat", {"messages": [saying({"type": 10**40}, {"type": True}, {"type": 1.5}, {"type": {"type": "image"}})]}),
        ("chat", {"messages": [saying({"type": "image_url", "image_url": ["x"]}, {"type": "2026-11-22T10:00:00Z"})]}),
        ("chat", {"messages": None, "input": [saying({"type": "input_image"})]}),
        ("chat", {"messages": [saying({"type": "image", "source": {"type": "base64", "data": SOUND}})]}),
        ("chat", {"messages": {"content": [{"type": "image"}]}, "functions": [{"name": "old"}]}),
        ("chat", {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {}}}),
        ("chat", {"messages": MESSAGES, "response_format": {"type": "json_object"}, "web_search_options": {}}),
        ("chat", {"messages": MESSAGES, "response_format": {"type": "text"}}),
        ("chat", {"messages": MESSAGES, "response_format": "json_object", "text": [{"format": "json_object"}]}),
        ("chat", {"messages": MESSAGES, "response_format": {"type": ["json_object"]}, "text": {"format": None}}),
        ("responses", {"input": "hi"}),
        ("responses", {"input": [saying({"type": "input_image", "image_url": PIXELS}, {"type": "input_text"})]}),
        ("responses", {"input": [saying({"type": "input_audio", "input_audio": SOUND})]}),
        ("responses", {"input": "hi", "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}),
        ("responses", {"input": "hi", "text": {"format": {"type": "json_object"}}, "response_format": None}),
        ("responses", {"input": "hi", "text": {"format": {"type": "text"}, "verbosity": "low"}}),
        ("responses", {"input": [{"type": "image_generation_call", "result": SOUND}, {"type": "input_text"}]}),
        ("responses", {"input": [{"output": {"type": "computer_screenshot", "image_url": PIXELS}, "content": None}]}),
        ("responses", {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}, "x"]}]}),
        ("responses", {"input": [{"type": "input_image", "image_url": PIXELS, "content": {"type": "input_audio"}}]}),
        (
            "responses",
            {"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}], "input": "hi"},
        ),
        ("responses", {"input": [{"type": kind, "tools": [{"name": kind}]} for kind in BRINGING_TOOLS]}),
        ("embeddings", {"input": ["hi"]}),
    ],
    ids=range(30),
)
async def test_the_service_is_told_what_auto_must_be_able_to_do(
    bench: Bench, operation: Operation, fields: dict[str, Any]
) -> None:
    """What the built-in gateway reads from the same bytes: else `auto` would be a model that cannot see the image, or
    none because the image's Base64 fits into none. What every call needs, and tools, the service adds by itself."""
    content = json.dumps({"model": "auto", **fields}).encode()
    path = {"chat": CHAT, "responses": RESPONSES, "embeddings": EMBEDDINGS}[operation]
    await bench.post(bench.subscribe(), path, content=content)
    asked = bench.service.asked[-1]
    added = {"embeddings" if asked["operation"] == "embeddings" else "chat", *(["tools"] if asked["tools"] else [])}
    expected = read_call(operation, content, None)
    assert asked["model"] == "auto"
    assert added | set(asked["capabilities"]) == capabilities_needed(expected)
    assert (asked["tools"], asked["input_tokens"]) == (list(expected.tools), expected.input_tokens)


async def test_what_a_named_model_can_do_is_its_callers_matter(bench: Bench) -> None:
    """Nothing is chosen, so nothing is asked for; what the image counts is held and reported all the same."""
    picture = saying({"type": "image_url", "image_url": {"url": PIXELS}})
    answer = await bench.post(bench.subscribe(), messages=[picture], response_format={"type": "json_object"})
    asked = bench.service.asked[-1]
    assert asked["capabilities"] is None
    assert 1600 < asked["input_tokens"] < 1700
    assert (await bench.event(answer))["data"]["input_tokens_estimate"] == asked["input_tokens"]


async def test_auto_may_stand_in_the_path(bench: Bench) -> None:
    """As a deployment, which is how AzureOpenAI clients name a model."""
    key = bench.subscribe(says=lambda asked: admission(asked, model="gpt-4o", deployment="gpt-4o-weu"))
    answer = await bench.post(key, AZURE.format("auto"), response_format={"type": "json_object"})
    assert answer.status_code == 200
    assert (bench.service.asked[-1]["model"], bench.service.asked[-1]["capabilities"]) == ("auto", ["json"])
    path, _, body = bench.model.last
    assert (path.split("?")[0], body["model"]) == ("/openai/deployments/gpt-4o-weu/chat/completions", "gpt-4o-weu")


async def test_deployment_in_the_path_wins_over_the_body(bench: Bench) -> None:
    """A body that names a dearer model than its path must not be served by it; without one it passes as it is."""
    for body_model in ("gpt-4o", None, 7, {"x": 1}):
        answer = await bench.post(bench.subscribe(), AZURE.format("gpt-4o-mini-weu"), model=body_model)
        assert answer.status_code == 200
        assert bench.service.asked[-1]["model"] == "gpt-4o-mini-weu"
        assert bench.service.asked[-1]["deployment"] == "gpt-4o-mini-weu"
        path, _, body = bench.model.last
        assert path.startswith("/openai/deployments/gpt-4o-mini-weu/")
        assert body["model"] in (None, "gpt-4o-mini-weu")
    content = json.dumps({"messages": MESSAGES}).encode()
    await bench.post(bench.subscribe(), AZURE.format("gpt-4o-mini-weu"), content=content)
    assert bench.model.requests[-1][2] == content


async def test_body_that_is_right_passes_byte_for_byte(bench: Bench) -> None:
    """Order, spacing, numbers and doubled members stay: nothing is written anew without need."""
    content = (
        b'{ "temperature": 0.10, "big": 12345678901234567890123, "model": "gpt-4o-weu",\n'
        b' "messages": [{"role":"user","content":"\\u00e9 2026-11-21T10:00:00Z"}] }'
    )
    answer = await bench.post(bench.subscribe(), content=content)
    assert answer.status_code == 200
    assert bench.model.requests[-1][2] == content


async def test_rewritten_body_says_the_same_to_the_model(bench: Bench) -> None:
    """Texts that begin like dates, escapes, large numbers and foreign members survive; only the model is another."""
    texts = [
        "2026-11-21T10:00:00+02:00",
        "/Date(1700000000000)/",
        "2026-11-21",
        "\\n",
        '"5',
        "\\",
        "/",
        "\ue000kept",
        "tête-à-tête 🐈",
        "",
    ]
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": text} for text in [*texts, "x"]],
        "metadata": {"2026-11-21T10:00:00Z": "key", "0": None},
        "seed": 9007199254740993,
        "temperature": 0.1,
        "nested": [[["2026-11-21T10:00:00Z"]]],
    }
    answer = await bench.post(bench.subscribe(), **body)
    assert answer.status_code == 200
    _, headers, sent = bench.model.last
    assert sent == {**body, "model": "gpt-4o-weu"}
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "members",
    [
        '"model": "gpt-4o-mini-weu", "model": "gpt-4o-weu"',
        '"model": "gpt-4o-mini-weu", "mod\\u0065l": "gpt-4o-weu"',
        '"model": "gpt-4o-weu", "stream": true, "stream": false',
    ],
)
async def test_doubled_members_cannot_smuggle_anything(bench: Bench, members: str) -> None:
    """Of two the gateway would check the last, and a backend may serve the first."""
    content = f'{{{members}, "messages": [{{"role": "user", "content": "a: b"}}]}}'.encode()
    asked = len(bench.service.asked)
    answer = await bench.post(bench.subscribe(), content=content)
    assert error_of(answer) == (400, "invalid_request", None)
    assert "twice" in answer.text
    assert len(bench.service.asked) == asked


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": 'application/json; Charset = "UTF-8"'}, 200),
        ({"content-type": "application/json", "content-encoding": "Identity"}, 200),
        ({"content-type": "application/json; charset=utf-7"}, 415),
        ({"content-type": "application/json;charset='utf-16'"}, 415),
        ({"content-type": 'application/json; charset="utf-32"'}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "deflate, identity"}, 415),
    ],
)
async def test_bytes_that_two_readers_may_read_differently_are_refused(
    bench: Bench, headers: dict[str, str], status: int
) -> None:
    """In UTF-7 a text can name a cheap model to the gateway and a dear one to the backend."""
    content = json.dumps({"model": "gpt-4o", "messages": MESSAGES}).encode()
    answer = await bench.post(bench.subscribe(), content=content, headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert error_of(answer)[1] == "unsupported_media_type"


async def test_usage_is_asked_for_on_streams_of_chat(bench: Bench) -> None:
    """Merged into what the client said; never for Responses, which refuses the option, nor where nothing streams."""
    key = bench.subscribe()
    for options, expected in (
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": "yes"}, {"include_usage": True}),
        ({"include_usage": True}, {"include_usage": True}),
    ):
        answer = await bench.post(key, stream=True, stream_options=options)
        assert answer.status_code == 200
        assert bench.model.last[2]["stream_options"] == expected
        assert '"usage":{"prompt_tokens"' in answer.text.replace(" ", "")
    for path, fields in ((CHAT, {"stream": False}), (RESPONSES, {"stream": True, "input": "x"})):
        assert (await bench.post(key, path, **fields)).status_code == 200
        assert "stream_options" not in bench.model.last[2]


async def test_a_team_can_opt_out_of_the_usage_chunk(bench: Bench) -> None:
    """Its clients do not expect a chunk without choices; what the client itself asks for is left to it."""
    for team in ("quiet", "tête"):
        key = bench.subscribe(says=lambda asked, team=team: admission(asked, scopes={"team": team}))
        await bench.post(key, stream=True)
        assert "stream_options" not in bench.model.last[2]
        await bench.post(key, stream=True, stream_options={"include_usage": True})
        assert bench.model.last[2]["stream_options"] == {"include_usage": True}


async def test_opt_out_holds_while_the_service_is_away(bench: Bench) -> None:
    """The team is known from the caller's last call."""
    await bench.post(bench.subscribe("opened", says=lambda asked: admission(asked, scopes={"team": "quiet"})))
    bench.service.says["opened"] = lambda asked: httpx_none()
    answer = await bench.post(bench.subscribe("opened"), stream=True)
    assert answer.status_code == 200
    assert "stream_options" not in bench.model.last[2]
    assert (await bench.event(answer))["data"]["decision"] == "fail_open"


async def test_body_above_the_limit_is_413(bench: Bench) -> None:
    """Before it is read, in OpenAI's shape, with the limit."""
    async with start_bench({"tk-max-request-bytes": "3000000"}) as small:
        for path, most in ((CHAT, BUFFER_BYTES), (AZURE.format("gpt-4o-weu"), 3_000_000)):
            answer = await small.post(small.subscribe(), path, content=b"x" * 3_000_001)
            assert error_of(answer) == (413, "payload_too_large", None)
            assert f"at most {most} " in answer.text
        assert small.service.asked == []


async def test_body_above_the_buffer_passes_unread_where_the_path_names_the_model(bench: Bench) -> None:
    """Byte for byte, with the estimate from its length; v1 paths cannot be read, so they say what to do."""
    image = "A" * (BUFFER_BYTES + 1)
    message = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}],
    }
    content = json.dumps({"model": "gpt-4o", "messages": [message]}).encode()
    for path in (CHAT, AZURE.format("auto")):
        refused = await bench.post(bench.subscribe(), path, content=content)
        assert error_of(refused) == (413, "payload_too_large", None)
        assert "/openai/deployments/" in refused.text
    answer = await bench.post(bench.subscribe(), AZURE.format("gpt-4o-weu"), content=content)
    assert answer.status_code == 200
    asked = bench.service.asked[-1]
    assert (asked["input_tokens"], asked["tools"], asked["max_output_tokens"]) == (-(-len(content) // 4), None, None)
    assert bench.model.requests[-1][2] == content
    data = (await bench.event(answer))["data"]
    assert data["usage"]["prompt_tokens"] > 0
    assert data["input_tokens_estimate"] == -(-len(content) // 4)


async def test_unread_body_is_downgraded_by_its_path(bench: Bench) -> None:
    """The URL decides the deployment, so a budget can still send the call to a cheaper one."""
    key = bench.subscribe(
        says=lambda asked: admission(asked, decision="downgrade", model="gpt-4o-mini", deployment="m")
    )
    content = json.dumps({"messages": MESSAGES, "user": "u" * BUFFER_BYTES}).encode()
    answer = await bench.post(key, AZURE.format("gpt-4o-weu"), content=content)
    assert answer.status_code == 200
    assert bench.model.requests[-1][0] == "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    assert bench.model.requests[-1][2] == content


async def test_body_without_a_length_is_411(bench: Bench) -> None:
    """Its size would be known only after it was taken in."""

    async def pieces():
        yield b'{"model": "gpt-4o", '
        yield b'"messages": []}'

    answer = await bench.post(bench.subscribe(), content=pieces())
    assert error_of(answer) == (411, "length_required", None)


async def test_token_limits_are_429_and_403(bench: Bench) -> None:
    """The backstop behind the budgets, by the same key as the rate limit; the quota is no matter of waiting."""
    key = bench.subscribe()
    assert (await bench.post(key, headers={"x-sim-output-tokens": "25000"})).status_code == 200
    refused = await bench.post(key)
    if refused.status_code == 200:  # the first call taught the team, which counts by itself
        assert (await bench.post(key, headers={"x-sim-output-tokens": "25000"})).status_code == 200
        refused = await bench.post(key)
    assert error_of(refused) == (429, "token_limit_exceeded", None)
    assert int(refused.headers["retry-after"]) > 0
    async with start_bench({"tk-token-quota": "50", "tk-tokens-per-minute": "1000000"}) as small:
        key = small.subscribe()
        answers = [await small.post(key, headers={"x-sim-output-tokens": "60"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    assert error_of(answers[2]) == (403, "token_quota_exceeded", None)


def httpx_none():
    """An answer that comes too late."""

    async def late():
        await asyncio.sleep(1.5)
        raise RuntimeError("nobody waits for this any more")

    return late()
