"""`POST /chat` as rules: the chat completion it stands for, the scope its headers name, and what it answers."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from starlette.datastructures import Headers

from gateway.answers import Whole
from gateway.auth import asserted_scopes
from gateway.chat import chat_body, chat_call, with_scope_header
from gateway.exchange import Exchange
from gateway.upstream import UpstreamBroken
from shared.budgets.answer import CheckAnswer
from shared.config.model import Config
from shared.errors import InvalidRequest
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
COST = (1000 * Decimal("2.50") + 100 * Decimal("10.00")) / 1_000_000


def asked(**body):
    return chat_call(json.dumps(body).encode())


def headers(*pairs):
    return Headers(raw=[(name.lower().encode(), value.encode()) for name, value in pairs])


def test_a_prompt_is_one_message_for_the_cheapest_model():
    """Without a model it is `auto`; the text is the one message of a chat completion that is not streamed."""
    call = asked(prompt="Hello")
    assert (call.operation, call.model, call.streamed) == ("chat", "auto", False)
    assert call.body == {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


def test_tools_may_be_names():
    """A name is a function of that name, so that a budget can switch it off like any other; OpenAI's form passes."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    call = asked(prompt="Hello", model="gpt-4o", tools=["web_search", tool])
    assert call.tools == ("web_search", "look_up")
    assert [each["function"]["name"] for each in call.body["tools"]] == ["web_search", "look_up"]
    assert "tools" not in asked(prompt="Hello", tools=[]).body


def test_fields_of_chat_completions_go_along():
    """A script may cap its answer; the cap bounds what the check holds."""
    call = asked(prompt="Hello", max_tokens=20, temperature=0)
    assert call.max_output_tokens == 20
    assert call.body["temperature"] == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["Hello"]}, "prompt"),
        ({"prompt": "Hello", "messages": []}, "messages"),
        ({"prompt": "Hello", "stream": True}, "stream"),
        ({"prompt": "Hello", "n": 2}, "n"),
        ({"prompt": "Hello", "model": 4}, "model"),
        ({"prompt": "Hello", "tools": "web_search"}, "tools"),
        ({"prompt": "Hello", "tools": ["web search"]}, "tools"),
        ({"prompt": "Hello", "tools": [7]}, "tools"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(body, param):
    """The error names the field; nothing is guessed, nothing dropped."""
    with pytest.raises(InvalidRequest) as raised:
        asked(**body)
    assert raised.value.param == param


@pytest.mark.parametrize("raw", [b"", b"[]", b"hello", b'{"prompt": "\xff"}', b"[" * 5000])
def test_a_body_that_is_no_object_is_refused(raw):
    """A clear 400 whatever the bytes."""
    with pytest.raises(InvalidRequest):
        chat_call(raw)


def test_type_and_key_are_the_scope_header_of_every_route():
    """The pair becomes x-budget-scope-<type>, so that the one set of rules decides who may name it."""
    given = headers(("api-key", "k"), ("X-Budget-Scope-Type", " Session "), ("x-budget-scope-key", "Zoë"))
    rewritten = with_scope_header(given)
    assert asserted_scopes(rewritten) == {"session": "Zoë"}
    assert rewritten["api-key"] == "k"
    untouched = headers(("x-budget-scope-session", "s"), ("x-budget-scope-task", "t"))
    assert asserted_scopes(with_scope_header(untouched)) == {"session": "s", "task": "t"}


@pytest.mark.parametrize(
    ("pairs", "param"),
    [
        ([("x-budget-scope-type", "session")], "x-budget-scope-key"),
        ([("x-budget-scope-key", "s")], "x-budget-scope-type"),
        ([("x-budget-scope-type", "session"), ("x-budget-scope-key", " ")], "x-budget-scope-key"),
        ([("x-budget-scope-type", "a b"), ("x-budget-scope-key", "s")], "x-budget-scope-type"),
        (
            [("x-budget-scope-type", "user"), ("x-budget-scope-type", "team"), ("x-budget-scope-key", "s")],
            "x-budget-scope-type",
        ),
        (
            [("x-budget-scope-type", "session"), ("x-budget-scope-key", "s"), ("x-budget-scope-task", "t")],
            "x-budget-scope-type",
        ),
    ],
)
def test_half_a_scope_or_two_forms_are_refused(pairs, param):
    """A scope that is half said would charge nobody's budget; two forms might name two."""
    with pytest.raises(InvalidRequest) as raised:
        with_scope_header(headers(*pairs))
    assert raised.value.param == param


def answered(content, usage=USAGE, status=200, model="gpt-4o", **more):
    checked = CheckAnswer(
        decision="allow",
        reason="within_budget",
        tenant="default",
        scopes={"team": "search"},
        requested_model=model,
        model=model,
        provider="azure-openai",
        deployment=model,
        state="active",
        disabled_tools=[],
        budget=None,
        admitted_at_utc=datetime(2026, 11, 21, 10, tzinfo=UTC),
    )
    exchange = Exchange(source="gateway/test", request_id="r", call=asked(prompt="Hello", model=model), answer=checked)
    return Whole(status, json.dumps(content).encode(), {}, usage, exchange, **more)


@pytest.fixture
def pricer():
    return Pricer(PriceBook.load(), Config("v1", {}, {}, (), {}))


def completion(**message):
    return {"model": "gpt-4o-2024-08-06", "choices": [{"message": message}], "usage": USAGE}


def test_a_reply_has_its_exact_cost(pricer):
    """1,000 input tokens at 2.50 and 100 output tokens at 10.00 USD per million."""
    body = chat_body(answered(completion(content="Hi")), pricer)
    assert body == {"reply": "Hi", "cost": str(COST), "model": "gpt-4o", "usage": USAGE}


def test_tool_calls_come_in_place_of_a_reply(pricer):
    """A model that calls a tool says nothing; the caller sees what it wants called."""
    calls = [{"id": "1", "type": "function", "function": {"name": "web_search", "arguments": "{}"}}]
    body = chat_body(answered(completion(content=None, tool_calls=calls)), pricer)
    assert (body["reply"], body["tool_calls"]) == (None, calls)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 5, "completion_tokens": -1}, {"tokens": 4}])
def test_a_cost_nobody_knows_is_null(pricer, usage):
    """Not zero: the ledger bills an estimate, or a person looks at it."""
    assert chat_body(answered(completion(content="Hi"), usage), pricer)["cost"] is None


def test_a_model_without_a_price_has_no_cost(pricer):
    """Unknown is never free."""
    assert chat_body(answered(completion(content="Hi"), model="homegrown-1"), pricer)["cost"] is None


def test_a_refusal_says_what_remains(pricer):
    """Beside OpenAI's error and the binding budget."""
    refusal = {"error": {"code": "budget_exhausted"}, "budget": {"scope": "team:search", "remaining": "0.0002"}}
    body = chat_body(Whole(402, json.dumps(refusal).encode(), {}), pricer)
    assert body == {**refusal, "remaining": "0.0002"}


def test_a_models_own_error_is_passed_on(pricer):
    """As it came: it has OpenAI's shape already."""
    error = {"error": {"code": "content_filter", "message": "no", "type": "invalid_request_error", "param": "prompt"}}
    assert chat_body(answered(error, None, 400), pricer) == error


def test_a_model_that_declines_says_so_in_place_of_a_reply(pricer):
    """A structured output that a model refuses has no content: without its words nobody would know why."""
    body = chat_body(answered(completion(content=None, refusal="I cannot.")), pricer)
    assert (body["reply"], body["refusal"]) == (None, "I cannot.")


def test_a_backends_error_is_no_refusal_of_a_budget(pricer):
    """Whatever it calls `budget`."""
    error = {"error": {"code": None, "message": "no", "type": "invalid_request_error", "param": None}, "budget": "none"}
    assert chat_body(answered(error, None, 400), pricer) == error


@pytest.mark.parametrize("content", [{"choices": []}, [], {"choices": [{}]}, {"choices": [{"message": "Hi"}]}])
def test_an_answer_without_a_choice_is_the_backends_fault(pricer, content):
    """A typed error, not a crash."""
    with pytest.raises(UpstreamBroken):
        chat_body(answered(content), pricer)
