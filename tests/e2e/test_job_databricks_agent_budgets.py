"""A job: agents on Databricks serving endpoints, each with a budget of its own and a hard cap above its limit.

An agent is warned at eight tenths of its limit, works on with a cheaper model from the limit on, and is stopped at
1.2 times the limit. Operators hear of each threshold once, by webhook. Ten tokens in and 99 out cost

    claude   10 x  1.00 + 99 x 10.00 = 1,000 micro-USD
    llama    10 x  0.10 + 99 x  1.00 =   100 micro-USD
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from local.options import BUILT_IN
from tests.support.jobs import (
    PROMPT_TOKENS,
    WEBHOOK_KEY,
    Notices,
    ask,
    keep_clear_of_midnight,
    receiving_notices,
    spend_of,
    usd,
)
from tests.support.laptop import Laptop, eventually, start_laptop

CLAUDE, LLAMA = "databricks-claude-sonnet-4", "databricks-meta-llama-3-1-8b-instruct"
LIMIT = 10_000  # micro-USD
ONE_CALL, ONE_LLAMA_CALL = PROMPT_TOKENS * 1 + 99 * 10, PROMPT_TOKENS // 10 + 99 * 1
FILES = {
    "tenants.yaml": "tenants: [{id: default, client_asserted_scopes: [agent]}]",
    "models.yaml": f"""
endpoints:
  - {{id: workspace, provider: databricks, key: DATABRICKS_API_KEY, url: http://simulated-model/databricks}}
models:
  - {{id: {CLAUDE}, provider: databricks, capabilities: [chat, tools], context_tokens: 200000,
     typical_output_tokens: 99, fallbacks: [{LLAMA}]}}
  - {{id: {LLAMA}, provider: databricks, capabilities: [chat, tools], context_tokens: 128000,
     typical_output_tokens: 99}}
""",
    "prices.yaml": f"""
prices:
  - {{model: {CLAUDE}, effective_from: 2026-01-01, usd_per_million: {{input: 1.00, output: 10.00}}}}
  - {{model: {LLAMA}, effective_from: 2026-01-01, usd_per_million: {{input: 0.10, output: 1.00}}}}
""",
    "budgets.yaml": f"""
budgets:
  - {{scope: "agent:*", period: day, limit: 0.01, warn: 0.8, degrade: 1.0, stop: 1.2,
     downgrade: [{{from: {CLAUDE}, to: {LLAMA}}}]}}
""",
    "alerts.yaml": "routes: [{kinds: [threshold], channel: webhook, target: ALERT_AGENTS, secret: ALERT_AGENTS_KEY}]",
    "teams/agents.yaml": """
team: agents
identities: {subscriptions: [agents-prod]}
budgets: [{period: month, limit: 100.00}]
""",
    "teams/crowd.yaml": """
team: crowd
identities: {subscriptions: [crowd-prod]}
budgets: [{period: month, limit: 0.0031, warn: 1.0, degrade: 1.0}]
""",
}


@dataclass
class Step:
    """One call of an agent, and where its budget stood when the call was billed."""

    answer: httpx.Response
    budget: dict[str, Any]

    @property
    def seen(self) -> tuple[str, str]:
        """What was spent, and the state that this leads to."""
        return self.budget["spent"], self.budget["state"]


@pytest.fixture(scope="module")
def notices() -> Iterator[Notices]:
    """Where the operators' webhook leads."""
    with receiving_notices() as notices:
        yield notices


@pytest.fixture(scope="module")
def laptop(notices: Notices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A running copy."""
    settings = {"ALERT_AGENTS": notices.address, "ALERT_AGENTS_KEY": WEBHOOK_KEY, "DATABRICKS_API_KEY": "dapi-1"}
    keep_clear_of_midnight()
    with start_laptop(tmp_path_factory.mktemp("agents"), FILES, gateway=BUILT_IN, **settings) as laptop:
        yield laptop


def step(laptop: Laptop, agent: str, output_tokens: int = 99, model: str = CLAUDE, team: str = "agents") -> Step:
    """One call of an agent, billed."""
    answer = ask(laptop, team, model, output_tokens, max_tokens=output_tokens, x_budget_scope_agent=agent)
    return Step(answer, eventually(lambda: settled(laptop, agent)))


def settled(laptop: Laptop, agent: str) -> dict[str, Any] | None:
    """The agent's counter once nothing is held any more."""
    (budget,) = spend_of(laptop, "agent", agent)
    return budget if float(budget["reserved"]) == 0 else None


@pytest.fixture(scope="module")
def day(laptop: Laptop) -> list[Step]:
    """The planner's day: ten calls up to its limit, a long one of the cheaper model, and two more."""
    return [step(laptop, "planner", 1999 if number == 11 else 99) for number in range(1, 14)]


def test_an_agent_below_eight_tenths_is_left_alone(day: list[Step]) -> None:
    """Seven calls of 0.001 on a limit of 0.01: served as asked for, active."""
    assert [each.answer.json()["model"] for each in day[:7]] == [CLAUDE] * 7
    assert [each.seen for each in day[:7]] == [(usd(number * ONE_CALL), "active") for number in range(1, 8)]


def test_an_agent_is_warned_from_eight_tenths_on(day: list[Step]) -> None:
    """The eighth call brings it to 0.008 = 0.8 x 0.01. The next two are served as asked for and say so."""
    assert day[7].seen == (usd(8 * ONE_CALL), "warned")
    assert [each.answer.headers["x-budget-state"] for each in day[8:10]] == ["warned", "warned"]
    assert [each.answer.json()["model"] for each in day[7:10]] == [CLAUDE] * 3


def test_at_its_limit_an_agent_works_on_with_a_cheaper_model(day: list[Step]) -> None:
    """0.010 is the limit: degraded, not stopped. The next call is llama's, at its price, and says both names."""
    assert day[9].seen == (usd(LIMIT), "degraded")
    answer = day[10].answer
    assert (answer.status_code, answer.json()["model"]) == (200, LLAMA)
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == (CLAUDE, LLAMA)
    assert answer.headers["x-budget-state"] == "degraded"
    long_call = PROMPT_TOKENS // 10 + 1999 * 1  # micro-USD at llama's 0.10 and 1.00
    assert day[10].budget["spent"] == usd(LIMIT + long_call)


def test_at_twelve_tenths_an_agent_is_stopped(day: list[Step]) -> None:
    """0.010 + 0.002 = 1.2 x 0.01: from here on 402, with the budget and what remains; SDKs need not retry."""
    assert day[10].seen == (usd(LIMIT * 12 // 10), "stopped")
    for refused in day[11:]:
        body = refused.answer.json()
        assert (refused.answer.status_code, body["error"]["code"], body["state"]) == (
            402,
            "budget_exhausted",
            "stopped",
        )
        budget = {name: body["budget"][name] for name in ("scope", "limit", "spent", "remaining")}
        assert budget == {"scope": "agent:planner", "limit": "0.01", "spent": "0.012", "remaining": "0.00"}
        assert refused.answer.headers["x-should-retry"] == "false"
        assert refused.seen == (usd(12_000), "stopped")


def test_a_stopped_agent_reaches_no_model(laptop: Laptop, day: list[Step]) -> None:
    """The refusal is the gateway's own: the endpoint never hears of the call, and nothing is billed."""
    call = uuid.uuid4().hex
    assert ask(laptop, "agents", LLAMA, 99, call=call, x_budget_scope_agent="planner").status_code == 402
    assert laptop.served(call)["attempts"] == 0
    (row,) = laptop.summary(group_by="agent", agent="planner")
    assert (row["requests"], row["cost"]) == (11, usd(12_000))


def test_refusals_are_seen_as_they_happen(laptop: Laptop, day: list[Step]) -> None:
    """`GET /decisions` has the planner's refused calls, and what each was expected to cost."""
    refused = eventually(lambda: refusals(laptop, "planner"))
    assert {(each["budget"], each["requested_model"], each["state"]) for each in refused} == {
        ("agent:planner", CLAUDE, "stopped")
    }
    assert {float(each["estimate"]) > ONE_CALL / 10**6 for each in refused} == {True}  # a little high: bytes of JSON


def refusals(laptop: Laptop, agent: str) -> list[dict[str, Any]]:
    """The refused calls of an agent for claude, once they are two."""
    decisions = httpx.get(f"{laptop.functions_url}/decisions", timeout=20).raise_for_status().json()["decisions"]
    refused = [each for each in decisions if each["decision"] == "refuse" and each["scopes"].get("agent") == agent]
    found = [each for each in refused if each["requested_model"] == CLAUDE]
    return found if len(found) >= 2 else []


def test_the_downgrade_is_counted_as_saved(laptop: Laptop, day: list[Step]) -> None:
    """1,999 tokens out would have cost 10 x 1.00 + 1,999 x 10.00 = 20,000 on claude and cost 2,000 on llama."""
    (row,) = laptop.summary(group_by="agent,decision", agent="planner", decision="downgrade")
    assert (row["requests"], row["saved"]) == (1, usd(20_000 - 2_000))


def test_every_agent_has_a_budget_of_its_own(laptop: Laptop, day: list[Step]) -> None:
    """The planner is stopped; the researcher, of the same team, begins at nothing."""
    first = step(laptop, "researcher")
    assert (first.answer.status_code, first.seen) == (200, (usd(ONE_CALL), "active"))
    assert first.answer.headers["x-budget-scope"] == "agent:researcher"


def test_an_agent_that_renames_itself_does_not_get_past_its_team(laptop: Laptop) -> None:
    """A name is the client's own word. Three names, three calls, 0.003 of the team's 0.0031: a fourth name is 402."""
    answers = [step(laptop, f"alias-{number}", team="crowd").answer for number in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 402]
    assert answers[3].json()["budget"]["scope"] == "team:crowd"


def test_an_admin_gives_a_stopped_agent_its_budget_back(laptop: Laptop) -> None:
    """A reset moves the counter and the checks with it, who and why are on record; the bill stays what it was."""
    assert step(laptop, "writer", 1199).seen == (usd(PROMPT_TOKENS * 1 + 1199 * 10), "stopped")  # 10 + 11,990
    assert ask(laptop, "agents", CLAUDE, 99, x_budget_scope_agent="writer").status_code == 402
    wanted = {"tenant": "default", "scope": "agent:writer", "why": "the run was ours"}
    reset = httpx.post(f"{laptop.functions_url}/budget/reset", json=wanted, timeout=20)
    assert reset.status_code == 202
    eventually(lambda: spend_of(laptop, "agent", "writer")[0]["spent"] == "0.00")
    assert step(laptop, "writer").seen == (usd(ONE_CALL), "active")
    (row,) = laptop.summary(group_by="agent", agent="writer")
    assert (row["requests"], row["cost"]) == (2, usd(12_000 + ONE_CALL))


def test_the_models_list_says_what_each_costs_and_can_do(laptop: Laptop) -> None:
    """`GET /models` of the API: prices in force, capabilities, and who stands in for whom."""
    models = httpx.get(f"{laptop.functions_url}/models", timeout=20).raise_for_status().json()["models"]
    by_id = {model["id"]: model for model in models}
    assert set(by_id) == {CLAUDE, LLAMA}
    assert by_id[CLAUDE]["provider"] == "databricks"
    assert by_id[CLAUDE]["fallbacks"] == [LLAMA]
    assert by_id[LLAMA]["fallback_for"] == [CLAUDE]
    assert sorted(by_id[CLAUDE]["capabilities"]) == ["chat", "tools"]
    prices = {name: model["prices"]["usd_per_million"] for name, model in by_id.items()}
    assert prices == {CLAUDE: {"input": "1.00", "output": "10.00"}, LLAMA: {"input": "0.10", "output": "1.00"}}


def test_an_openai_client_lists_the_same_models(laptop: Laptop) -> None:
    """`GET /v1/models` of the gateway, read by the SDK: the same, and `auto` for whoever lets it choose."""
    assert {(model.id, model.owned_by) for model in laptop.client("agents").models.list()} == {
        (CLAUDE, "databricks"),
        (LLAMA, "databricks"),
        ("auto", "tollkeeper"),
    }


def test_operators_hear_of_each_threshold_once(laptop: Laptop, notices: Notices, day: list[Step]) -> None:
    """Warning, limit and stop: one signed notice each, with what was spent then; a later agent's brings no repeat."""
    last = step(laptop, "straggler", 799)
    assert last.seen == (usd(PROMPT_TOKENS * 1 + 799 * 10), "warned")  # 10 + 7,990 = 8,000 = 0.8 x 10,000
    eventually(lambda: notices.thresholds("agent:straggler"), 60)
    assert sorted(notices.thresholds("agent:planner")) == [
        ("degrade", usd(10_000)),
        ("stop", usd(12_000)),
        ("warn", usd(8_000)),
    ]
    assert notices.thresholds("agent:straggler") == [("warn", usd(8_000))]
    assert notices.thresholds("agent:researcher") == []
    assert notices.forged == []
