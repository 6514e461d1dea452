"""What the budget service says, and what becomes of the call: allowed, downgraded, refused, or decided without it."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from starlette.responses import JSONResponse, Response

from gateway.tools import drop_tools
from tests.support.policy_bench import (
    ADMITTED_AT,
    AZURE,
    CHAT,
    EMBEDDINGS,
    NAMED_VALUES,
    RESPONSES,
    Bench,
    Says,
    admission,
    refusal,
    start_bench,
    utc,
)

BUDGET_HEADERS = {
    "x-budget-state": "degraded",
    "x-budget-remaining": "18.30",
    "x-budget-scope": "team:search",
    "x-budget-resets-at": "2026-12-01T00:00:00Z",
}
DOWNGRADED = {**BUDGET_HEADERS, "x-requested-model": "gpt-4o", "x-served-model": "gpt-4o-mini", "x-inner": "none"}
MINI = {"decision": "downgrade", "model": "gpt-4o-mini", "deployment": "gpt-4o-mini-weu"}
WEB, MAPS = {"type": "web_search"}, {"type": "function", "function": {"name": "maps/é"}}


def grouping(*tools: dict[str, Any]) -> dict[str, Any]:
    """A tool that holds others."""
    return {"type": "namespace", "name": "crm", "tools": [*tools]}


async def slow(asked: dict[str, Any]) -> Response:
    """An answer after the gateway's patience."""
    await asyncio.sleep(1.4)
    return admission(asked)


# Everything that is no decision of the service, whatever its status.
NO_ANSWERS: dict[str, Says] = {
    "slow": slow,  # type: ignore[dict-item]
    "500": lambda asked: Response("oops", 500),
    "502 page": lambda asked: Response("<html>bad gateway</html>", 502, {"content-type": "text/html"}),
    "401": lambda asked: refusal(401, "not_authenticated"),
    "403 of the gateway's role": lambda asked: refusal(403, "role_required"),
    "403 page": lambda asked: Response("<html>no</html>", 403),
    "404": lambda asked: refusal(404, "not_found"),
    "429 of the platform": lambda asked: Response("slow down", 429),
    "503 page": lambda asked: Response("starting", 503),
    "503 not ready": lambda asked: refusal(503, "not_ready"),
    "refusal without a code": lambda asked: JSONResponse({"error": {"code": None}}, 402),
    "refusal of another shape": lambda asked: JSONResponse({"error": "no"}, 402),
    "garbage": lambda asked: Response("{]", 200),
    "nothing": lambda asked: Response(b"", 200),
    "a list": lambda asked: JSONResponse([1]),
    "no decision": lambda asked: admission(asked, decision=None),
    "another decision": lambda asked: admission(asked, decision="refuse"),
    "no tenant": lambda asked: admission(asked, tenant=None),
    "no model": lambda asked: admission(asked, model=None),
    "model of another type": lambda asked: admission(asked, model=5),
    "no moment": lambda asked: admission(asked, admitted_at=None),
    "scopes of another type": lambda asked: admission(asked, scopes=[]),
    "scope of another type": lambda asked: admission(asked, scopes={"team": {"x": 1}}),
    "decision of another type": lambda asked: admission(asked, decision={"x": 1}),
    "204": lambda asked: Response(status_code=204),
}


async def test_admitted_call_carries_the_budget_in_its_headers(bench: Bench) -> None:
    """As the service spelt them, and nothing else of the service's answer."""
    headers = {**BUDGET_HEADERS, "x-request-id": "inner", "x-inner": "none", "set-cookie": "a=b"}
    answer = await bench.post(bench.subscribe(says=lambda asked: admission(asked, headers)))
    assert answer.status_code == 200
    assert {name: answer.headers.get(name) for name in BUDGET_HEADERS} == BUDGET_HEADERS
    assert not {"x-inner", "set-cookie", "x-served-model", "x-budget-disabled-tools"} & set(answer.headers)
    assert answer.headers["x-request-id"] == bench.service.asked[-1]["request_id"]
    assert answer.headers["x-request-id"] == answer.headers["x-request-id"].lower()


@pytest.mark.parametrize(
    ("path", "sent_to"),
    [
        (CHAT, "/openai/v1/chat/completions?"),
        (RESPONSES, "/openai/v1/responses?"),
        (EMBEDDINGS, "/openai/v1/embeddings?"),
        (AZURE.format("gpt-4o-weu"), "/openai/deployments/gpt-4o-mini-weu/chat/completions?api-version=2024-10-21"),
        (
            "/openai/deployments/gpt-4o-weu/embeddings?api-version=1&x=y",
            "/openai/deployments/gpt-4o-mini-weu/embeddings?api-version=1&x=y",
        ),
    ],
)
async def test_downgraded_call_is_served_by_the_other_model_and_says_so(bench: Bench, path: str, sent_to: str) -> None:
    """In the body on v1 paths, in the URL on deployment paths; the event names both models."""
    key = bench.subscribe(says=lambda asked: admission(asked, DOWNGRADED, requested_model="gpt-4o", **MINI))
    fields = {"input": "x"} if "chat" not in path else {}
    answer = await bench.post(key, path, **fields)
    assert answer.status_code == 200
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("gpt-4o", "gpt-4o-mini")
    sent, _, body = bench.model.last
    assert (sent, body["model"]) == (sent_to, "gpt-4o-mini-weu")
    data = (await bench.event(answer))["data"]
    assert (data["decision"], data["requested_model"], data["model"]) == ("downgrade", "gpt-4o", "gpt-4o-mini")
    assert data["deployment"] == "gpt-4o-mini-weu"


@pytest.mark.parametrize(
    ("fields", "sent", "dropped"),
    [
        ({"tools": [WEB, MAPS]}, {"tools": [MAPS]}, "web_search"),
        ({"tools": [WEB], "tool_choice": "auto", "parallel_tool_calls": True}, {}, "web_search"),
        ({"tools": [WEB, MAPS], "tool_choice": {"type": "web_search"}}, {"tools": [MAPS]}, "web_search"),
        ({"tools": [{"type": "web_search_preview"}, MAPS]}, {"tools": [MAPS]}, "web_search"),
        ({"web_search_options": {"x": 1}}, {}, "web_search"),
        ({"tools": [MAPS], "tool_choice": "auto"}, {"tools": [MAPS], "tool_choice": "auto"}, None),
        (
            {"functions": [{"name": "0ld"}, {"name": "b"}], "function_call": {"name": "0ld"}},
            {"functions": [{"name": "b"}]},
            "0ld",
        ),
        ({"functions": [{"name": "0ld"}], "function_call": "auto"}, {}, "0ld"),
        (
            {"tools": [WEB, {}, MAPS], "functions": [{"name": "0ld"}]},
            {"tools": [{}, MAPS]},
            "web_search,0ld",
        ),
        (
            {
                "tools": [{"type": "function", "function": {"name": "é,x"}}, WEB, MAPS],
                "tool_choice": {"type": "function", "function": {"name": "maps/é"}},
            },
            {"tools": [MAPS], "tool_choice": {"type": "function", "function": {"name": "maps/é"}}},
            "%C3%A9%2Cx,web_search",
        ),
        (
            {
                "tools": [grouping(WEB, MAPS)],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [WEB, MAPS]},
            },
            {"tools": [grouping(MAPS)], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [MAPS]}},
            "web_search",
        ),
        ({"tools": [grouping(WEB)], "tool_choice": "auto", "parallel_tool_calls": False}, {}, "web_search"),
        (
            {"tools": [WEB, MAPS], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [WEB]}}},
            {"tools": [MAPS]},
            "web_search",
        ),
        ({"tools": [WEB], "tool_choice": {"type": "allowed_tools", "tools": [WEB]}}, {}, "web_search"),
        (
            {"input": [{"type": "additional_tools", "tools": [WEB]}, {"type": "tool_search_output", "tools": [WEB]}]},
            {"input": [{"type": "tool_search_output", "tools": []}]},
            "web_search",
        ),
        (
            {"input": [{"type": "additional_tools", "tools": [grouping(WEB, MAPS), WEB]}, {"type": "message"}]},
            {"input": [{"type": "additional_tools", "tools": [grouping(MAPS)]}, {"type": "message"}]},
            "web_search",
        ),
        (
            {"tools": [MAPS], "input": [{"type": "mcp_list_tools", "tools": [{"name": "0ld"}]}]},
            {"tools": [MAPS], "input": [{"type": "mcp_list_tools", "tools": [{"name": "0ld"}]}]},
            None,
        ),
    ],
)
async def test_disabled_tools_are_dropped(
    bench: Bench, fields: dict[str, Any], sent: dict[str, Any], dropped: str | None
) -> None:
    """With the fields that would point at nothing without them, as the built-in gateway does it; what was dropped is
    said, and only that."""
    disabled = ["web_search", "0ld", "é,x", "unused"]
    drop_tools(left := copy.deepcopy(fields), frozenset(disabled))
    assert left == sent
    key = bench.subscribe(says=lambda asked: admission(asked, disabled_tools=disabled))
    answer = await bench.post(key, model="gpt-4o-weu", headers={"x-raw-status": "200"}, **fields)
    assert answer.status_code == 200
    body = bench.model.last[2]
    assert {name: body[name] for name in body if name not in ("model", "messages")} == sent
    assert answer.headers.get("x-budget-disabled-tools") == dropped


@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (402, "budget_exhausted", {"x-should-retry": "false", **BUDGET_HEADERS}),
        (429, "budget_reserved", {"Retry-After": "1"}),
        (429, "budget_exhausted", {"Retry-After": "86400", "x-should-retry": "false"}),
        (403, "model_not_allowed", {}),
        (403, "identity_unknown", {}),
        (400, "invalid_request", {}),
        (413, "payload_too_large", {}),
        (503, "state_unavailable", {"Retry-After": "2"}),
    ],
)
async def test_refusal_is_passed_on_word_for_word(
    bench: Bench, status: int, code: str, headers: dict[str, str]
) -> None:
    """Status, body and headers of the service, under the call's own id; model and hub never hear of it."""
    before = len(bench.model.requests)
    inner = {**headers, "x-request-id": "inner", "set-cookie": "ARRAffinity=x", "request-context": "appId=x"}
    key = bench.subscribe(says=lambda asked: refusal(status, code, inner, budget={"remaining": "0.00"}))
    answer = await bench.post(key, model="gpt-4o", stream=True)
    assert answer.status_code == status
    assert answer.json() == json.loads(bytes(refusal(status, code, budget={"remaining": "0.00"}).body))
    assert {name: answer.headers.get(name) for name in headers} == headers
    assert answer.headers["x-request-id"] == bench.service.asked[-1]["request_id"]
    assert not {"set-cookie", "request-context"} & set(answer.headers)
    assert len(bench.model.requests) == before
    assert await bench.events(answer) == []


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_without_an_answer_the_fail_mode_rules(bench: Bench, name: str) -> None:
    """Closed refuses in our words, open serves and is billed by identity; never a 500, never a 401 for our outage."""
    closed = await bench.post(bench.subscribe(says=NO_ANSWERS[name]))
    assert (closed.status_code, closed.json()["error"]["code"]) == (503, "state_unavailable")
    assert closed.headers["retry-after"] == "2"
    assert await bench.events(closed) == []
    key = bench.subscribe("opened", NO_ANSWERS[name])
    started = asyncio.get_running_loop().time()
    opened = await bench.post(key, headers={"x-budget-scope-session": "2026-11-21T10:00:00Z"})
    assert opened.status_code == 200
    assert asyncio.get_running_loop().time() - started < 2.5
    assert bench.model.last[2]["model"] == "gpt-4o-weu"
    event = await bench.event(opened)
    data = event["data"]
    assert data["identity"] == {"subscription": "opened"}
    assert data["scopes"] == {"session": "2026-11-21T10:00:00Z"}
    assert "tenant" not in data
    assert data["reservation"] is None
    assert (data["decision"], data["model"], data["requested_model"]) == ("fail_open", "gpt-4o", "gpt-4o")
    assert data["deployment"] == "gpt-4o-weu"
    assert data["usage"]["prompt_tokens"] > 0
    assert utc(event["time"]) > utc(ADMITTED_AT)
    assert "x-budget-state" not in opened.headers


async def test_service_that_is_away_altogether_is_no_answer(mono: None) -> None:
    """A refused connection is no other matter than a page of the platform."""
    async with start_bench({"tk-service-url": "http://127.0.0.1:9"}) as bench:
        closed, opened = await bench.post(bench.subscribe()), await bench.post(bench.subscribe("opened"))
    assert (closed.status_code, opened.status_code) == (503, 200)


async def test_identity_that_gets_no_token_is_no_answer(mono: None) -> None:
    """Without a token for the service the check fails like any other; for the model it is our error, and the hold is
    given back."""

    def mint(resource: str, client_id: str | None) -> str:
        if "cognitive" in resource:
            raise RuntimeError("the identity endpoint does not answer")
        return f"token for {resource}"

    async with start_bench(mint_token=mint) as bench:
        answer = await bench.post(bench.subscribe())
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "gateway_error")
        await bench.runner.settle()
        assert bench.service.released[0].startswith("hold-")
        assert await bench.events(answer) == []
        assert bench.model.requests == []


async def test_call_without_a_hold_has_nothing_to_give_back(mono: None) -> None:
    """Failing open held nothing."""

    def mint(resource: str, client_id: str | None) -> str:
        raise RuntimeError("no token at all")

    async with start_bench(mint_token=mint) as bench:
        assert (await bench.post(bench.subscribe("opened", NO_ANSWERS["500"]))).status_code == 500
        await bench.runner.settle()
        assert bench.service.released == []


async def test_app_of_a_tenant_that_fails_open_passes_by_its_token(bench: Bench) -> None:
    """The maps know apps, users and groups as well as subscriptions, in whatever letters their ids are."""
    bench.service.says[""] = NO_ANSWERS["500"]
    try:
        app = bench.issuer.mint(azp="App One", oid="x")
        other = bench.issuer.mint(azp="app two", oid="x")
        headers = [{"authorization": f"Bearer {token}"} for token in (app, other)]
        assert [(await bench.post(None, headers=each)).status_code for each in headers] == [200, 503]
    finally:
        del bench.service.says[""]


async def test_odd_ids_are_found_in_the_maps(bench: Bench) -> None:
    """The policies spell an id exactly as the generator of the maps does, separators and accents included."""
    assert quote("odd!*'(),=é", safe="") in NAMED_VALUES["tk-fail-mode-by-caller"]
    assert (await bench.post(bench.subscribe("odd!*'(),=é", NO_ANSWERS["500"]))).status_code == 200


async def test_event_of_a_person_in_many_groups_names_them_all(bench: Bench) -> None:
    """A token may name 200 groups, and any may be the one that a team lists; only such an event passes 4 KB."""
    token = bench.issuer.mint(
        oid="p", scp="x", groups=["group-42", *(f"{n:08}-0000-4000-8000-000000000000" for n in range(199))]
    )
    answer = await bench.post(None, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    event = await bench.event(answer)
    assert len(event["data"]["identity"]["groups"]) == 200
    assert event["data"]["decision"] == "off"
    large = [each for each in bench.runner.events if len(each.body) >= 4096]
    assert [json.loads(each.body)["id"] for each in large] == [event["id"]]
    assert len(large[0].body) < 10_240  # far below what a hub takes, and what API Management would cut


async def test_enforcement_off_asks_nobody_and_bills_all_the_same(bench: Bench) -> None:
    """On deployment paths too, where a model's id stands for its deployment."""
    asked = len(bench.service.asked)
    key = bench.subscribe("unchecked", says=lambda asked: refusal(402, "budget_exhausted"))
    for path, sent_to in ((CHAT, CHAT + "?"), (AZURE.format("gpt-4o"), AZURE.format("gpt-4o-weu"))):
        answer = await bench.post(key, path, tools=[WEB, MAPS])
        assert answer.status_code == 200
        assert bench.model.last[0] == sent_to
        assert bench.model.last[2]["tools"] == [WEB, MAPS]
        data = (await bench.event(answer))["data"]
        assert data["identity"] == {"subscription": "unchecked"}
        assert (data["decision"], data["deployment"], data["scopes"]) == ("off", "gpt-4o-weu", {})
    assert len(bench.service.asked) == asked


@pytest.mark.parametrize(
    ("says", "decision", "by"),
    [
        (lambda asked: refusal(402, "budget_exhausted"), "observe_refuse", "identity"),
        (
            lambda asked: admission(asked, DOWNGRADED, disabled_tools=["web_search"], **MINI),
            "observe_downgrade",
            "tenant",
        ),
        (lambda asked: admission(asked, BUDGET_HEADERS, disabled_tools=["web_search"]), "allow", "tenant"),
        (NO_ANSWERS["500"], "fail_open", "identity"),
    ],
)
async def test_observed_call_gets_what_it_asked_for(bench: Bench, says: Says, decision: str, by: str) -> None:
    """Everything passes unchanged; the event says what would have been."""
    answer = await bench.post(bench.subscribe("observed", says), tools=[WEB])
    assert answer.status_code == 200
    assert bench.model.last[2]["model"] == "gpt-4o-weu"
    assert bench.model.last[2]["tools"] == [WEB]
    assert not {"x-served-model", "x-budget-disabled-tools"} & set(answer.headers)
    data = (await bench.event(answer))["data"]
    assert (data["decision"], data["model"], data["requested_model"]) == (decision, "gpt-4o", "gpt-4o")
    assert by in data
    if by == "tenant":
        assert data["reservation"].startswith("hold-")


async def test_decision_is_reused_as_long_as_the_service_allows(bench: Bench) -> None:
    """It carries no hold, which is good for one call, nor the moment of the first, which prices one call."""
    key = bench.subscribe(says=lambda asked: admission(asked, BUDGET_HEADERS, cache_seconds=1))
    asked = len(bench.service.asked)
    first, second = await bench.post(key), await bench.post(key)
    assert len(bench.service.asked) == asked + 1
    assert {name: second.headers.get(name) for name in BUDGET_HEADERS} == BUDGET_HEADERS
    events = [await bench.event(answer) for answer in (first, second)]
    assert events[0]["data"]["reservation"].startswith("hold-")
    assert events[1]["data"]["reservation"] is None
    assert events[0]["time"] == ADMITTED_AT
    assert utc(events[1]["time"]) > utc(ADMITTED_AT)
    for name in ("tenant", "scopes", "model", "deployment", "decision"):
        assert events[0]["data"][name] == events[1]["data"][name]
    await asyncio.sleep(1.1)
    await bench.post(key)
    assert len(bench.service.asked) == asked + 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "gpt-4o-mini"},
        {"path": EMBEDDINGS, "input": "x"},
        {"path": AZURE.format("gpt-4o")},
        {"tools": [WEB]},
        {"headers": {"x-budget-scope-session": "other"}},
        {"headers": {"x-tollkeeper-region": "westeurope"}},
        {"headers": {"x-tollkeeper-data-zone": "eu"}},
        {"key": "other"},
    ],
)
async def test_decision_serves_no_other_call(bench: Bench, change: dict[str, Any]) -> None:
    """Another caller, model, operation, path, tool, account or place is another question."""
    says: Callable[[Any], Response] = lambda asked: admission(asked, cache_seconds=60)  # noqa: E731
    keys = {name: bench.subscribe(says=says) for name in ("mine", "other")}
    asked = len(bench.service.asked)
    await bench.post(keys["mine"])
    changed = dict(change)
    await bench.post(keys[changed.pop("key", "mine")], changed.pop("path", CHAT), **changed)
    assert len(bench.service.asked) == asked + 2


async def test_what_auto_was_for_one_call_it_is_not_for_one_that_needs_more(bench: Bench) -> None:
    """With fail mode cached a model that cannot see would else be sent the image while the service is away."""
    key = bench.subscribe("kept", says=lambda asked: admission(asked, **MINI))
    assert (await bench.post(key, model="auto")).status_code == 200
    bench.service.says["kept"] = NO_ANSWERS["500"]
    assert (await bench.post(key, model="auto")).status_code == 200
    assert bench.model.last[2]["model"] == "gpt-4o-mini-weu"
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}]}
    assert (await bench.post(key, model="auto", messages=[image])).status_code == 503


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ({"model": "auto"}, {"model": "auto"}),
        ({"headers": {"x-tollkeeper-region": "westeurope"}}, {"required_region": "westeurope"}),
        ({"headers": {"x-tollkeeper-data-zone": "eu"}}, {"required_data_zone": "eu"}),
    ],
    ids=["model", "region", "data zone"],
)
async def test_a_call_whose_place_only_the_service_knows_goes_nowhere_without_it(
    bench: Bench, asks: dict[str, Any], told: dict[str, Any]
) -> None:
    """Of callers who are never asked about, observed, or served while the service is away, too: no backend has a model
    `auto`, and a demanded place must not be dropped in silence."""
    for caller in ("unchecked", "observed", "opened"):
        key = bench.subscribe(caller, says=lambda asked: admission(asked, scopes={"team": "bound"}, **MINI))
        answer = await bench.post(key, **asks)
        assert (answer.status_code, bench.model.last[2]["model"]) == (200, "gpt-4o-mini-weu")
        assert told.items() <= bench.service.asked[-1].items()
        bench.service.says[caller] = NO_ANSWERS["500"]
        away = await bench.post(key, **asks)
        assert (away.status_code, away.json()["error"]["code"]) == (503, "state_unavailable")
        assert (await bench.post(key)).status_code == 200


async def test_fail_mode_cached_stands_on_the_last_decision(bench: Bench) -> None:
    """A caller that was admitted a moment ago goes on; one nobody has decided on is refused as if closed."""
    key = bench.subscribe(
        "kept", says=lambda asked: admission(asked, DOWNGRADED, disabled_tools=["web_search"], **MINI)
    )
    assert (await bench.post(key, tools=[WEB])).status_code == 200
    bench.service.says["kept"] = NO_ANSWERS["500"]
    answer = await bench.post(key, tools=[WEB])
    assert answer.status_code == 200
    assert bench.model.last[2]["model"] == "gpt-4o-mini-weu"
    assert answer.headers["x-budget-disabled-tools"] == "web_search"
    data = (await bench.event(answer))["data"]
    assert (data["tenant"], data["decision"], data["reservation"]) == ("contoso", "downgrade", None)
    refused = await bench.post(key, model="gpt-4.1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "state_unavailable")


async def test_refusal_ends_what_fail_mode_cached_stands_on(bench: Bench) -> None:
    """A budget that was spent before the service went away is not spent further on an older decision."""
    key = bench.subscribe("kept", says=lambda asked: admission(asked))
    ask = {"model": "gpt-4.1-mini"}
    assert (await bench.post(key, **ask)).status_code == 200
    bench.service.says["kept"] = lambda asked: refusal(402, "budget_exhausted")
    assert (await bench.post(key, **ask)).status_code == 402
    bench.service.says["kept"] = NO_ANSWERS["500"]
    refused = await bench.post(key, **ask)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "state_unavailable")


async def test_odd_members_of_an_admission_do_no_harm(bench: Bench) -> None:
    """Missing tools, headroom, provider and deployment have their defaults; absurd seconds are cut."""
    odd = {"disabled_tools": None, "cache_seconds": 10**9, "provider": None, "deployment": None, "model": "gpt-4o-weu"}
    key = bench.subscribe(says=lambda asked: admission(asked, **odd))
    answer = await bench.post(key)
    assert answer.status_code == 200
    assert bench.model.last[2]["model"] == "gpt-4o-weu"
    assert "provider" not in (await bench.event(answer))["data"]
    bench.service.says[bench.service.asked[-1]["identity"]["subscription"]] = lambda asked: admission(
        asked, disabled_tools="web_search", cache_seconds=-5, model="2026-11-21T10:00:00Z", scopes={"team": "0x"}
    )
    answer = await bench.post(key, model="gpt-4o-mini")
    assert answer.status_code == 200
    assert (await bench.event(answer))["data"]["model"] == "2026-11-21T10:00:00Z"
    assert (await bench.event(answer))["data"]["scopes"] == {"team": "0x"}
