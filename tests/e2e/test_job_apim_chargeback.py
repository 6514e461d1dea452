"""A job: chargeback for what goes through API Management, whatever the size of a payload and however it is sent.

Its policies run as they are deployed. Log messages of API Management end at 8,192 bytes; here the bodies of calls and
answers are ten times that. Prices in USD per million tokens, which is micro-USD per token:

    gpt-4o        input 2.50, cached 1.25, output 10.00; by batch half of that
    gpt-4o-mini   input 0.15, output 0.60
"""

from __future__ import annotations

import base64
import csv
import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.support.jobs import ask, keep_clear_of_midnight, prompt_of, usd
from tests.support.laptop import CHAT, Laptop, eventually, start_laptop

LOGGED_BYTES = 8192  # what API Management's log messages hold of a body
LAWYER = str(uuid.UUID(int=7, version=4))
NIGHT = datetime.now(UTC).isoformat()
BATCH = 40
FILES = {
    "tenants.yaml": "tenants: [{id: default}]",
    "models.yaml": """
models:
  - {id: gpt-4o, deployments: [gpt-4o-weu, gpt-4o-batch], capabilities: [chat, tools]}
  - {id: gpt-4o-mini, deployments: [gpt-4o-mini-weu], capabilities: [chat, tools]}
""",
    "prices.yaml": """
prices:
  - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}}
  - {model: gpt-4o, deployment: gpt-4o-batch, effective_from: 2026-01-01, usd_per_million: {input: 1.25, output: 5.00}}
  - {model: gpt-4o-mini, effective_from: 2026-01-01, usd_per_million: {input: 0.15, cached_input: 0.075, output: 0.60}}
""",
    "teams/retail.yaml": """
team: retail
cost_centre: CC-100
identities: {subscriptions: [retail-prod]}
budgets: [{period: month, limit: 1000.00}]
""",
    "teams/legal.yaml": f"""
team: legal
cost_centre: CC-200
identities: {{subscriptions: [legal-prod], users: [{LAWYER}]}}
budgets: [{{period: month, limit: 1000.00}}]
""",
    "teams/trial.yaml": """
team: trial
identities: {subscriptions: [trial-prod]}
budgets: [{period: month, limit: 0.01}]
""",
}

# What each team's calls below come to, in micro-USD: tokens in x price + tokens out x price.
WHOLE = 20_000 * 25 // 10 + 2_500 * 10
REPEATED = 32 * 25 // 10 + 19_968 * 125 // 100 + 100 * 10  # 19,968 = 156 x 128 tokens come from the model's cache
STREAM = 12_000 * 25 // 10 + 1_500 * 10
SMALL = 8_000 * 15 // 100 + 1_000 * 6 // 10
BATCHED = BATCH * (3_000 * 125 // 100 + 500 * 5)
RETAIL, LEGAL = WHOLE + REPEATED + STREAM, SMALL + BATCHED
assert (WHOLE, REPEATED, STREAM, SMALL, BATCHED) == (75_000, 26_040, 45_000, 1_800, 250_000)


class Month:
    """What the teams sent this month, and the answers."""

    def __init__(self, laptop: Laptop) -> None:
        large = prompt_of("the contract", 20_000)
        self.whole = ask(laptop, "retail", "gpt-4o", 2_500, prompt=large, x_sim_answer_bytes="100000")
        self.repeated = ask(laptop, "retail", "gpt-4o", 100, prompt=large)
        self.stream = ask(laptop, "retail", "gpt-4o", 1_500, prompt=prompt_of("the minutes", 12_000), stream=True)
        self.small = ask(laptop, "legal", "gpt-4o-mini", 1_000, prompt=prompt_of("the letters", 8_000))
        self.batch = send_batch(laptop, [*map(batch_result, range(BATCH)), {"id": "no event"}])
        self.sent_again = send_batch(laptop, [*map(batch_result, range(BATCH))])


def batch_result(number: int) -> dict[str, Any]:
    """One line of the output file of a batch job, as an event."""
    usage = {"prompt_tokens": 3_000, "completion_tokens": 500, "total_tokens": 3_500}
    call = {"provider": "azure-openai", "model": "gpt-4o", "deployment": "gpt-4o-batch", "operation": "chat"}
    data = {"tenant": "default", "scopes": {"team": "legal"}, **call, "status": 200, "usage": usage}
    event = {"specversion": "1.0", "type": "tollkeeper.usage.v1", "source": "batch/night-shift", "data": data}
    return event | {"id": f"line-{number}", "time": NIGHT}


def send_batch(laptop: Laptop, events: list[dict[str, Any]]) -> httpx.Response:
    """Many events in one request."""
    headers = {"content-type": "application/cloudevents-batch+json"}
    return httpx.post(f"{laptop.functions_url}/usage", content=json.dumps(events), headers=headers, timeout=30)


@pytest.fixture(scope="module")
def laptop(mono: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A running copy whose gateway executes the policies."""
    keep_clear_of_midnight()
    with start_laptop(tmp_path_factory.mktemp("chargeback"), FILES, APIM_LLM_LOG_DELAY_SECONDS="0.5") as laptop:
        yield laptop


@pytest.fixture(scope="module")
def month(laptop: Laptop) -> Month:
    """The calls, all billed and measured."""
    month = Month(laptop)
    wanted = {("legal", "1.0000"): 1 + BATCH, ("retail", "1.0000"): 3}
    eventually(lambda: measured(laptop) == wanted)
    return month


def measured(laptop: Laptop) -> dict[tuple[str, str], int]:
    """Requests of each team with the measured share of their cost."""
    rows = laptop.summary(group_by="team")
    return {(row["team"], row["measured_share"]): row["requests"] for row in rows}


def report(laptop: Laptop, form: str, **query: str) -> httpx.Response:
    """The statement of the running month."""
    period = f"{datetime.now(UTC):%Y-%m}"
    url = f"{laptop.functions_url}/chargeback/report"
    return httpx.get(url, params={"tenant": "default", "period": period, "format": form, **query}, timeout=30)


def served(laptop: Laptop, **query: str) -> list[dict[str, Any]]:
    """The summary's rows of calls that were served; refused ones are rows too, once they are summed up."""
    return [row for row in laptop.summary(**query) if row["requests"]]


def cost_of(laptop: Laptop, **query: str) -> dict[str, str]:
    """The summary's cost by its group's one dimension."""
    return {row[query["group_by"]]: row["cost"] for row in served(laptop, **query)}


def test_a_large_payload_is_billed_to_the_token(laptop: Laptop, month: Month) -> None:
    """80 KB in and 100 KB out: 20,000 x 2.50 + 2,500 x 10.00 = 75,000 micro-USD."""
    assert len(month.whole.request.content) > 9 * LOGGED_BYTES
    assert len(month.whole.content) > 12 * LOGGED_BYTES
    row = laptop.rows(month.whole)["usage"]
    assert row.tokens == {"input": 20_000, "output": 2_500}
    assert row.charge_nano_usd == WHOLE * 1000


def test_cached_tokens_have_their_own_price(laptop: Laptop, month: Month) -> None:
    """The same 80 KB again: 32 new tokens at 2.50, 19,968 from the model's cache at 1.25; none is counted twice."""
    assert laptop.rows(month.repeated)["usage"].tokens == {"input": 32, "cached_input": 19_968, "output": 100}
    assert laptop.rows(month.repeated)["usage"].charge_nano_usd == REPEATED * 1000


def test_a_stream_is_billed_from_the_log_of_its_tokens(laptop: Laptop, month: Month) -> None:
    """No policy may read a stream. What it cost is an estimate first and replaced once the LLM log names its tokens."""
    assert month.stream.text.rstrip().endswith("data: [DONE]")
    rows = laptop.rows(month.stream)
    assert set(rows) == {"accrual", "reversal", "true_up"}
    assert not rows["accrual"].measured
    assert rows["true_up"].tokens == {"input": 12_000, "output": 1_500}
    assert sum(row.charge_nano_usd for row in rows.values()) == STREAM * 1000


def test_a_batch_of_usage_is_billed_by_its_own_price(laptop: Laptop, month: Month) -> None:
    """Forty results of a nightly batch job in one request, at half price: 40 x (3,000 x 1.25 + 500 x 5.00)."""
    costs = cost_of(laptop, group_by="deployment", team="legal")
    assert costs == {"gpt-4o-batch": usd(BATCHED), "gpt-4o-mini-weu": usd(SMALL)}


def test_a_bad_event_of_a_batch_costs_only_itself(month: Month) -> None:
    """The forty-first line is no event: it is named, the others are taken."""
    assert month.batch.status_code == 202
    body = month.batch.json()
    assert (body["accepted"], [each["index"] for each in body["rejected"]]) == (BATCH, [BATCH])


def test_a_batch_sent_twice_is_billed_once(laptop: Laptop, month: Month) -> None:
    """The second sending was taken like the first, and changed nothing."""
    assert month.sent_again.json() == {"accepted": BATCH, "rejected": []}
    (row,) = laptop.summary(group_by="deployment", deployment="gpt-4o-batch")
    assert (row["requests"], row["tokens"]) == (BATCH, {"input": BATCH * 3_000, "output": BATCH * 500})


def test_a_large_payload_does_not_get_around_a_budget(laptop: Laptop, month: Month) -> None:
    """20,000 tokens of input alone are 0.05, five times what the team has: refused before any model sees them."""
    call = uuid.uuid4().hex
    refused = ask(laptop, "trial", "gpt-4o", 10, prompt=prompt_of("a novel", 20_000), call=call)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exhausted")
    assert laptop.served(call)["attempts"] == 0
    too_large = laptop.post("trial", CHAT, {"model": "gpt-4o", "messages": [], "padding": "x" * 3 * 2**20})
    assert too_large.status_code == 413


def test_the_summary_adds_up_by_team_model_and_day(laptop: Laptop, month: Month) -> None:
    """One sum, however it is cut."""
    assert cost_of(laptop, group_by="team") == {"retail": usd(RETAIL), "legal": usd(LEGAL)}
    assert cost_of(laptop, group_by="model") == {"gpt-4o": usd(RETAIL + BATCHED), "gpt-4o-mini": usd(SMALL)}
    assert cost_of(laptop, group_by="tenant") == {"default": usd(RETAIL + LEGAL)}
    days = served(laptop, group_by="day,team,model")
    assert {row["day"] for row in days} == {NIGHT[:10]}
    assert {(row["team"], row["model"]) for row in days} == {
        ("retail", "gpt-4o"),
        ("legal", "gpt-4o"),
        ("legal", "gpt-4o-mini"),
    }


def test_the_report_charges_each_team_what_its_calls_came_to(laptop: Laptop, month: Month) -> None:
    """A draft while the month runs; by cost centre, to the micro-dollar the sum of the calls."""
    statement = report(laptop, "json").raise_for_status().json()
    assert (statement["status"], statement["amount_due"]) == ("draft", usd(RETAIL + LEGAL))
    served_teams = [team for team in statement["team_totals"] if team["requests"]]
    teams = {team["team"]: (team["cost_centre"], team["requests"], team["cost"]) for team in served_teams}
    assert teams == {"retail": ("CC-100", 3, usd(RETAIL)), "legal": ("CC-200", 1 + BATCH, usd(LEGAL))}
    lines = {(line["team"], line["deployment"]): line["cost"] for line in statement["lines"]}
    assert lines == {
        ("retail", "gpt-4o-weu"): usd(RETAIL),
        ("legal", "gpt-4o-batch"): usd(BATCHED),
        ("legal", "gpt-4o-mini-weu"): usd(SMALL),
    }


def test_the_journal_for_finance_adds_up_to_the_same(laptop: Laptop, month: Month) -> None:
    """CSV: a row per team, deployment and token kind, whose totals are the amount due."""
    rows = list(csv.DictReader(io.StringIO(report(laptop, "csv").raise_for_status().content.decode("utf-8-sig"))))
    micro_usd: dict[str, int] = {}
    for row in rows:
        micro_usd[row["team"]] = micro_usd.get(row["team"], 0) + round(float(row["total"]) * 10**6)
    assert micro_usd == {"retail": RETAIL, "legal": LEGAL}
    assert {row["cost_centre"] for row in rows if row["team"] == "retail"} == {"CC-100"}


def test_a_team_sees_its_own_bill_and_no_other(laptop: Laptop, month: Month) -> None:
    """A lawyer asks: legal's calls alone, and 403 for another team's statement."""
    claims = [{"typ": "roles", "val": "Chargeback.Read"}, {"typ": "oid", "val": LAWYER}]
    principal = base64.b64encode(json.dumps({"auth_typ": "aad", "claims": claims}).encode()).decode()
    as_lawyer = {"x-ms-client-principal": principal}
    url = f"{laptop.functions_url}/chargeback/report"
    query = {"tenant": "default", "period": NIGHT[:7]}
    statement = httpx.get(url, params=query, headers=as_lawyer, timeout=30).raise_for_status().json()
    assert statement["amount_due"] == usd(LEGAL)
    assert [team["team"] for team in statement["team_totals"]] == ["legal"]
    other = httpx.get(url, params={**query, "team": "retail"}, headers=as_lawyer, timeout=30)
    assert (other.status_code, other.json()["error"]["code"]) == (403, "scope_not_allowed")


def test_what_is_billed_is_what_the_model_served(laptop: Laptop, month: Month) -> None:
    """The model's own count of every call that went through the gateway, against the ledger's."""
    truth = httpx.get(f"{laptop.model_url}/sim/usage", timeout=20).json()
    truly_served = {
        (model, used["prompt_tokens"], used["completion_tokens"]) for model, used in truth.items() if used["calls"]
    }
    billed = set()
    for row in served(laptop, group_by="model,deployment"):
        tokens = row["tokens"]
        if row["deployment"] != "gpt-4o-batch":
            billed.add((row["model"], tokens["input"] + tokens.get("cached_input", 0), tokens["output"]))
    assert billed == truly_served
