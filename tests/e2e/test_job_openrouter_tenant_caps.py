"""A job: a product whose customers are tenants on OpenRouter, each with a cap per day and one per month, and a chain of
models that stand in for one another.

Ten tokens in and 98 out cost, at USD per million tokens (micro-USD per token):

    claude-sonnet-4         10 x 3.00 + 98 x 15.00 = 1,500 micro-USD
    gpt-4o-mini             10 x 0.10 + 98 x  0.50 =    50
    llama-3.1-8b-instruct   10 x 0.10 + 98 x  0.10 =    10.8
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest

from local.options import BUILT_IN
from tests.support.jobs import PROMPT, ask, keep_clear_of_midnight, spend_of, usd
from tests.support.laptop import Laptop, eventually, start_laptop

SONNET, MINI, LLAMA = "anthropic/claude-sonnet-4", "openai/gpt-4o-mini", "meta-llama/llama-3.1-8b-instruct"
MISTRAL, CHEAP = "mistralai/mistral-large", "qwen/qwen-2.5-7b-instruct"
OUT = 98
ON_SONNET = 10 * 3 + OUT * 15
ON_MINI = (10 * 10 + OUT * 50) // 100
FAILURES_THAT_OPEN = 5  # in a row
CUSTOMERS = ("acme", "globex", "umbrella", "initech", "thrift")
CAPS = """
  - {{scope: tenant:{0}, tenant: {0}, period: day, limit: 0.0065, warn: 1.0, degrade: 1.0}}
  - {{scope: tenant:{0}, tenant: {0}, period: month, limit: 0.05, warn: 1.0, degrade: 1.0}}
"""
FILES = {
    "tenants.yaml": """
tenants:
  - {id: default}
  - {id: acme}
  - {id: globex, exhausted_status: 429}
  - {id: umbrella}
  - {id: initech}
  - {id: thrift}
""",
    "models.yaml": f"""
endpoints:
  - {{id: openrouter, provider: openrouter, key: OPENROUTER_API_KEY, url: http://simulated-model/openrouter/api/v1}}
models:
  - {{id: {SONNET}, provider: openrouter, capabilities: [chat, tools], fallbacks: [{MINI}, {LLAMA}]}}
  - {{id: {MINI}, provider: openrouter, capabilities: [chat, tools]}}
  - {{id: {LLAMA}, provider: openrouter, capabilities: [chat, tools]}}
  - {{id: {MISTRAL}, provider: openrouter, capabilities: [chat], fallbacks: [{MINI}]}}
  - {{id: {CHEAP}, provider: openrouter, capabilities: [chat], fallbacks: [{SONNET}]}}
""",
    "prices.yaml": f"""
prices:
  - {{model: {SONNET}, effective_from: 2026-01-01, usd_per_million: {{input: 3.00, output: 15.00}}}}
  - {{model: {MINI}, effective_from: 2026-01-01, usd_per_million: {{input: 0.10, output: 0.50}}}}
  - {{model: {LLAMA}, effective_from: 2026-01-01, usd_per_million: {{input: 0.10, output: 0.10}}}}
  - {{model: {MISTRAL}, effective_from: 2026-01-01, usd_per_million: {{input: 2.00, output: 6.00}}}}
  - {{model: {CHEAP}, effective_from: 2026-01-01, usd_per_million: {{input: 0.05, output: 0.05}}}}
""",
    "budgets.yaml": "budgets:"
    + "".join(CAPS.format(customer) for customer in ("acme", "globex", "umbrella"))
    + """
  - {scope: tenant:initech, tenant: initech, period: month, limit: 100.00}
  - {scope: tenant:thrift, tenant: thrift, period: day, limit: 0.001}
""",
} | {
    f"teams/{name}.yaml": f"team: {name}\ntenant: {name}\nidentities: {{subscriptions: [{name}-prod]}}\n"
    for name in CUSTOMERS
}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A running copy."""
    key = {"OPENROUTER_API_KEY": "sk-or-of-the-product"}
    keep_clear_of_midnight()
    with start_laptop(tmp_path_factory.mktemp("tenants"), FILES, gateway=BUILT_IN, **key) as laptop:
        yield laptop


def call_as(laptop: Laptop, customer: str, model: str = SONNET, **more: Any) -> httpx.Response:
    """One call of a customer, at most as long as it will be."""
    return ask(laptop, customer, model, OUT, max_tokens=OUT, **more)


def counters(laptop: Laptop, customer: str) -> dict[str, dict[str, Any]]:
    """The customer's counters by period: `2026-11-22` is a day's, `2026-11` a month's."""
    return {budget["period"]: budget for budget in spend_of(laptop, "tenant", customer, customer)}


def today() -> str:
    """The day's period."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def settled(laptop: Laptop, customer: str) -> dict[str, dict[str, Any]] | None:
    """The counters once nothing is held any more."""
    found = counters(laptop, customer)
    return found if all(float(each["reserved"]) == 0 for each in found.values()) else None


def spend_the_day(laptop: Laptop, customer: str) -> None:
    """Four calls: 4 x 1,500 = 6,000 of the day's 6,500 micro-USD. A fifth is more than the 500 that remain."""
    for _ in range(4):
        assert call_as(laptop, customer).status_code == 200
    assert eventually(lambda: settled(laptop, customer))[today()]["spent"] == usd(4 * ON_SONNET)


# Caps


@pytest.fixture(scope="module")
def spent_day(laptop: Laptop) -> None:
    """The day of acme and of globex is spent."""
    for customer in ("acme", "globex"):
        spend_the_day(laptop, customer)


def test_the_days_cap_refuses_while_the_month_has_room(laptop: Laptop, spent_day: None) -> None:
    """402 by the day's budget, with what remains of it; the month stands at 0.006 of 0.05."""
    refused = call_as(laptop, "acme")
    budget = refused.json()["budget"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exhausted")
    assert (budget["scope"], budget["period"], budget["limit"]) == ("tenant:acme", today(), "0.0065")
    assert (budget["spent"], budget["remaining"]) == (usd(6000), usd(500))
    assert refused.headers["x-budget-remaining"] == usd(500)
    month = counters(laptop, "acme")[today()[:7]]
    assert (month["spent"], month["state"]) == (usd(6000), "active")


def test_what_still_fits_is_still_served(laptop: Laptop, spent_day: None) -> None:
    """The cap is money, not a switch: mini's 50 micro-USD fit into the 500 that are left."""
    answer = call_as(laptop, "acme", MINI)
    assert (answer.status_code, answer.json()["model"]) == (200, MINI)
    assert eventually(lambda: settled(laptop, "acme"))[today()]["spent"] == usd(4 * ON_SONNET + ON_MINI)


def test_the_months_cap_refuses_on_a_fresh_day(laptop: Laptop) -> None:
    """Nothing is spent today; the month's opening balance leaves 0.0005 of 0.05."""
    opening = {"tenant": "umbrella", "scope": "tenant:umbrella", "period": "month", "spent": "0.0495"}
    answer = httpx.post(f"{laptop.functions_url}/budget/reset", json={**opening, "why": "opening balance"}, timeout=20)
    assert answer.status_code == 202
    eventually(lambda: counters(laptop, "umbrella")[today()[:7]]["spent"] == "0.0495")
    refused = call_as(laptop, "umbrella")
    budget = refused.json()["budget"]
    assert (refused.status_code, budget["period"], budget["remaining"]) == (402, today()[:7], usd(500))
    assert counters(laptop, "umbrella")[today()]["spent"] == "0.00"


def test_a_tenant_may_ask_for_429_instead(laptop: Laptop, spent_day: None) -> None:
    """globex's gateway code knows no 402: 429, and Retry-After says when the day is over; nothing else differs."""
    refused = call_as(laptop, "globex")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exhausted")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert int(refused.headers["retry-after"]) == pytest.approx((midnight - datetime.now(UTC)).total_seconds(), abs=5)
    assert refused.json()["budget"]["remaining"] == usd(500)


def test_the_sdk_does_not_retry_a_spent_tenant(laptop: Laptop, spent_day: None) -> None:
    """It would wait until midnight otherwise: RateLimitError at once, after one request."""
    messages: Any = [{"role": "user", "content": PROMPT}]
    with pytest.raises(openai.RateLimitError) as raised:
        laptop.client("globex", max_retries=5).chat.completions.create(model=SONNET, messages=messages, max_tokens=OUT)
    assert raised.value.code == "budget_exhausted"
    assert raised.value.request.headers["x-stainless-retry-count"] == "0"


def test_a_spent_tenant_is_nobody_elses_trouble(laptop: Laptop, spent_day: None) -> None:
    """acme is refused; initech is served, and neither sees the other's figures."""
    assert call_as(laptop, "acme").status_code == 402
    answer = call_as(laptop, "initech", MINI)
    assert (answer.status_code, answer.headers["x-budget-scope"]) == (200, "tenant:initech")


def test_a_customer_may_ask_what_a_call_cost(laptop: Laptop) -> None:
    """OpenRouter's usage accounting: `usage: {include: true}`, and the answer has the cost that the budget counts."""
    answer = call_as(laptop, "initech", usage={"include": True})
    assert answer.json()["usage"]["cost"] == pytest.approx(ON_SONNET / 10**6, abs=1e-12)
    rows = eventually(lambda: rows_of(laptop, answer, 1))
    assert rows == [(SONNET, 200, ON_SONNET * 1000)]


# The chain


def asked(laptop: Laptop, call: str) -> list[str]:
    """The models at which a call arrived, in order."""
    return [json.loads(received["body"])["model"] for received in laptop.received(call=call)]


def test_the_next_of_the_chain_stands_in_when_a_model_fails(laptop: Laptop) -> None:
    """sonnet answers 503: mini serves, the headers say so, and the bill is mini's alone."""
    call = uuid.uuid4().hex
    answer = call_as(laptop, "initech", call=call, x_sim_at=SONNET, x_sim_status="503", x_sim_retry_after="0")
    assert (answer.status_code, answer.json()["model"]) == (200, MINI)
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == (SONNET, MINI)
    assert answer.headers["x-tollkeeper-attempts"] == "2"
    used = answer.json()["usage"]
    nano_usd = used["prompt_tokens"] * 100 + used["completion_tokens"] * 500  # 0.10 and 0.50 USD per million
    assert asked(laptop, call) == [SONNET, MINI]
    assert eventually(lambda: rows_of(laptop, answer, 2)) == [(SONNET, 503, 0), (MINI, 200, nano_usd)]


def rows_of(laptop: Laptop, answer: httpx.Response, count: int) -> list[tuple[str, int, int]]:
    """(model, status, nano-USD) of each attempt in the ledger, in order; empty until there are so many."""
    rows = sorted(laptop.rows_by_request()[answer.headers["x-request-id"]], key=lambda row: row.attempt)
    return [(row.model, row.status, row.charge_nano_usd) for row in rows] if len(rows) == count else []


def test_a_stand_in_is_no_saving(laptop: Laptop) -> None:
    """mini is cheaper than sonnet, but nobody chose it to spare money."""
    rows = httpx.get(
        f"{laptop.functions_url}/usage/summary", params={"tenant": "initech", "group_by": "tenant"}, timeout=20
    )
    assert [row["saved"] for row in rows.json()["rows"]] == ["0.00"]


def test_the_chain_goes_on_in_its_order(laptop: Laptop) -> None:
    """sonnet and mini fail: llama answers the third attempt."""
    knobs = {"x_sim_at": f"{SONNET},{MINI}", "x_sim_status": "500"}
    answer = call_as(laptop, "initech", **knobs)
    assert (answer.status_code, answer.json()["model"]) == (200, LLAMA)
    assert answer.headers["x-tollkeeper-attempts"] == "3"


def test_a_chain_that_fails_to_its_end_is_an_error_that_costs_nothing(laptop: Laptop) -> None:
    """Each was asked, some once more after a pause; the client hears of the failure, and no budget is touched."""
    call = uuid.uuid4().hex
    before = eventually(lambda: settled(laptop, "initech"))[today()[:7]]["spent"]
    answer = call_as(laptop, "initech", call=call, x_sim_status="500")
    assert answer.status_code >= 500
    assert asked(laptop, call)[:3] == [SONNET, MINI, LLAMA]
    assert len(asked(laptop, call)) <= 6
    rows = eventually(lambda: rows_of(laptop, answer, len(asked(laptop, call))))
    assert {(status, nano_usd) for _, status, nano_usd in rows} == {(500, 0)}
    assert eventually(lambda: settled(laptop, "initech"))[today()[:7]]["spent"] == before


def test_a_clients_own_mistake_is_not_passed_down_the_chain(laptop: Laptop) -> None:
    """400: the next model would say the same."""
    call = uuid.uuid4().hex
    answer = call_as(laptop, "initech", call=call, x_sim_at=SONNET, x_sim_status="400")
    assert (answer.status_code, asked(laptop, call)) == (400, [SONNET])


def test_a_stand_in_must_fit_the_budget_too(laptop: Laptop) -> None:
    """qwen costs next to nothing and fails; sonnet's 1,500 micro-USD are more than thrift's 1,000: 402."""
    call = uuid.uuid4().hex
    answer = call_as(laptop, "thrift", CHEAP, call=call, x_sim_at=CHEAP, x_sim_status="503", x_sim_retry_after="0")
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exhausted")
    assert set(asked(laptop, call)) == {CHEAP}
    assert eventually(lambda: settled(laptop, "thrift"))[today()]["spent"] == "0.00"


def test_an_open_breaker_sends_calls_straight_to_the_stand_in(laptop: Laptop) -> None:
    """Five failures in a row open it. The next call does not knock at mistral again, though mistral is well by now."""
    for _ in range(FAILURES_THAT_OPEN):
        served = call_as(laptop, "initech", MISTRAL, x_sim_at=MISTRAL, x_sim_status="500")
        assert (served.status_code, served.json()["model"]) == (200, MINI)
    opened = time.monotonic()
    call = uuid.uuid4().hex
    answer = call_as(laptop, "initech", MISTRAL, call=call)
    assert time.monotonic() - opened < 25, "the breaker may have closed again"
    assert (answer.status_code, answer.json()["model"]) == (200, MINI)
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == (MISTRAL, MINI)
    assert asked(laptop, call) == [MINI]
    assert [row[0] for row in eventually(lambda: rows_of(laptop, answer, 1))] == [MINI]
