"""A job: one door for many providers. The cheapest model that can do a call, budgets that check, record and reset, and
sums by hour, day and month of tenant, feature, provider and model.

Prices in USD per million tokens, which is micro-USD per token:

    gpt-4o        azure-openai   2.50 / 10.00   chat, tools, vision, json   128,000 tokens of context
    gpt-4o-mini   azure-openai   0.15 /  0.60   chat, tools, vision, json   128,000
    claude-haiku  anthropic      0.80 /  4.00   chat, tools, vision         200,000
    llama-3-8b    openrouter     0.05 /  0.10   chat                         32,000
    mystery       openrouter     unknown        chat, tools                 200,000
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest

from local.options import BUILT_IN
from tests.support.jobs import PROMPT, PROMPT_TOKENS, ask, keep_clear_of_midnight, spend_of, usd
from tests.support.laptop import Laptop, eventually, start_laptop

FILES = {
    "tenants.yaml": """
tenants:
  - {id: default}
  - {id: acme, client_asserted_scopes: [feature, session]}
  - {id: globex, client_asserted_scopes: [feature]}
""",
    "models.yaml": """
endpoints:
  - {id: azure, provider: azure-openai, url: http://simulated-model, region: westeurope, data_zone: eu}
  - {id: claude, provider: anthropic, url: http://simulated-model/anthropic}
  - {id: router, provider: openrouter, url: http://simulated-model/openrouter/api/v1}
models:
  - {id: gpt-4o, capabilities: [chat, tools, vision, json], context_tokens: 128000}
  - {id: gpt-4o-mini, capabilities: [chat, tools, vision, json], context_tokens: 128000}
  - {id: claude-haiku, provider: anthropic, capabilities: [chat, tools, vision], context_tokens: 200000}
  - {id: llama-3-8b, provider: openrouter, capabilities: [chat], context_tokens: 32000}
  - {id: mystery, provider: openrouter, capabilities: [chat, tools], context_tokens: 200000}
""",
    "prices.yaml": """
prices:
  - {model: gpt-4o, effective_from: 2020-01-01, usd_per_million: {input: 2.50, output: 10.00}}
  - {model: gpt-4o-mini, effective_from: 2020-01-01, usd_per_million: {input: 0.15, output: 0.60}}
  - {model: claude-haiku, effective_from: 2020-01-01, usd_per_million: {input: 0.80, output: 4.00}}
  - {model: llama-3-8b, effective_from: 2020-01-01, usd_per_million: {input: 0.05, output: 0.10}}
""",
    "teams/apps.yaml": """
team: apps
tenant: acme
identities: {subscriptions: [apps-prod]}
budgets: [{period: month, limit: 1.00}]
""",
    "teams/labs.yaml": """
team: labs
tenant: globex
identities: {subscriptions: [labs-prod]}
budgets: [{period: month, limit: 1000.00}]
""",
}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A running copy."""
    keep_clear_of_midnight()
    with start_laptop(tmp_path_factory.mktemp("agnostic"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


def post(laptop: Laptop, path: str, body: Any, content_type: str = "application/json") -> httpx.Response:
    """A request to the function app, as a program without any gateway sends it."""
    headers = {"content-type": content_type}
    return httpx.post(f"{laptop.functions_url}{path}", content=json.dumps(body), headers=headers, timeout=20)


def route(laptop: Laptop, **wanted: Any) -> dict[str, Any]:
    """The answer of `POST /route`."""
    found: dict[str, Any] = post(laptop, "/route", wanted).raise_for_status().json()
    return found


# Routing


def test_the_cheapest_capable_model_is_chosen_with_its_alternatives(laptop: Laptop) -> None:
    """1,000 tokens in and 500 out, in micro-USD: 100 on llama, 450 on mini, 2,800 on haiku, 7,500 on gpt-4o."""
    found = route(laptop, capabilities=["chat"], input_tokens=1000, max_output_tokens=500)
    assert (found["model"], found["cost"]) == ("llama-3-8b", usd(1000 * 5 // 100 + 500 * 10 // 100))
    assert [(each["model"], each["cost"]) for each in found["alternatives"]] == [
        ("gpt-4o-mini", usd(1000 * 15 // 100 + 500 * 60 // 100)),
        ("claude-haiku", usd(1000 * 80 // 100 + 500 * 4)),
        ("gpt-4o", usd(1000 * 25 // 10 + 500 * 10)),
    ]
    assert found["why"]


@pytest.mark.parametrize(
    ("wanted", "model"),
    [
        ({"capabilities": ["chat", "tools"]}, "gpt-4o-mini"),
        ({"capabilities": ["chat", "vision", "json"]}, "gpt-4o-mini"),
        ({"capabilities": ["chat"], "input_tokens": 40_000}, "gpt-4o-mini"),
        ({"capabilities": ["chat"], "input_tokens": 150_000}, "claude-haiku"),
        ({"model": "gpt-4o", "input_tokens": 1000}, "gpt-4o-mini"),
    ],
)
def test_what_a_call_needs_decides(laptop: Laptop, wanted: dict[str, Any], model: str) -> None:
    """Tools, vision, JSON mode, the length of the prompt, or all that a named model can do."""
    assert route(laptop, **wanted)["model"] == model


def test_each_model_that_cannot_serve_says_why(laptop: Laptop) -> None:
    """What it lacks, that its context is too short, or that nobody knows its price: an unknown price is never cheap."""
    rejected = route(laptop, capabilities=["chat", "tools", "json"], input_tokens=1000)["rejected"]
    assert set(rejected) == {"llama-3-8b", "claude-haiku", "mystery"}
    assert "tools" in rejected["llama-3-8b"]
    assert "json" in rejected["claude-haiku"]
    rejected = route(laptop, capabilities=["chat", "tools"], input_tokens=150_000)["rejected"]
    assert "price" in rejected["mystery"]
    assert "128000" in rejected["gpt-4o"]


@pytest.mark.parametrize("place", [{"region": "westeurope"}, {"data_zone": "eu"}])
def test_a_call_that_must_stay_in_a_place_is_routed_there(laptop: Laptop, place: dict[str, str]) -> None:
    """llama is cheaper, but only Azure's endpoint is known to be there."""
    found = route(laptop, capabilities=["chat"], input_tokens=1000, max_output_tokens=500, **place)
    assert (found["model"], [each["model"] for each in found["alternatives"]]) == ("gpt-4o-mini", ["gpt-4o"])
    assert {"llama-3-8b", "claude-haiku"} <= set(found["rejected"])


def test_the_gateway_routes_the_very_request_it_would_be_sent(laptop: Laptop) -> None:
    """`POST /route` there takes the body of a chat completion: tools and an image in it are needs."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    message = {"role": "user", "content": [{"type": "text", "text": PROMPT}, image]}
    answer = laptop.post("labs", "/route", {"messages": [message], "max_tokens": 500})
    assert (answer.status_code, answer.json()["model"]) == (200, "gpt-4o-mini")
    assert "vision" in answer.json()["rejected"]["llama-3-8b"]
    told = laptop.post("labs", "/route", {"messages": [{"role": "user", "content": PROMPT}], "data_zone": "eu"})
    assert (told.json()["model"], "eu" in told.json()["rejected"]["llama-3-8b"]) == ("gpt-4o-mini", True)


def test_nobody_is_chosen_when_nobody_can(laptop: Laptop) -> None:
    """No model hears: the answer has none, and a reason for each."""
    found = route(laptop, capabilities=["audio"])
    assert (found["model"], found["cost"], found["alternatives"]) == (None, None, [])
    assert len(found["rejected"]) == 5


# Check, record, reset


def check(laptop: Laptop, session: str, **asked: Any) -> httpx.Response:
    """`POST /budget/check` for a call of 1,000 tokens in and at most 500 out on gpt-4o: 7,500 micro-USD."""
    scopes = {"team": "apps", "session": session}
    call = {"model": "gpt-4o", "input_tokens": 1000, "max_output_tokens": 500, **asked}
    return post(laptop, "/budget/check", {"tenant": "acme", "scopes": scopes, **call})


def record(laptop: Laptop, admitted: dict[str, Any], event_id: str, usage: dict[str, int] | None) -> httpx.Response:
    """`POST /usage` of a call that a check admitted."""
    data = {name: admitted[name] for name in ("tenant", "scopes", "provider", "model", "deployment", "reservation")}
    data |= {"operation": "chat", "status": 200 if usage else 500, "usage": usage}
    event = {"specversion": "1.0", "type": "tollkeeper.usage.v1", "source": "worker", "id": event_id, "data": data}
    return post(laptop, "/usage", event | {"time": admitted["admitted_at"]}, "application/cloudevents+json")


def team_budget(laptop: Laptop) -> dict[str, Any]:
    """The team's counter."""
    return spend_of(laptop, "team", "apps", "acme")[0]


def test_a_call_is_checked_held_and_recorded(laptop: Laptop) -> None:
    """The check holds an estimate; the record replaces it by what was used: 1,000 x 2.50 + 200 x 10.00 = 4,500."""
    before = team_budget(laptop)
    admitted = check(laptop, "s-1").raise_for_status().json()
    assert (admitted["decision"], admitted["model"]) == ("allow", "gpt-4o")
    assert float(team_budget(laptop)["reserved"]) > 0
    usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
    name = uuid.uuid4().hex
    for _ in range(3):  # a sender that is not sure sends again
        assert record(laptop, admitted, name, usage).json()["accepted"] == 1
    after = eventually(lambda: settled(laptop))
    assert float(after["spent"]) - float(before["spent"]) == pytest.approx(0.0045, abs=1e-12)
    (row,) = summary(laptop, "acme", group_by="session", session="s-1")
    assert (row["requests"], row["cost"]) == (1, usd(1000 * 25 // 10 + 200 * 10))


def settled(laptop: Laptop) -> dict[str, Any] | None:
    """The team's counter once nothing is held any more."""
    budget = team_budget(laptop)
    return budget if float(budget["reserved"]) == 0 else None


def test_a_failed_call_costs_nothing_and_frees_what_it_held(laptop: Laptop) -> None:
    """Recorded as failed, or released at once: the budget is as it was before the check."""
    before = eventually(lambda: settled(laptop))
    failed, dropped = (check(laptop, "s-2").raise_for_status().json() for _ in range(2))
    assert record(laptop, failed, uuid.uuid4().hex, None).status_code == 202
    assert post(laptop, "/budget/release", {"reservation": dropped["reservation"]}).json() == {"released": True}
    assert eventually(lambda: settled(laptop))["spent"] == before["spent"]


def test_a_reset_gives_the_budget_back_and_leaves_the_bill(laptop: Laptop) -> None:
    """At 1.00 of 1.00 a check is 402 with nothing remaining; after the reset the very same check is admitted."""
    assert post(laptop, "/budget/reset", reset(spent="1.00", why="what was spent before we came")).status_code == 202
    eventually(lambda: team_budget(laptop)["spent"] == "1.00")
    refused = check(laptop, "s-3")
    assert (refused.status_code, refused.json()["budget"]["remaining"]) == (402, "0.00")
    billed = bill(laptop)
    assert post(laptop, "/budget/reset", reset(why="approved by finance")).status_code == 202
    eventually(lambda: team_budget(laptop)["spent"] == "0.00")
    admitted = check(laptop, "s-3").raise_for_status().json()
    assert admitted["state"] == "active"
    post(laptop, "/budget/release", {"reservation": admitted["reservation"]})
    assert bill(laptop) == billed


def bill(laptop: Laptop) -> list[tuple[int, str]]:
    """Requests and cost of the tenant; not how many were refused, which is summed up some seconds later."""
    return [(row["requests"], row["cost"]) for row in summary(laptop, "acme", group_by="tenant")]


def reset(**fields: str) -> dict[str, str]:
    """What `POST /budget/reset` is asked."""
    return {"tenant": "acme", "scope": "team:apps", **fields}


# Aggregates


class Used(NamedTuple):
    """One call that some program made and recorded itself."""

    tenant: str
    feature: str
    provider: str
    model: str
    time: datetime
    tokens_in: int
    tokens_out: int
    micro_usd: int


THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
TURN = (THIS_MONTH - timedelta(days=1)).replace(day=1)  # a turn of the month that is past, whatever the day is today
LATE, EARLY = TURN - timedelta(minutes=30), TURN + timedelta(minutes=30)  # an hour apart, in two days and two months
NEXT_DAY = EARLY + timedelta(days=1, minutes=1)
CALLS = [
    Used("acme", "search", "azure-openai", "gpt-4o", LATE, 1000, 500, 1000 * 25 // 10 + 500 * 10),
    Used("acme", "search", "azure-openai", "gpt-4o", LATE + timedelta(minutes=20), 400, 100, 400 * 25 // 10 + 100 * 10),
    Used("acme", "search", "azure-openai", "gpt-4o", EARLY, 1000, 500, 1000 * 25 // 10 + 500 * 10),
    Used("acme", "search", "azure-openai", "gpt-4o-mini", EARLY, 2000, 500, 2000 * 15 // 100 + 500 * 6 // 10),
    Used("acme", "summaries", "anthropic", "claude-haiku", EARLY, 5000, 250, 5000 * 8 // 10 + 250 * 4),
    Used("acme", "summaries", "anthropic", "claude-haiku", NEXT_DAY, 5000, 250, 5000 * 8 // 10 + 250 * 4),
    Used("globex", "search", "azure-openai", "gpt-4o", EARLY, 200, 50, 200 * 25 // 10 + 50 * 10),
    Used("globex", "search", "openrouter", "llama-3-8b", NEXT_DAY, 20_000, 1000, 20_000 * 5 // 100 + 1000 * 10 // 100),
]
WINDOWS = {"hour": "%Y-%m-%dT%H:00:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}
DIMENSIONS = ("tenant", "feature", "provider", "model")


def summary(laptop: Laptop, tenant: str, **query: str) -> list[dict[str, Any]]:
    """Rows of `GET /usage/summary`."""
    answer = httpx.get(f"{laptop.functions_url}/usage/summary", params={"tenant": tenant, **query}, timeout=20)
    rows: list[dict[str, Any]] = answer.raise_for_status().json()["rows"]
    return rows


def event_of(number: int, used: Used) -> dict[str, Any]:
    """A call as an event."""
    usage = {"prompt_tokens": used.tokens_in, "completion_tokens": used.tokens_out}
    data = {"tenant": used.tenant, "scopes": {"feature": used.feature}, "provider": used.provider, "model": used.model}
    data |= {"operation": "chat", "status": 200, "usage": usage}
    head = {"specversion": "1.0", "type": "tollkeeper.usage.v1", "source": "imports", "id": f"call-{number}"}
    return head | {"time": used.time.isoformat(), "data": data}


@pytest.fixture(scope="module")
def span(laptop: Laptop) -> dict[str, str]:
    """The calls above, recorded in one batch; the stretch of time they lie in."""
    events = [event_of(number, used) for number, used in enumerate(CALLS)]
    answer = post(laptop, "/usage", events, "application/cloudevents-batch+json")
    assert answer.json() == {"accepted": len(CALLS), "rejected": []}
    days = {"from": (TURN - timedelta(days=1)).isoformat(), "to": (TURN + timedelta(days=3)).isoformat()}
    eventually(lambda: sum(row["requests"] for row in summary(laptop, "*", group_by="tenant", **days)) == len(CALLS))
    return days


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_usage_is_summed_by_one_dimension_in_any_window(
    laptop: Laptop, span: dict[str, str], window: str, dimension: str
) -> None:
    """Each call in the hour, day and month of its own time in UTC, to the micro-dollar."""
    rows = summary(laptop, "*", group_by=f"{window},{dimension}", **span)
    expected = sums(lambda used: (f"{used.time:{WINDOWS[window]}}", getattr(used, dimension)))
    assert {(row[window], row[dimension]): row["cost"] for row in rows} == expected


@pytest.mark.parametrize("window", WINDOWS)
def test_usage_is_summed_by_all_dimensions_at_once(laptop: Laptop, span: dict[str, str], window: str) -> None:
    """The whole cross product: a tenant's feature on a provider's model, not four lists that cannot be joined."""
    rows = summary(laptop, "*", group_by=",".join((window, *DIMENSIONS)), **span)
    expected = sums(lambda used: (f"{used.time:{WINDOWS[window]}}", *(getattr(used, each) for each in DIMENSIONS)))
    assert {(row[window], *(row[each] for each in DIMENSIONS)): row["cost"] for row in rows} == expected


def sums(key: Any) -> dict[Any, str]:
    """What the calls above come to, by hand."""
    micro_usd: Counter[Any] = Counter()
    for used in CALLS:
        micro_usd[key(used)] += used.micro_usd
    return {group: usd(amount) for group, amount in micro_usd.items()}


def test_a_summary_keeps_to_its_stretch_of_time(laptop: Laptop, span: dict[str, str]) -> None:
    """One day holds what was called on it, and nothing else; a tenant sees its own."""
    day = {"from": f"{EARLY:%Y-%m-%d}", "to": f"{NEXT_DAY:%Y-%m-%d}"}
    (row,) = summary(laptop, "acme", group_by="tenant", **day)
    assert (row["requests"], row["cost"]) == (3, usd(7_500 + 600 + 5_000))
    assert row["tokens"] == {"input": 1000 + 2000 + 5000, "output": 500 + 500 + 250}


def test_features_come_from_a_header_that_the_tenant_lists(laptop: Laptop) -> None:
    """The same dimension for calls through the gateway; a tenant's own list decides which headers count."""
    answer = ask(laptop, "labs", "gpt-4o-mini", 100, x_budget_scope_feature="translation")
    assert answer.status_code == 200
    cost = PROMPT_TOKENS * 15 // 10 + 100 * 6  # in tenths of a micro-USD, as 10 x 0.15 is 1.5
    rows = eventually(lambda: summary(laptop, "globex", group_by="feature,provider,model", feature="translation"))
    assert [(row["provider"], row["model"], row["requests"]) for row in rows] == [("azure-openai", "gpt-4o-mini", 1)]
    assert float(rows[0]["cost"]) == pytest.approx(cost / 10**7, abs=1e-12)
    refused = ask(laptop, "labs", "gpt-4o-mini", 1, x_budget_scope_session="s-1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope_not_allowed")


def test_a_model_without_a_price_is_never_free(laptop: Laptop) -> None:
    """Its calls have no cost, which is not zero, and are counted as unpriced; the budget counts a guard price."""
    before = float(spend_of(laptop, "team", "labs", "globex")[0]["spent"])
    assert ask(laptop, "labs", "mystery", 100, x_budget_scope_feature="riddles").status_code == 200
    (row,) = eventually(lambda: summary(laptop, "globex", group_by="model", feature="riddles"))
    assert (row["model"], row["requests"], row["cost"], row["unpriced"]) == ("mystery", 1, None, 1)
    assert float(spend_of(laptop, "team", "labs", "globex")[0]["spent"]) > before


# One door


@pytest.mark.parametrize(
    ("model", "provider"), [("gpt-4o", "azure-openai"), ("claude-haiku", "anthropic"), ("llama-3-8b", "openrouter")]
)
def test_one_client_reaches_every_provider(laptop: Laptop, model: str, provider: str) -> None:
    """The same request of the OpenAI SDK, whoever serves it; billed to the provider that did."""
    client = laptop.client(
        "labs", default_headers={"api-key": "local-labs", "x-budget-scope-feature": f"of-{provider}"}
    )
    messages: Any = [{"role": "user", "content": PROMPT}]
    completion = client.chat.completions.create(model=model, messages=messages, max_tokens=50)
    assert completion.choices[0].message.content
    (row,) = eventually(lambda: summary(laptop, "globex", group_by="provider,model", feature=f"of-{provider}"))
    assert completion.usage is not None
    assert (row["provider"], row["model"], row["requests"]) == (provider, model, 1)
    assert row["tokens"]["output"] == completion.usage.completion_tokens


@pytest.mark.parametrize(("fields", "model"), [({}, "llama-3-8b"), ({"tools": True}, "gpt-4o-mini")])
def test_auto_is_the_cheapest_model_that_can_do_the_call(laptop: Laptop, fields: dict[str, bool], model: str) -> None:
    """`model: auto`: plain chat goes to llama, a call with tools to mini. Both names are told."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    more = {"tools": [tool]} if fields else {}
    feature = f"auto-{model}"
    answer = ask(laptop, "labs", "auto", 100, x_budget_scope_feature=feature, **more)
    assert (answer.status_code, answer.headers["x-requested-model"]) == (200, "auto")
    assert answer.headers["x-served-model"] == model
    (row,) = eventually(lambda: summary(laptop, "globex", group_by="model", feature=feature))
    assert (row["model"], row["requests"]) == (model, 1)
