"""A job: several models on Azure OpenAI, and money that is watched by user, organisation, session and task at once.

Ten tokens in and 185 out cost, at USD per million tokens (micro-USD per token):

    gpt-4.1        10 x 2.00 + 185 x 8.00 = 1,500 micro-USD
    gpt-4.1-mini   10 x 0.40 + 185 x 1.60 =   300

User and organisation come from the token that Entra ID signed; session and task are what the client says.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from local.options import BUILT_IN
from tests.support.jobs import PROMPT, PROMPT_TOKENS, ask, keep_clear_of_midnight, spend_of, usd
from tests.support.laptop import CHAT, Laptop, eventually, start_laptop
from tests.support.otlp import Collector, collecting

LARGE, SMALL = "gpt-4.1", "gpt-4.1-mini"
OUT = 185
ONE_CALL, ONE_SMALL_CALL = PROMPT_TOKENS * 2 + OUT * 8, (PROMPT_TOKENS * 4 + OUT * 16) // 10
LAB_APP, SHOP_APP, ADA, BOB = (str(uuid.UUID(int=number, version=4)) for number in (1, 2, 3, 4))
FILES = {
    "tenants.yaml": "tenants: [{id: default, client_asserted_scopes: [session, task]}]",
    "models.yaml": f"""
models:
  - {{id: {LARGE}, deployments: [{LARGE}-weu], capabilities: [chat, tools], typical_output_tokens: {OUT}}}
  - {{id: {SMALL}, deployments: [{SMALL}-weu], capabilities: [chat, tools], typical_output_tokens: {OUT}}}
""",
    "prices.yaml": f"""
prices:
  - {{model: {LARGE}, effective_from: 2026-01-01, usd_per_million: {{input: 2.00, output: 8.00}}}}
  - {{model: {SMALL}, effective_from: 2026-01-01, usd_per_million: {{input: 0.40, output: 1.60}}}}
""",
    "budgets.yaml": f"""
budgets:
  - {{scope: "task:*", period: day, limit: 0.0035, warn: 1.0, degrade: 1.0}}
  - {{scope: "session:*", period: day, limit: 0.0065, warn: 1.0, degrade: 1.0}}
  - {{scope: "user:*", period: day, limit: 0.0125, warn: 1.0, degrade: 1.0}}
  - {{scope: org:lab, period: day, limit: 0.0185, warn: 1.0, degrade: 1.0}}
  - {{scope: org:shop, period: day, limit: 0.01, warn: 0.1, degrade: 0.3, stop: 1.0,
     downgrade: [{{from: {LARGE}, to: {SMALL}}}], disable_tools: [web_search]}}
""",
    "teams/research.yaml": f"team: research\norg: lab\nidentities: {{apps: [{LAB_APP}]}}\n",
    "teams/sales.yaml": f"team: sales\norg: shop\nidentities: {{apps: [{SHOP_APP}], subscriptions: [sales-prod]}}\n",
    "teams/stock.yaml": "team: stock\norg: shop\nidentities: {subscriptions: [stock-prod]}\n",
    "teams/rush.yaml": "team: rush\nidentities: {subscriptions: [rush-prod]}\n",
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("web_search", "look_up")
]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where the operators' observability tool receives spans."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def laptop(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A running copy that sends a span of every billed call."""
    telemetry = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.address}/v1/traces",
        "OTEL_BSP_SCHEDULE_DELAY": "300",
    }
    keep_clear_of_midnight()
    with start_laptop(tmp_path_factory.mktemp("spend"), FILES, gateway=BUILT_IN, **telemetry) as laptop:
        yield laptop


def call_as(laptop: Laptop, oid: str, session: str, task: str) -> httpx.Response:
    """One call of a person, through the lab's app."""
    body = {"model": LARGE, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": OUT}
    said = {"x_budget_scope_session": session, "x_budget_scope_task": task, "x_sim_output_tokens": str(OUT)}
    token = laptop.token(appid=LAB_APP, oid=oid)
    headers = laptop.headers(None, authorization=f"Bearer {token}", **said)
    return httpx.post(f"{laptop.url}{CHAT}", json=body, headers=headers, timeout=40)


def settled(laptop: Laptop, scope_type: str, key: str) -> dict[str, Any] | None:
    """The counter once nothing is held any more."""
    (budget,) = spend_of(laptop, scope_type, key)
    return budget if float(budget["reserved"]) == 0 else None


# Scopes


class LabDay:
    """What the lab's two people do today: twelve calls that are served, and one refused by each kind of scope."""

    def __init__(self, laptop: Laptop) -> None:
        self._laptop = laptop
        self.served: list[httpx.Response] = []
        self._twice(ADA, "s-1", "t-1")
        self.by_task = self._refused(ADA, "s-1", "t-1")  # two of 1,500 are 3,000 of the task's 3,500
        self._twice(ADA, "s-1", "t-2")
        self.by_session = self._refused(ADA, "s-1", "t-3")  # four are 6,000 of the session's 6,500
        self._twice(ADA, "s-2", "t-4")
        self._twice(ADA, "s-2", "t-5")
        self.by_user = self._refused(ADA, "s-3", "t-6")  # eight are 12,000 of the user's 12,500
        self._twice(BOB, "s-4", "t-7")
        self._twice(BOB, "s-4", "t-8")
        self.by_org = self._refused(BOB, "s-5", "t-9")  # twelve are 18,000 of the organisation's 18,500

    def _twice(self, oid: str, session: str, task: str) -> None:
        for _ in range(2):
            self.served.append(call_as(self._laptop, oid, session, task))
            assert self.served[-1].status_code == 200, self.served[-1].text

    def _refused(self, oid: str, session: str, task: str) -> httpx.Response:
        eventually(lambda: settled(self._laptop, "org", "lab"))
        return call_as(self._laptop, oid, session, task)


@pytest.fixture(scope="module")
def day(laptop: Laptop) -> LabDay:
    """The lab's day."""
    return LabDay(laptop)


@pytest.mark.parametrize(
    ("scope", "kind", "limit", "spent"),
    [
        ("task:t-1", "by_task", 3_500, 2 * ONE_CALL),
        ("session:s-1", "by_session", 6_500, 4 * ONE_CALL),
        (f"user:{ADA}", "by_user", 12_500, 8 * ONE_CALL),
        ("org:lab", "by_org", 18_500, 12 * ONE_CALL),
    ],
)
def test_each_scope_stops_a_call_by_itself(day: LabDay, scope: str, kind: str, limit: int, spent: int) -> None:
    """402 names the scope that is spent and what remains of it, while every other scope of the call has room."""
    refused: httpx.Response = getattr(day, kind)
    body = refused.json()
    assert (refused.status_code, body["error"]["code"], body["decision"]) == (402, "budget_exhausted", "refuse")
    budget = body["budget"]
    assert (budget["scope"], budget["limit"], budget["spent"]) == (scope, usd(limit), usd(spent))
    assert budget["remaining"] == refused.headers["x-budget-remaining"] == usd(limit - spent)
    assert refused.headers["x-budget-scope"] == scope


def test_one_call_counts_in_all_of_its_scopes(laptop: Laptop, day: LabDay) -> None:
    """One check and one record for all of them: user 8, user 4, organisation 12 calls of 1,500."""
    assert eventually(lambda: settled(laptop, "org", "lab"))["spent"] == usd(12 * ONE_CALL)
    assert [spend_of(laptop, "user", oid)[0]["spent"] for oid in (ADA, BOB)] == [usd(8 * ONE_CALL), usd(4 * ONE_CALL)]
    assert [spend_of(laptop, "session", key)[0]["spent"] for key in ("s-1", "s-4")] == [usd(4 * ONE_CALL)] * 2
    assert spend_of(laptop, "task", "t-7")[0]["spent"] == usd(2 * ONE_CALL)
    rows = laptop.summary(group_by="org,user,session,task", org="lab")
    served = [row for row in rows if row["requests"]]  # refused calls are rows too, once they are summed up
    assert {(row["user"], row["session"], row["task"]): row["requests"] for row in served} == {
        (ADA, "s-1", "t-1"): 2,
        (ADA, "s-1", "t-2"): 2,
        (ADA, "s-2", "t-4"): 2,
        (ADA, "s-2", "t-5"): 2,
        (BOB, "s-4", "t-7"): 2,
        (BOB, "s-4", "t-8"): 2,
    }


def test_the_sdk_raises_an_error_that_says_what_remains(laptop: Laptop, day: LabDay) -> None:
    """AzureOpenAI on a deployment's own path: 402 as APIStatusError, sent once, with what is left of the task."""
    client = laptop.azure_client("rush", max_retries=3)
    messages: Any = [{"role": "user", "content": PROMPT}]
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(
            model=f"{LARGE}-weu", messages=messages, max_tokens=OUT, extra_headers={"x-budget-scope-task": "t-1"}
        )
    assert (raised.value.status_code, raised.value.code) == (402, "budget_exhausted")
    assert raised.value.response.json()["budget"]["remaining"] == usd(3_500 - 2 * ONE_CALL)
    assert raised.value.request.headers["x-stainless-retry-count"] == "0"


def test_a_script_names_its_scope_and_hears_what_a_prompt_cost(laptop: Laptop) -> None:
    """`POST /chat` with one scope in two headers: reply, model, usage and cost; the scope's counter has it too."""
    headers = laptop.headers("rush", x_budget_scope_type="session", x_budget_scope_key="script")
    body = {"prompt": PROMPT, "model": SMALL, "max_tokens": 20}
    answer = httpx.post(f"{laptop.url}/chat", json=body, headers=headers, timeout=20).raise_for_status().json()
    assert answer["reply"]
    assert answer["model"] == SMALL
    assert answer["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert answer["cost"] == usd((PROMPT_TOKENS * 4 + answer["usage"]["completion_tokens"] * 16) // 10)
    assert eventually(lambda: settled(laptop, "session", "script"))["spent"] == answer["cost"]


@pytest.mark.parametrize("scope_type", ["user", "org", "team"])
def test_nobody_names_the_user_or_organisation_that_pays(laptop: Laptop, scope_type: str) -> None:
    """Those come from what was signed; a header that claims them is 403 and reaches no model."""
    header = {f"x_budget_scope_{scope_type}": "somebody-else"}
    refused = ask(laptop, "stock", SMALL, 1, **header)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_not_allowed")


def test_many_calls_at_once_do_not_get_past_a_limit(laptop: Laptop) -> None:
    """Twenty at once on a task that can pay two: what is served fits, all others are refused."""

    async def all_at_once() -> list[int]:
        async with laptop.async_client("rush", max_retries=0) as client:
            headers = {"x-budget-scope-task": "rush", "x-sim-output-tokens": str(OUT), "x-sim-latency-ms": "300"}
            messages: Any = [{"role": "user", "content": PROMPT}]

            async def one() -> int:
                try:
                    await client.chat.completions.create(
                        model=LARGE, messages=messages, max_tokens=OUT, extra_headers=headers
                    )
                except openai.APIStatusError as refused:
                    return refused.status_code
                return 200

            return list(await asyncio.gather(*(one() for _ in range(20))))

    statuses = asyncio.run(all_at_once())
    assert set(statuses) <= {200, 402, 429}
    assert 1 <= statuses.count(200) <= 2
    budget = eventually(lambda: settled(laptop, "task", "rush"))
    assert budget["spent"] == usd(statuses.count(200) * ONE_CALL)


# Downgrade and tools


class ShopDay:
    """The shop's calls: two bring it to 0.003 = 0.3 x 0.01, from where on it is degraded."""

    def __init__(self, laptop: Laptop) -> None:
        self.states = []
        for _ in range(2):
            answer = ask(laptop, "sales", LARGE, OUT, max_tokens=OUT)
            assert answer.json()["model"] == LARGE
            self.states.append(eventually(lambda: settled(laptop, "org", "shop"))["state"])
        self.call = uuid.uuid4().hex
        self.degraded = ask(laptop, "sales", LARGE, OUT, max_tokens=OUT, tools=TOOLS, call=self.call)
        self.of_other_team = ask(laptop, "stock", LARGE, OUT, max_tokens=OUT)
        self.budget = eventually(lambda: settled(laptop, "org", "shop"))


@pytest.fixture(scope="module")
def shop(laptop: Laptop) -> ShopDay:
    """The shop's day."""
    return ShopDay(laptop)


def test_a_budget_is_warned_before_it_is_degraded(shop: ShopDay) -> None:
    """1,500 is past 0.1 x 10,000, 3,000 is at 0.3 x 10,000."""
    assert shop.states == ["warned", "degraded"]


def test_a_degraded_organisation_is_served_by_the_cheaper_model(shop: ShopDay) -> None:
    """gpt-4.1 was asked for and gpt-4.1-mini serves, for every team of the organisation; both names are told."""
    for answer in (shop.degraded, shop.of_other_team):
        assert (answer.status_code, answer.json()["model"]) == (200, SMALL)
        assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == (LARGE, SMALL)
        assert answer.headers["x-budget-state"] == "degraded"


def test_a_disabled_tool_is_taken_out_of_the_request(laptop: Laptop, shop: ShopDay) -> None:
    """The model never hears of `web_search`, keeps `look_up`, and the header says what is gone."""
    (received,) = laptop.received(call=shop.call)
    assert [tool["function"]["name"] for tool in json.loads(received["body"])["tools"]] == ["look_up"]
    assert shop.degraded.headers["x-budget-disabled-tools"] == "web_search"


def test_the_state_does_not_flap_when_the_cheaper_model_is_used(laptop: Laptop, shop: ShopDay) -> None:
    """Two dear calls and two cheap ones; the cheap ones leave it degraded."""
    tools_tokens = json.loads(shop.degraded.text)["usage"]["prompt_tokens"] - PROMPT_TOKENS  # look_up's schema
    spent = 2 * ONE_CALL + 2 * ONE_SMALL_CALL + tools_tokens * Decimal("0.40")
    assert Decimal(shop.budget["spent"]) * 10**6 == spent
    assert shop.budget["state"] == "degraded"


def test_spend_comes_with_its_rate_and_where_it_leads(laptop: Laptop, shop: ShopDay) -> None:
    """Rate: the day's spend by the hours since midnight, one at least. Projection: as much for every hour left."""
    budget = spend_of(laptop, "org", "shop")[0]
    now = datetime.now(UTC)
    hours = now.hour + now.minute / 60 + now.second / 3600
    spent = float(budget["spent"])
    rate = spent / max(1.0, hours)
    assert float(budget["rate"]) == pytest.approx(rate, rel=0.02)
    assert float(budget["projection"]["value"]) == pytest.approx(spent + rate * (24 - hours), rel=0.03)
    assert Decimal(budget["remaining"]) == Decimal("0.01") - Decimal(budget["spent"])


# Spans


def test_every_billed_call_is_a_span_with_its_cost(laptop: Laptop, collector: Collector, shop: ShopDay) -> None:
    """OpenTelemetry's GenAI attributes, the exact cost, and whose call it was: what the ledger says, call by call."""
    row = laptop.rows(shop.degraded)["usage"]
    span = eventually(lambda: span_of(collector, row.id))
    said = span["attributes"]
    assert span["name"] == f"chat {LARGE}"
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "azure.ai.openai"
    assert (said["gen_ai.request.model"], said["gen_ai.response.model"]) == (LARGE, SMALL)
    used = shop.degraded.json()["usage"]
    assert said["gen_ai.usage.input_tokens"] == used["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == used["completion_tokens"] == OUT
    assert said["tollkeeper.cost.nano_usd"] == row.charge_nano_usd
    assert said["tollkeeper.decision"] == "downgrade"
    assert (said["tollkeeper.scope.org"], said["tollkeeper.scope.team"]) == ("shop", "sales")


def span_of(collector: Collector, event_id: str) -> dict[str, Any] | None:
    """The span of one event."""
    return next((span for span in collector.spans if span["attributes"]["tollkeeper.event.id"] == event_id), None)


def test_spans_add_up_to_the_bill_and_name_no_person(laptop: Laptop, collector: Collector, day: LabDay) -> None:
    """The lab's twelve calls: as many spans, 12 x 1,500 micro-USD, and neither user, session nor task in any."""
    spans = eventually(lambda: spans_of_org(collector, "lab", 12))
    assert sum(span["attributes"]["tollkeeper.cost.nano_usd"] for span in spans) == 12 * ONE_CALL * 1000
    said = {str(value) for span in spans for value in span["attributes"].values()}
    assert not said & {ADA, BOB, "s-1", "t-1", PROMPT}


def spans_of_org(collector: Collector, org: str, count: int) -> list[dict[str, Any]]:
    """The spans of an organisation's calls, once they are so many."""
    found = [span for span in collector.spans if span["attributes"].get("tollkeeper.scope.org") == org]
    return found if len(found) >= count else []
