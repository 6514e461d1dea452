"""The budget doors: what they take, what they answer, what they refuse."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import Doors, Recorder, principal, refused

from shared.errors import ConfigInvalid, StateUnavailable

ASK = {"tenant": "contoso", "scopes": {"team": "search"}, "model": "gpt-4o"}


async def test_allowed_call_gets_the_contracts_body(doors: Doors, services: SimpleNamespace) -> None:
    """200 with decision, models, state, resolved tenant and scopes, and a reservation."""
    reply = await doors.call("budget_check", body={**ASK, "unheard_of": {"x": 1}})
    assert reply.status == 200
    assert reply.media_type == "application/json"
    assert {"decision", "model", "requested_model", "reason", "state", "disabled_tools", "budget"} <= set(reply.json)
    assert {"reservation", "cache_seconds", "tenant", "scopes", "admitted_at"} <= set(reply.json)
    assert reply.headers["x-budget-state"] == "active"
    assert "unheard_of" not in reply.json


async def test_refusal_is_shaped_for_openai_clients(doors: Doors, services: SimpleNamespace) -> None:
    """402 with OpenAI's error object beside the decision, and the header that stops SDKs from retrying."""
    services.budget.check = Recorder(refused())
    reply = await doors.call("budget_check", body=ASK)
    assert (reply.status, reply.code) == (402, "budget_exhausted")
    assert set(reply.json["error"]) == {"code", "message", "type", "param"}
    assert reply.json["decision"] == "refuse"
    assert reply.headers["x-should-retry"] == "false"


async def test_unreadable_counters_answer_503_with_retry_after(doors: Doors, services: SimpleNamespace) -> None:
    """A tenant that fails closed tells its callers when to come back."""
    services.budget.check = Recorder(StateUnavailable("rebuilding", retry_after_seconds=2))
    reply = await doors.call("budget_check", body=ASK)
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "state_unavailable", "2")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 50_000, "body"),
        ({"tenant": "contoso"}, "model"),
        ({**ASK, "model": ""}, "model"),
        ({**ASK, "model": 7}, "model"),
        ({**ASK, "scopes": ["team"]}, "scopes"),
        ({**ASK, "scopes": {"team": 7}}, "scopes[...]"),
        ({**ASK, "input_tokens": -1}, "input_tokens"),
        ({**ASK, "input_tokens": 10**30}, "input_tokens"),
        ({**ASK, "input_tokens": 1.5}, "input_tokens"),
        ({**ASK, "max_output_tokens": "many"}, "max_output_tokens"),
        ({**ASK, "tools": "web_search"}, "tools"),
    ],
)
async def test_bad_question_names_its_field(doors: Doors, services: SimpleNamespace, body: Any, param: str) -> None:
    """400 invalid_request with the field in `param`, and the engine is never asked."""
    reply = await doors.call("budget_check", body=body)
    assert (reply.status, reply.code, reply.param) == (400, "invalid_request", param)
    assert services.budget.check.calls == []


@pytest.mark.parametrize("name", ["budget_check", "budget_release", "budget_reset", "route", "dead_letters_replay"])
async def test_ten_megabytes_are_refused_before_they_are_read(
    doors: Doors, services: SimpleNamespace, name: str
) -> None:
    """413 in OpenAI's shape; the body is not even parsed."""
    reply = await doors.call(name, body=b"{" + b" " * 10 * 1024 * 1024)
    assert (reply.status, reply.code) == (413, "payload_too_large")
    assert set(reply.json["error"]) == {"code", "message", "type", "param"}


async def test_unexpected_failure_says_nothing_of_the_inside(
    doors: Doors, services: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with an opaque request id that is also in the log, with the traceback; no message of the exception."""
    services.budget.check = Recorder(RuntimeError("password=hunter2"))
    reply = await doors.call("budget_check", body=ASK)
    assert (reply.status, reply.code) == (500, "internal_error")
    assert b"hunter2" not in reply.raw
    assert reply.headers["x-request-id"] in reply.json["error"]["message"]
    assert reply.headers["x-request-id"] in caplog.text
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("error", [ConnectionError("no route"), TimeoutError()])
async def test_store_outage_asks_to_retry(doors: Doors, services: SimpleNamespace, error: Exception) -> None:
    """503 dependency_unavailable with Retry-After: the caller may try again, unlike after a 500."""
    services.publisher.publish = Recorder(error)
    services.budget.release = Recorder(error)
    reply = await doors.call("budget_release", body={"reservation": "r"})
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "dependency_unavailable", "2")


@pytest.mark.parametrize(("status", "expected"), [(None, 503), (500, 503), (429, 503), (400, 500), (404, 500)])
async def test_sdk_errors_count_as_outages_only_when_the_store_is_at_fault(
    doors: Doors, services: SimpleNamespace, status: int | None, expected: int
) -> None:
    """A store that answers 4xx was asked wrongly by us; telling the caller to retry would not help."""

    class HttpResponseError(Exception):
        status_code = status

    HttpResponseError.__module__ = "azure.core.exceptions"
    services.budget.release = Recorder(HttpResponseError())
    assert (await doors.call("budget_release", body={"reservation": "r"})).status == expected


async def test_refused_configuration_is_not_read_out_to_callers(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker without a configuration answers 503 not_ready; file and line stand in the log."""

    async def app() -> None:
        raise ConfigInvalid("config/budgets.yaml:7: budgets[0].limit: expected an amount")

    monkeypatch.setattr("shared.bootstrap.app", app)
    reply = await doors.call("budget_check", body=ASK)
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "not_ready", "2")
    assert b"budgets.yaml" not in reply.raw
    assert "budgets.yaml:7" in caplog.text


async def test_release_says_whether_the_token_was_ours(doors: Doors, services: SimpleNamespace) -> None:
    """A forged or foreign token is no error to the caller, and releases nothing."""
    services.budget.release = Recorder(False)
    reply = await doors.call("budget_release", body={"reservation": "forged"})
    assert (reply.status, reply.json) == (200, {"released": False})
    assert services.budget.release.calls == [(("forged",), {})]


@pytest.mark.parametrize("body", [{}, {"reservation": ""}, {"reservation": 1}])
async def test_release_needs_a_token(doors: Doors, services: SimpleNamespace, body: Any) -> None:
    """400 naming `reservation`."""
    reply = await doors.call("budget_release", body=body)
    assert (reply.status, reply.param) == (400, "reservation")


async def test_reset_records_who_and_why(doors: Doors, services: SimpleNamespace) -> None:
    """The admin's object id, never a name from the body, stands in the ledger; the client's key makes it idempotent."""
    body = {"tenant": "contoso", "scope": "team:search", "why": "goodwill", "who": "someone else", "spent": "1.50"}
    reply = await doors.call(
        "budget_reset", body=body, headers={"idempotency-key": "k-1"}, as_=principal("Chargeback.Admin", oid="grace")
    )
    assert reply.status == 202
    assert services.reset.reset.calls == [
        (("contoso", "team:search", "grace", "goodwill"), {"spent": "1.50", "period": None, "key": "k-1"})
    ]


@pytest.mark.parametrize(
    ("change", "param"),
    [({"why": ""}, "why"), ({"why": None}, "why"), ({"scope": 7}, "scope"), ({"period": "fortnight"}, "period")],
)
async def test_reset_needs_scope_reason_and_a_known_period(
    doors: Doors, services: SimpleNamespace, change: dict[str, Any], param: str
) -> None:
    """400 naming the field; nothing is published."""
    body = {"tenant": "contoso", "scope": "team:search", "why": "goodwill", **change}
    reply = await doors.call("budget_reset", body=body)
    assert (reply.status, reply.param) == (400, param)
    assert services.reset.reset.calls == []


@pytest.mark.parametrize("key", ["", "a b", "x" * 101, "a\nb"])
async def test_hostile_idempotency_key_is_refused(doors: Doors, services: SimpleNamespace, key: str) -> None:
    """The key becomes part of an event id, so it is a plain token."""
    body = {"tenant": "contoso", "scope": "team:search", "why": "goodwill"}
    reply = await doors.call("budget_reset", body=body, headers={"idempotency-key": key})
    assert (reply.status, reply.param) == (400, "idempotency-key")


async def test_every_answer_carries_a_request_id(doors: Doors, services: SimpleNamespace) -> None:
    """Support can find any answer in the logs; two answers never share an id."""
    replies = [await doors.call("budget_check", body=ASK) for _ in range(2)]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 2


async def test_answers_are_valid_json_of_known_size(doors: Doors, services: SimpleNamespace) -> None:
    """A scope key with quotes and unicode comes back as it was sent."""
    answer = services.budget.check.answer
    answer.scopes = {"session": 'a"b\\c|{}:é\u2603'}
    reply = await doors.call("budget_check", body=ASK)
    assert json.loads(reply.raw)["scopes"] == answer.scopes
