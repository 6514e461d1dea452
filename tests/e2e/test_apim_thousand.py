"""A thousand mixed calls through the policies: each exactly once in the ledger, the sums what the model itself counted.

Whole answers and streams on every API, calls that succeed after a retry, calls whose backend fails for good, and
clients that leave in the middle of a stream. The mix is drawn from a fixed seed, so a failure can be had again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import pytest

from shared.ledger.row import LedgerRow
from shared.money import decimal_from_nano
from tests.support.laptop import CHAT, EMBEDDINGS, RESPONSES, Laptop, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import configuration, team_file

SEED = 20261121
CALLS, AT_ONCE = 1000, 24
STREAMED, ABORTED, FAILED, RETRIED = 300, 50, 50, 100
TEAMS = ("red", "green", "blue")
FILES = configuration(**{team: team_file(team, "10000.00") for team in TEAMS})

# The calls take as long as the machine needs; none of them is to be refused because it is busy.
PATIENCE = {
    "APIM_NAMED_VALUES": json.dumps({"tk-check-timeout-seconds": "60", "tk-rate-calls": "100000"}),
    "APIM_LLM_LOG_DELAY_SECONDS": "1",
    "REDIS_TIMEOUT_SECONDS": "20",
}
pytestmark = pytest.mark.timeout(900)

Fate = Literal["plain", "aborted", "failed", "retried"]


@dataclass
class Call:
    """One call as it is to be made, and what came back."""

    name: str
    team: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    streamed: bool
    fate: Fate
    status: int = 0
    request_id: str = ""

    @property
    def expected_rows(self) -> set[str]:
        """The kinds of ledger rows that must be there, each once."""
        if self.fate == "aborted":
            return {"accrual"}
        return {"accrual", "reversal", "true_up"} if self.streamed and self.fate != "failed" else {"usage"}


def draw_calls() -> list[Call]:
    """The mix, in an order of its own."""
    random_ = random.Random(SEED)
    streamed = [True] * STREAMED + [False] * (CALLS - STREAMED)
    others: list[Fate] = ["failed"] * FAILED + ["retried"] * RETRIED
    others += ["plain"] * (CALLS - ABORTED - len(others))
    random_.shuffle(others)
    fates: list[Fate] = ["aborted"] * ABORTED + others  # only a stream can be left in the middle
    calls = [draw_call(random_, number, *drawn) for number, drawn in enumerate(zip(streamed, fates, strict=True))]
    random_.shuffle(calls)
    return calls


def draw_call(random_: random.Random, number: int, streamed: bool, fate: Fate) -> Call:
    """One call; all else is drawn."""
    name, team = f"call-{number:04}", random_.choice(TEAMS)
    model = random_.choice(("gpt-4o", "gpt-4o-mini"))
    prompt = f"{name}: {'word ' * random_.randint(1, 200)}"
    output_tokens = 60 if fate == "aborted" else random_.randint(1, 120)
    headers = {"api-key": f"local-{team}", "x-sim-call-id": name, "x-sim-output-tokens": str(output_tokens)}
    if random_.random() < 0.3:
        headers["x-budget-scope-session"] = f"s-{random_.randint(1, 5)}"
    if fate == "aborted":
        headers["x-sim-chunk-ms"] = "25"
    elif fate == "failed":
        headers["x-sim-status"] = "500"
    elif fate == "retried":
        headers |= {"x-sim-fail-first": "1", "x-sim-status": random_.choice(("429", "503")), "x-sim-retry-after": "0"}
    api = random_.choices(("chat", "deployment", "responses", "embeddings"), (45, 25, 15, 15))[0]
    if api == "embeddings" and not streamed:
        body: dict[str, Any] = {"model": "text-embedding-3-small", "input": [prompt, name]}
        return Call(name, team, EMBEDDINGS, body, headers, streamed=False, fate=fate)
    cap = random_.choice((None, output_tokens // 2 + 1, 400)) if fate != "aborted" else None
    if api == "responses":
        body, path, cap_field = {"model": model, "input": prompt}, RESPONSES, "max_output_tokens"
    else:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
        path, cap_field = CHAT, random_.choice(("max_tokens", "max_completion_tokens"))
    if api == "deployment":
        path = f"/openai/deployments/{model}-weu/chat/completions?api-version=2024-10-21"
    body |= {cap_field: cap} if cap else {}
    body |= {"stream": True} if streamed else {}
    return Call(name, team, path, body, headers, streamed, fate)


async def make(calls: list[Call], url: str) -> None:
    """Make all calls, so many at once."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def one(call: Call) -> None:
            async with turns, client.stream("POST", call.path, json=call.body, headers=call.headers) as answer:
                call.status, call.request_id = answer.status_code, answer.headers.get("x-request-id", "")
                if call.fate == "aborted":
                    await anext(answer.aiter_bytes())
                    return  # leaving closes the connection, with most of the answer still to come
                await answer.aread()

        await asyncio.gather(*(one(call) for call in calls))


@dataclass
class Outcome:
    """The calls and, when all is billed, every book there is."""

    laptop: Laptop
    calls: list[Call]
    rows: dict[str, list[LedgerRow]]
    by_call: dict[str, dict[str, Any]]
    seconds: float


@pytest.fixture(scope="module")
def outcome(mono, tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("thousand"), FILES, **PATIENCE) as laptop:
        calls = draw_calls()
        started = time.monotonic()
        asyncio.run(make(calls, laptop.url))
        seconds = time.monotonic() - started

        def all_billed():
            rows = laptop.rows_by_request()
            kinds = ({row.kind for row in rows.get(call.request_id, [])} for call in calls)
            return all(found >= call.expected_rows for call, found in zip(calls, kinds, strict=True))

        # What does not come in time is for the tests below to name.
        with suppress(AssertionError):
            eventually(all_billed, 90)
            for team in TEAMS:
                laptop.settled_spend(team)
        rows = laptop.rows_by_request()
        yield Outcome(laptop, calls, rows, laptop.served_by_call(), seconds)


def test_the_mix_is_what_it_claims_to_be():
    """A thousand calls: 30 % streamed, 5 % aborted, 5 % failing at the backend, 10 % retried; the same every time."""
    calls = draw_calls()
    assert Counter(call.fate for call in calls) == {
        "plain": CALLS - ABORTED - FAILED - RETRIED,
        "aborted": ABORTED,
        "failed": FAILED,
        "retried": RETRIED,
    }
    assert sum(call.streamed for call in calls) == STREAMED
    assert calls == draw_calls()


def test_every_client_gets_what_its_call_came_to(outcome):
    """200 but where the backend failed for good; a request id of its own on every answer."""
    print(f"{CALLS} calls in {outcome.seconds:.1f} s")
    assert Counter((call.fate == "failed", call.status) for call in outcome.calls) == {
        (True, 500): FAILED,
        (False, 200): CALLS - FAILED,
    }
    assert len({call.request_id for call in outcome.calls}) == CALLS


def test_the_gateway_retried_for_its_callers(outcome):
    """A call that failed once reached the model twice, was served once, and says so in its row."""
    for call in outcome.calls:
        if call.fate == "retried":
            truth = outcome.by_call[call.name]
            assert (truth["attempts"], truth["errors"], truth["calls"]) == (2, 1, 1)
            assert {row.attempt for row in outcome.rows[call.request_id]} == {2}


def test_each_call_is_in_the_ledger_exactly_once(outcome):
    """The rows of each call are the expected kinds, each once, for its own team; and no row belongs to no call."""
    wrong = {
        call.name: sorted(row.kind for row in outcome.rows.get(call.request_id, []))
        for call in outcome.calls
        if sorted(row.kind for row in outcome.rows.get(call.request_id, [])) != sorted(call.expected_rows)
    }
    assert wrong == {}
    assert set(outcome.rows) == {call.request_id for call in outcome.calls}
    for call in outcome.calls:
        assert {row.scopes["team"] for row in outcome.rows[call.request_id]} == {call.team}
        session = call.headers.get("x-budget-scope-session")
        assert {row.scopes.get("session") for row in outcome.rows[call.request_id]} == {session}


def test_each_row_has_the_tokens_that_the_model_counted(outcome):
    """Call by call: whole answers from their own usage, streams from the LLM log."""
    wrong = {}
    for call in outcome.calls:
        if call.fate == "aborted":
            continue
        (row,) = (row for row in outcome.rows[call.request_id] if row.kind in ("usage", "true_up"))
        truth = outcome.by_call[call.name]
        if prompt_and_output(row) != (truth["prompt_tokens"], truth["completion_tokens"]):
            wrong[call.name] = (prompt_and_output(row), truth)
        assert row.model == truth["model"]
        assert row.measured or call.fate == "failed"
    assert wrong == {}


def test_the_sums_are_the_models_own(outcome):
    """By model: what the ledger bills as measured is what the model says it served, to the token."""
    billed: Counter[tuple[str, str]] = Counter()
    for row in (row for rows in outcome.rows.values() for row in rows if row.kind in ("usage", "true_up")):
        prompt, output = prompt_and_output(row)
        billed.update({(row.model, "prompt"): prompt, (row.model, "output"): output})
    truth: Counter[tuple[str, str]] = Counter()
    usage = httpx.get(f"{outcome.laptop.model_url}/sim/usage").json()
    for model, used in usage.items():
        truth.update({(model, "prompt"): used["prompt_tokens"], (model, "output"): used["completion_tokens"]})
    assert billed == truth
    assert sum(used["calls"] for used in usage.values()) == CALLS - ABORTED - FAILED


def test_failed_calls_cost_nothing(outcome):
    """They are on record, with their status and no charge."""
    for call in outcome.calls:
        if call.fate == "failed":
            (row,) = outcome.rows[call.request_id]
            assert (row.status, row.charge_nano_usd, row.tokens) == (500, 0, {})
            assert outcome.by_call[call.name]["calls"] == 0


def test_streams_that_were_left_are_billed_their_estimate_and_marked(outcome):
    """The model really broke off in the middle; the row stays an estimate, and nobody calls it measured."""
    for call in outcome.calls:
        if call.fate == "aborted":
            truth = outcome.by_call[call.name]
            assert (truth["aborted"], truth["calls"]) == (1, 0)
            assert truth["aborted_completion_tokens"] <= 60  # all but the end may be out before the model notices
            (row,) = outcome.rows[call.request_id]
            assert (row.kind, row.measured) == ("accrual", False)
            assert row.charge_nano_usd > 0


def test_nothing_is_held_at_the_end_and_counters_equal_the_ledger(outcome):
    """Every reservation is gone, and what each team has spent is the sum of its rows to the nano-dollar."""
    rows = [row for rows in outcome.rows.values() for row in rows]
    for team in TEAMS:
        spend = outcome.laptop.spend(team)
        assert float(spend["reserved"]) == 0
        ledger = sum(row.charge_nano_usd for row in rows if row.scopes["team"] == team)
        assert spend["spent"] == decimal_from_nano(ledger)


def test_the_summary_counts_each_call_once_and_says_what_is_estimated(outcome):
    """Requests add up although a stream has three rows; only the broken-off streams are estimated."""
    (row,) = outcome.laptop.summary(group_by="tenant")
    rows = [row for rows in outcome.rows.values() for row in rows]
    assert row["requests"] == CALLS
    assert row["cost"] == decimal_from_nano(sum(each.charge_nano_usd for each in rows))
    left = {call.request_id for call in outcome.calls if call.fate == "aborted"}
    estimated = sum(each.charge_nano_usd for name in left for each in outcome.rows[name])
    assert row["estimated_cost"] == decimal_from_nano(estimated)
    shares = [float(row[f"{kind}_share"]) for kind in ("measured", "estimated", "missing")]
    assert shares[1] > 0
    assert sum(shares) == pytest.approx(1, abs=1e-9)


def test_the_gateway_ran_without_a_defect(outcome):
    """No policy touched the body of a stream (API Management would hold the stream back), and no call broke."""
    log = outcome.laptop.stack.processes["gateway"].log_path.read_text()
    assert "touched" not in log, log[-2000:]
    assert "Traceback" not in log, log[-2000:]
