"""Spellings that mean one thing to the gateway and would mean another to the model, or to the bill."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shared.usage.events import UsageEvent, decode_event
from tests.support.policy_bench import CHAT, DEPLOYMENTS, EMBEDDINGS, Bench, admission

MINI: dict[str, Any] = {"decision": "downgrade", "model": "gpt-4o-mini", "deployment": DEPLOYMENTS["gpt-4o-mini"]}


async def post(bench: Bench, key: str, text: str, path: str = CHAT) -> httpx.Response:
    """One call with this text as its body, byte for byte."""
    return await bench.post(key, path, content=text.encode())


@pytest.mark.parametrize("field", ["tools", "\\u0074ools"])
@pytest.mark.parametrize(
    "tool",
    [
        '{"\\u0074ype": "web_search"}',
        '{"type": "\\u0077eb_search_preview"}',
        '{"type": "web_search", "name": "harmless"}',
        '{"type": "web_search", "function": {"name": "harmless"}}',
        '{"type": "function", "\\u0066unction": {"name": "costly"}}',
        '{"type": "function", "function": {"\\u006eame": "\\u0063ostly"}}',
        '{"type": "function", "name": "costly", "description": "2026-11-21T10:00:00Z"}',
        '{"type": "custom", "custom": {"name": "costly"}}',
    ],
)
async def test_a_disabled_tool_is_dropped_however_it_is_written(bench: Bench, field: str, tool: str) -> None:
    """Escapes in names, and names on tools that have none, neither hide a tool nor leave it in the body."""
    key = bench.subscribe(says=lambda asked: admission(asked, disabled_tools=["web_search", "costly"]))
    answer = await post(bench, key, f'{{"model": "gpt-4o", "messages": [{{"role": "user"}}], "{field}": [{tool}]}}')
    assert answer.status_code == 200
    assert set(bench.model.last[2]) == {"model", "messages"}
    assert answer.headers["x-budget-disabled-tools"] in ("web_search", "costly")


async def test_escaped_names_do_not_double_members(bench: Bench) -> None:
    """The model named by an escaped `model` is replaced, not joined by a second one that a backend might not read."""
    key = bench.subscribe(says=lambda asked: admission(asked, **MINI))
    begin = '{"\\u006dodel": "gpt-4o", "messages": [{"role": "user"}]'
    body = begin + ', "\\u0073tream": true, "\\u0073tream_options": {"a": 1}}'
    await post(bench, key, body)
    sent = bench.model.requests[-1][2].decode()
    assert (sent.count('"model"'), sent.count('"stream_options"')) == (1, 1)
    assert bench.model.last[2]["model"] == DEPLOYMENTS["gpt-4o-mini"]
    assert bench.model.last[2]["stream_options"] == {"a": 1, "include_usage": True}


@pytest.mark.parametrize(
    "members",
    [
        '"stream": true, "stream_options": {"include_usage": false, "include_usage": true}',
        '"tools": [{"type": "web_search", "type": "file_search"}]',
        '"tools": [{"type": "function", "function": {"name": "costly", "na\\u006de": "cheap"}}]',
    ],
)
async def test_members_doubled_deep_inside_are_refused(bench: Bench, members: str) -> None:
    """Whichever of the two a backend takes, it was not the gateway's choice."""
    answer = await post(bench, bench.subscribe(), f'{{"model": "gpt-4o", "messages": [{{"role": "user"}}], {members}}}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "model", "status"),
    [
        ("/openai/deployments/gpt-4o%0A/chat/completions", "gpt-4o", 404),
        ("/openai/deployments/gpt-4o%0D/chat/completions", "gpt-4o", 404),
        (CHAT, "\\ud83d\\ude00", 200),
        (CHAT, "gpt\\u2028", 200),
        (CHAT, "\\ue000gpt-4o", 200),
    ],
)
async def test_whatever_passes_unchecked_has_an_event_that_is_billed(
    bench: Bench, path: str, model: str, status: int
) -> None:
    """A model that no event may name is refused before it is served: nobody else would ask what it is."""
    text = f'{{"model": "{model}", "messages": [{{"role": "user"}}]}}'
    answer = await post(bench, bench.subscribe("unchecked"), text, path)
    assert answer.status_code == status
    events = await bench.events(answer)
    assert len(events) == (status == 200)
    for event in events:
        assert isinstance(decode_event(json.dumps(event).encode(), datetime.now(UTC)), UsageEvent)


async def test_embeddings_are_measured_even_if_asked_for_as_a_stream(bench: Bench) -> None:
    """Embeddings never stream: the field must not turn a measured call into an estimated one."""
    fields: dict[str, Any] = {"model": "text-embedding-3-small", "input": "x", "stream": True}
    answer = await bench.post(bench.subscribe(), EMBEDDINGS, **fields)
    assert (await bench.event(answer))["data"]["usage"]["prompt_tokens"] == 1


async def test_an_answer_nested_without_end_is_relayed_and_accrued(bench: Bench) -> None:
    """Whoever reads along must not fail on it: the call would be served and neither answered nor billed."""
    body = '{"a": ' + "[" * 3000 + "]" * 3000 + "}"
    answer = await bench.post(
        bench.subscribe(),
        headers={
            "x-raw-status": "200",
            "x-raw-body": body,
            "x-raw-headers": '{"content-type": "application/json"}',
        },
    )
    assert (answer.status_code, answer.text) == (200, body)
    assert (await bench.event(answer))["data"]["usage"] is None


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"x-budget-remaining": "5.00"}, {}),
        ({"x-served-model": "gpt-4o-mini"}, {}),
        ({}, {"disabled_tools": [None, 5, {"type": "web_search"}, ["web_search"], "unused"]}),
    ],
)
async def test_an_admission_with_odd_parts_still_serves(
    bench: Bench, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    """Headers that miss their partner, and tools that are no names, are no reason for an error of the gateway."""
    key = bench.subscribe(says=lambda asked: admission(asked, headers, **fields))
    answer = await bench.post(key)
    assert answer.status_code == 200
    assert headers.items() <= answer.headers.items()
    assert (await bench.event(answer))["data"]["status"] == 200


@pytest.mark.parametrize(("key", "status"), [("\ue000", 400), ("\ue000 \ue000", 400), ("\ue000a \ue000", 200)])
async def test_a_scope_of_the_guard_alone_is_no_scope(bench: Bench, key: str, status: int) -> None:
    """The guard is taken out of events: a key of nothing else would leave a served call with an event nobody takes."""
    headers = {b"api-key": bench.subscribe("unchecked").encode(), b"x-budget-scope-session": key.encode()}
    body = {"model": "gpt-4o", "messages": [{"role": "user"}]}
    answer = await bench.client.post(CHAT, headers=headers, json=body)
    assert answer.status_code == status
    for event in await bench.events(answer):
        decoded = decode_event(json.dumps(event).encode(), datetime.now(UTC))
        assert isinstance(decoded, UsageEvent)
        assert decoded.data.scopes == {"session": "a"}


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({"service_tier": "priority", "stream": True}, "priority"),
        ({"service_tier": "flex", "stream": True}, None),
        ({"service_tier": ["priority"], "stream": True}, None),
        ({"stream": True}, None),
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "auto"}, "default"),
    ],
)
async def test_a_stream_of_a_dearer_tier_is_not_billed_as_a_cheap_one(
    bench: Bench, fields: dict[str, Any], tier: str | None
) -> None:
    """Nobody reads the tier out of a stream, so the one asked for counts; a cheaper one only answers may name."""
    answer = await bench.post(bench.subscribe(), **fields)
    assert answer.status_code == 200
    assert (await bench.event(answer))["data"].get("processing_tier") == tier
