"""Fallbacks of the built-in gateway on a whole running copy: who is called, who is billed for what, who is refused.

Prices in USD per million tokens, which is micro-USD per token: most 1.00 in, 2.00 out; `dear` a thousand times.
"""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from local.options import BUILT_IN
from tests.support.laptop import CHAT, MODEL, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import team_file

CAN = "capabilities: [chat, tools], typical_output_tokens: 20"
FILES = {
    "tenants.yaml": "tenants: [{id: default}]",
    "models.yaml": f"""
endpoints:
  - {{id: eu, provider: azure-openai, url: {MODEL}/at/eu, region: westeurope, data_zone: eu}}
  - {{id: us, provider: azure-openai, url: {MODEL}/at/us, region: eastus, data_zone: us}}
models:
  - {{id: main, deployments: [main-eu, {{name: main-us, endpoint: us}}], fallbacks: [spare], {CAN}}}
  - {{id: spare, deployments: [spare-eu], capabilities: [chat, tools, vision], typical_output_tokens: 20}}
  - {{id: lone, deployments: [lone-eu], fallbacks: [dear], {CAN}}}
  - {{id: once, deployments: [once-eu], fallbacks: [spare], {CAN}}}
  - {{id: flaky, deployments: [flaky-eu], fallbacks: [spare], {CAN}}}
  - {{id: cutter, deployments: [cutter-eu], fallbacks: [spare], {CAN}}}
  - {{id: zoned, deployments: [zoned-eu, {{name: zoned-us, endpoint: us}}], {CAN}}}
  - {{id: dear, deployments: [dear-eu], {CAN}}}
""",
    "prices.yaml": "prices:"
    + "".join(
        f"\n  - {{model: {model}, effective_from: 2020-01-01, usd_per_million: {{input: {paid}.00, output: {out}.00}}}}"
        for model, paid, out in (
            ("main", 1, 2),
            ("spare", 1, 2),
            ("lone", 1, 2),
            ("once", 1, 2),
            ("flaky", 3, 6),
            ("cutter", 3, 6),
            ("zoned", 1, 2),
            ("dear", 1000, 2000),
        )
    ),
    "teams/rich.yaml": team_file("rich", "1000.00"),
    # A call of these tests is held at about 30 input tokens and 100 of output: 30 * 1 + 100 * 2 = 230 micro-USD.
    "teams/tight.yaml": team_file("tight", "0.0003"),
    "teams/cheap.yaml": team_file("cheap", "0.01"),
}
MESSAGES = [{"role": "user", "content": "How much is left?"}]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("fallbacks"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


def ask(laptop, team, call, model, *, fields=None, **headers):
    """One chat call; headers by keyword."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 100, **(fields or {})}
    return laptop.post(team, CHAT, body, call=call, x_sim_output_tokens="10", **headers)


def attempts(laptop, answer, count):
    """The ledger's rows of a call, by attempt, once there are so many; never more."""
    request_id = answer.headers["x-request-id"]
    rows = eventually(lambda: found if len(found := laptop.rows_by_request().get(request_id, [])) >= count else None)
    assert len(rows) == count
    return sorted(rows, key=lambda row: row.attempt)


def test_every_attempt_is_on_record_and_billed_for_what_it_used(laptop):
    """Both deployments fail, the fallback serves: three rows of one request, only the last with tokens and cost.

    No saving is claimed for it: nobody chose the other model to save money.
    """
    answer = ask(laptop, "rich", "chain", "main", x_sim_at="main", x_sim_status="500")
    assert (answer.status_code, answer.headers["x-tollkeeper-attempts"]) == (200, "3")
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("main", "spare")
    rows = attempts(laptop, answer, 3)
    assert [(row.attempt, row.deployment, row.status, row.decision) for row in rows] == [
        (1, "main-eu", 500, "allow"),
        (2, "main-us", 500, "allow"),
        (3, "spare-eu", 200, "fallback"),
    ]
    assert {row.requested_model for row in rows} == {"main"}
    usage = answer.json()["usage"]
    assert [prompt_and_output(row) for row in rows] == [
        (0, 0),
        (0, 0),
        (usage["prompt_tokens"], usage["completion_tokens"]),
    ]
    assert [row.cost_nano_usd for row in rows] == [
        0,
        0,
        1000 * (usage["prompt_tokens"] * 1 + usage["completion_tokens"] * 2),
    ]
    assert [row.saved_nano_usd for row in rows] == [None, None, None]
    assert laptop.served("chain")["attempts"] == 3


def test_a_stream_whose_first_event_is_an_error_falls_back_unseen(laptop):
    """The client gets one whole stream; the attempt that failed costs nothing, the other one its exact usage."""
    fault = {"x_sim_at": "main-eu", "x_sim_fault": "error", "x_sim_fault_after": "0"}
    answer = ask(laptop, "rich", "stream", "main", fields={"stream": True}, **fault)
    assert answer.headers["x-tollkeeper-attempts"] == "2"
    assert "error" not in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    first, second = attempts(laptop, answer, 2)
    assert (first.deployment, first.status, first.cost_nano_usd) == ("main-eu", 502, 0)
    assert (second.deployment, second.measured) == ("main-us", True)
    served = laptop.served("stream")
    assert prompt_and_output(second) == (served["prompt_tokens"], served["completion_tokens"])


def test_a_failed_attempts_hold_makes_room_for_the_next(laptop):
    """The budget has room for one call: the fallback gets through, because what the first attempt held is free."""
    answer = ask(laptop, "tight", "room", "once", x_sim_at="once", x_sim_status="500")
    assert (answer.status_code, answer.headers["x-served-model"]) == (200, "spare")
    rows = attempts(laptop, answer, 2)
    spent = Decimal(laptop.settled_spend("tight")["spent"])
    assert spent == sum(Decimal(row.cost_nano_usd) for row in rows) / 10**9 > 0


def test_a_fallback_that_no_budget_affords_is_refused_and_not_called(laptop):
    """About 200 milli-USD would be held where 10 are left: 402, and only the first model was asked.

    Twice, since what failed may do better a moment later.
    """
    answer = ask(laptop, "cheap", "refused", "lone", x_sim_at="lone", x_sim_status="500")
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exhausted")
    assert (answer.json()["requested_model"], answer.headers["x-should-retry"]) == ("lone", "false")
    assert "x-served-model" not in answer.headers
    assert [json.loads(request["body"])["model"] for request in laptop.received(call="refused")] == ["lone-eu"] * 2
    assert [(row.deployment, row.cost_nano_usd) for row in attempts(laptop, answer, 2)] == [("lone-eu", 0)] * 2
    assert Decimal(laptop.settled_spend("cheap")["spent"]) == 0


def test_a_place_that_fails_again_and_again_is_left_alone(laptop):
    """After five failures its breaker is open: the next call goes to the fallback at once, with one attempt."""
    for number in range(5):
        answer = ask(laptop, "rich", f"flaky-{number}", "flaky", x_sim_at="flaky", x_sim_status="500")
        assert (answer.status_code, answer.headers["x-tollkeeper-attempts"]) == (200, "2")
    answer = ask(laptop, "rich", "flaky-open", "flaky")
    assert (answer.status_code, answer.headers["x-served-model"]) == (200, "spare")
    assert "x-tollkeeper-attempts" not in answer.headers
    (row,) = attempts(laptop, answer, 1)
    assert (row.attempt, row.requested_model, row.deployment, row.decision) == (1, "flaky", "spare-eu", "fallback")


def test_a_call_that_must_stay_in_its_data_zone_does(laptop):
    """The other deployment is across the ocean: it is not asked, however the first one fails."""
    zone = {"x_tollkeeper_data_zone": "EU"}
    answer = ask(laptop, "rich", "zone", "zoned", x_sim_at="zoned-eu", x_sim_status="500", **zone)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "simulated_error")
    assert {request["path"].split("/")[2] for request in laptop.received(call="zone")} == {"eu"}
    answer = ask(laptop, "rich", "nowhere", "zoned", x_tollkeeper_data_zone="apac")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "place_not_served")
    assert laptop.served("nowhere")["attempts"] == 0


def test_auto_is_served_by_the_cheapest_capable_model(laptop):
    """A picture leaves one capable model. The client and the books are told both names."""
    pixels = "data:image/png;base64," + base64.b64encode(b"x" * 60).decode()
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": pixels}}]
    fields = {"messages": [{"role": "user", "content": content}]}
    answer = ask(laptop, "rich", "auto", "auto", fields=fields)
    assert (answer.status_code, answer.json()["model"]) == (200, "spare")
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("auto", "spare")
    (row,) = attempts(laptop, answer, 1)
    assert (row.requested_model, row.model, row.decision) == ("auto", "spare", "allow")


def test_auto_goes_on_to_the_next_cheapest(laptop):
    """The alternatives of a routed call are its fallbacks."""
    wanted = {"x_tollkeeper_region": "westeurope"}
    chosen = route(laptop, {"messages": MESSAGES, "max_tokens": 100}, **wanted)
    first, second = chosen["model"], chosen["alternatives"][0]["model"]  # both idle in the other tests
    answer = ask(laptop, "rich", "auto-next", "auto", x_sim_at=first, x_sim_status="500", **wanted)
    assert (answer.status_code, answer.headers["x-served-model"]) == (200, second)


def test_no_capable_model_says_why_of_each(laptop):
    """Nothing is held and nobody called; the answer tells what every model lacks."""
    fields = {"response_format": {"type": "json_object"}}
    answer = ask(laptop, "rich", "auto-none", "auto", fields=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_capable_model")
    assert answer.json()["rejected"]["spare"] == "lacks json"


def test_the_route_is_told_without_a_call(laptop):
    """The same choice, with its cost and reasons, for a request's body as for a plain question."""
    asked = {"capabilities": ["chat", "tools"], "input_tokens": 1000, "max_output_tokens": 100, "region": "eastus"}
    found = route(laptop, asked)
    assert (found["model"], found["deployment"]) == ("main", "main-us")
    assert Decimal(found["cost"]) == Decimal(1000 * 1 + 100 * 2) / 10**6
    assert [choice["model"] for choice in found["alternatives"]] == ["zoned"]
    assert found["rejected"]["spare"] == "not known to be served in region eastus"


def route(laptop, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The answer of the gateway's POST /route."""
    sent = laptop.headers("rich", **headers)
    answer = httpx.post(f"{laptop.url}/route", content=json.dumps(body), headers=sent, timeout=20)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def test_a_place_that_breaks_off_its_streams_is_left_alone(laptop):
    """Five streams begin well and break: each is billed for what went by, and the next call goes elsewhere."""
    fault = {"x_sim_at": "cutter", "x_sim_fault": "cut", "x_sim_fault_after": "3"}
    for number in range(5):
        answer = ask(laptop, "rich", f"cut-{number}", "cutter", fields={"stream": True}, **fault)
        assert '"code":"upstream_failed"' in answer.text
        (row,) = attempts(laptop, answer, 1)
        assert (row.measured, row.cost_nano_usd > 0) == (False, True)
    assert ask(laptop, "rich", "cut-open", "cutter").headers["x-served-model"] == "spare"
