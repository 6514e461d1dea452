"""Everything that can go wrong around the built-in gateway, on a whole running copy: what clients get, and the bill.

Whatever happens, afterwards the ledger has each call once, with the tokens that the model itself counted where anybody
could know them, nothing is held any more, and the budget's counter is the sum of the ledger.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.gateway_rig import APART, BODY, FIRST_BYTE_SECONDS, STALL_SECONDS, TEAM, open_rig
from tests.support.laptop import eventually

# A minute is what such outages last in life; nothing here waits for a clock, so a few seconds show the same.
OUTAGE_SECONDS = float(os.environ.get("CHAOS_OUTAGE_SECONDS", "2"))
PIECES = 20  # of an answer: one word, one token each
AFTER = 6  # so many pieces are fine before the fault; the first carries the role and no text
GENERATED = AFTER - 1


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with open_rig(tmp_path_factory.mktemp("chaos"), HOLD_TTL_SECONDS="10", HOLD_BUCKET_SECONDS="1") as rig:
        yield rig


@pytest.fixture(scope="module")
def gateway(rig):
    return rig.start_gateway()


def events_of(text):
    """The data of a stream's events; every one must be JSON or the end."""
    data = [event.removeprefix("data: ") for event in text.strip().split("\n\n")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def together(gateway, models, faults, *, stream):
    """All faults at once, one client each, at one model after the other: (answer, seconds) by fault."""

    def call(model, item):
        name, knobs = item
        began = time.monotonic()
        answer = gateway.post(name, model, stream=stream, x_sim_output_tokens=PIECES, **knobs)
        return name, (answer, time.monotonic() - began)

    with ThreadPoolExecutor(len(faults)) as clients:
        return dict(clients.map(call, itertools.cycle(models), faults.items()))


# What a client sees of a stream that broke behind its first pieces: what was good, then one event with an error.
MIDDLE = {
    f"middle-{fault}": {"x_sim_fault": fault, "x_sim_fault_after": AFTER, "x_sim_chunk_ms": 50}
    for fault in ("reset", "cut", "half", "end", "stall", "error", "json", "utf8", "endless")
}


def test_a_stream_that_breaks_says_so_and_is_billed_by_what_went_by(rig, gateway):
    """Reset, cut, silent, half an event, no JSON, no UTF-8, an event without end: the client's last event is an error
    that SDKs raise, after everything that was good. The bill is one estimated row: the output is exactly what the
    model says it had produced, the input is an estimate.
    """
    answers = together(gateway, APART["middle"], MIDDLE, stream=True)
    for name, (answer, seconds) in answers.items():
        *good, last = events_of(answer.text)
        assert answer.status_code == 200, name
        assert last["error"]["code"] == ("simulated_error" if name == "middle-error" else "upstream_failed"), name
        assert len(good) == AFTER, name
        assert seconds < STALL_SECONDS + 15, name
    for name, bill in rig.billed(list(MIDDLE)).items():
        (row,) = bill.rows
        assert (row.kind, row.measured, row.streamed, row.status) == ("usage", False, True, 200), name
        assert bill.billed[1] == GENERATED, name
        # What went by was generated. Behind an event that nobody can read the model goes on until it hears of it.
        most = PIECES - 1 if name in ("middle-json", "middle-utf8") else GENERATED + 1
        assert GENERATED <= bill.broken[1] <= most, name
        assert 0.5 * bill.broken[0] <= bill.billed[0] <= 3 * bill.broken[0], name


def test_the_sdk_raises_on_a_broken_stream(gateway):
    """What an application sees: its chunks, then openai.APIError; never an answer that looks complete."""
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", default_headers={"api-key": f"local-{TEAM}"})
    knobs = gateway.headers("sdk", x_sim_fault="half", x_sim_fault_after=AFTER)
    chunks = []
    stream = client.chat.completions.create(**BODY, stream=True, extra_headers=knobs)
    with pytest.raises(openai.APIError, match="ended the stream early"):
        chunks.extend(stream)
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == GENERATED


EARLY = {
    "early-reset": {"x_sim_fault": "reset"},
    "early-stall": {"x_sim_fault": "stall"},
    "early-error": {"x_sim_fault": "error", "x_sim_fault_after": 0},
    "early-silent-head": {"x_sim_fault": "stall", "x_sim_fault_after": 0},
    "early-503": {"x_sim_status": "503"},
}


def test_a_stream_that_never_begins_is_an_error_and_free(rig, gateway):
    """Before the first event a failure is an answer of its own, with a status; the model produced nothing."""
    for name, (answer, seconds) in together(gateway, APART["early"], EARLY, stream=True).items():
        assert answer.status_code in (502, 503, 504), name
        assert answer.json()["error"]["code"], name
        assert seconds < 2 * FIRST_BYTE_SECONDS + 15, name
    bills = rig.billed(list(EARLY))
    for name, bill in bills.items():
        assert (bill.billed, bill.served) == ((0, 0), (0, 0)), name
        assert bill.broken[1] == 0, name


WHOLE_FREE = {"whole-reset": {"x_sim_fault": "reset"}, "whole-stall": {"x_sim_fault": "stall"}}
WHOLE_MADE = {f"whole-{fault}": {"x_sim_fault": fault} for fault in ("half", "json", "utf8", "endless")}
WHOLE_MADE["whole-late-stall"] = {"x_sim_fault": "stall", "x_sim_fault_after": 1}


def test_an_answer_in_one_piece_that_breaks_is_an_error_and_billed_if_it_was_made(rig, gateway):
    """Nothing of a broken body reaches the client. Broken before its head it is free; behind the head the model had
    made it, and it is billed at an estimate, once: nobody asks again for what was paid for.
    """
    for name, (answer, _) in together(gateway, APART["whole"], WHOLE_FREE | WHOLE_MADE, stream=False).items():
        assert answer.status_code in (502, 504), name
        assert answer.json()["error"]["code"] == "upstream_failed", name
    bills = rig.billed([*WHOLE_FREE, *WHOLE_MADE])
    for name in WHOLE_FREE:
        assert (bills[name].billed, bills[name].served) == ((0, 0), (0, 0)), name
    for name in WHOLE_MADE:
        (row,) = bills[name].rows
        assert (row.measured, bills[name].truth["calls"], bills[name].truth["attempts"]) == (False, 1, 1), name
        assert bills[name].billed[1] > 0, name


def test_a_storm_of_429_passes_or_is_told_with_a_time(rig, gateway):
    """Every request to the model is refused for a while, Retry-After with it: a client gets through by the gateway's
    own patience or is told when to come again; the storm costs nothing, and each answer is billed once.
    """
    model = rig.laptop.model_url
    storm = {"seconds": 2, "knobs": {"x-sim-status": "429", "x-sim-retry-after": "1"}}
    httpx.post(f"{model}/sim/knobs/storm", json=storm).raise_for_status()
    calls = {f"storm-{n}": {} for n in range(12)}
    answers = {name: answer for name, (answer, _) in together(gateway, ["storm"], calls, stream=False).items()}
    statuses = {answer.status_code for answer in answers.values()}
    assert statuses <= {200, 429, 503}
    for answer in answers.values():
        if answer.status_code != 200:
            assert int(answer.headers["retry-after"]) >= 1
    assert eventually(lambda: gateway.post("storm-after", "storm").status_code == 200, 20)
    served = [name for name, answer in answers.items() if answer.status_code == 200]
    for bill in rig.billed(["storm-after", *served]).values():
        assert bill.billed == bill.served
        assert [row.measured for row in bill.rows if row.tokens] == [True]
    for bill in rig.bills([name for name in answers if name not in served]).values():
        assert (bill.billed, bill.served) == ((0, 0), (0, 0))


MIXED_CALLS = 80
MIXED_FAULTS = ("cut", "half", "end", "error")  # after which the model stops: it counts as produced what it sent


def mixed_knobs(chance):
    """What one call of many meets: nothing, an error at first or always, or an answer that breaks somewhere."""
    knobs = {"x_sim_output_tokens": chance.randrange(1, PIECES)}
    what = chance.random()
    if what < 0.2:
        knobs |= {"x_sim_status": chance.choice((401, 404, 408, 429, 500, 503)), "x_sim_retry_after": "0"}
    elif what < 0.3:
        knobs |= {"x_sim_status": 500, "x_sim_fail_first": 1}
    elif what < 0.6:
        knobs |= {"x_sim_fault": chance.choice(MIXED_FAULTS), "x_sim_fault_after": chance.randrange(PIECES)}
    elif what < 0.7:
        knobs |= {"x_sim_fault": "reset", "x_sim_fail_first": 1}
    elif what < 0.8:
        knobs |= {"x_sim_no_usage_chunk": 1}
    return knobs


def test_any_mix_of_troubles_is_billed_as_the_model_counted(rig, gateway):
    """Many calls with random troubles, with a fallback that has none. Every measured row is the model's own
    count and nothing that the model finished goes unbilled; what only began is billed by what went by of it.
    """
    chance = random.Random(6)
    calls = {f"mixed-{n}": (chance.random() < 0.6, mixed_knobs(chance)) for n in range(MIXED_CALLS)}
    with ThreadPoolExecutor(8) as clients:
        posted = {
            name: clients.submit(gateway.post, name, model, stream=stream, x_sim_at=model, **knobs)
            for model, (name, (stream, knobs)) in zip(itertools.cycle(APART["mixed"]), calls.items(), strict=False)
        }
        statuses = {name: answer.result().status_code for name, answer in posted.items()}
    assert set(statuses.values()) <= {200, 429, 502, 503, 504}
    for name, bill in rig.billed(list(calls), 60).items():
        known = [row for row in bill.rows if row.measured and row.tokens]
        guessed = [row for row in bill.rows if not row.measured]
        whole, begun = bill.truth["calls"], bill.truth["aborted"]
        assert len(known) <= whole <= len(known) + len(guessed) <= whole + begun, name
        assert bill.billed[1] >= bill.served[1] or guessed, name
        if not guessed:
            assert bill.billed == bill.served, name
        elif calls[name][0]:  # a stream, of which each piece is a token; the one that broke may be counted or not
            produced = bill.served[1] + bill.broken[1]
            assert produced - 2 <= bill.billed[1] <= produced, (name, bill)


def test_a_client_that_leaves_is_billed_what_was_made_for_it(rig, gateway):
    """The model waits for a word, stops when the client leaves instead, and the bill says how far it came."""
    headers = gateway.headers("leaver", x_sim_output_tokens=40, x_sim_hold_after=AFTER)
    body, text = {**BODY, "stream": True}, b""
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
        for piece in answer.iter_raw():
            text += piece
            if text.count(b"data: ") == AFTER:
                break
    bill = rig.billed(["leaver"])["leaver"]
    (row,) = bill.rows
    assert not row.measured
    assert bill.billed[1] == bill.broken[1] == GENERATED


def test_until_here_nothing_is_held(rig):
    """No broken call keeps budget: every hold was settled or given back, none had to wait for its end."""
    eventually(lambda: float(rig.laptop.spend(TEAM)["reserved"]) == 0, 8)


def test_a_hub_that_is_away_costs_no_call_and_loses_no_event(rig, gateway):
    """Refusing and silent, calls all the while: clients notice nothing, events wait on disk, each is billed once."""
    calls = []
    for state in ("refusing", "silent"):
        rig.hub.set(state)
        until = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < until:
            calls.append(f"hub-{state}-{len(calls)}")
            assert gateway.post(calls[-1], "hub", stream=len(calls) % 2 == 0).status_code == 200
            time.sleep(OUTAGE_SECONDS / 20)
        health = eventually(lambda: found if (found := gateway.health())["spool"]["events"] else None)
        assert health["status"] == "backlog"
        rig.hub.set("up")
    for name, bill in rig.billed(calls, 60).items():
        (row,) = bill.rows
        assert (bill.billed, row.measured) == (bill.served, True), name
    eventually(lambda: gateway.health()["pending_events"] == 0)


def test_a_full_spool_refuses_before_the_model_is_called(rig):
    """A spool with room for seven calls, a hub away, twenty clients at once: those for whose event there is no room get
    503 and when to come again, before the model is called; the others are served, and billed when the hub is back.
    """
    small = {"SPOOL_MAX_BYTES": str(8 * 8192), "SPOOL_DIR": str(rig.directory / "small")}
    gateway = rig.start_gateway(**small, REDIS_TIMEOUT_SECONDS="20")  # twenty at once, maybe on a busy machine
    rig.hub.set("refusing")
    try:
        assert gateway.post("full-first", "crowd").status_code == 200
        eventually(lambda: gateway.health()["status"] == "backlog")
        crowd = {f"full-{n}": {"x_sim_latency_ms": 1500} for n in range(20)}
        answers = {name: answer for name, (answer, _) in together(gateway, ["crowd"], crowd, stream=False).items()}
        assert gateway.health()["pending_events"] > 0
    finally:
        rig.hub.set("up")
    taken = [name for name, answer in answers.items() if answer.status_code == 200]
    refused = [name for name in answers if name not in taken]
    assert taken
    assert refused
    for name in refused:
        problem = answers[name]
        assert (problem.status_code, problem.json()["error"]["code"]) == (503, "events_backlog"), name
        assert int(problem.headers["retry-after"]) > 0
        assert rig.laptop.served(name)["attempts"] == 0
    for name, bill in rig.billed(["full-first", *taken], 60).items():
        assert bill.billed == bill.served, name


def test_redis_away_is_told_or_survived_and_everything_is_billed_once(rig, gateway):
    """Refusing and silent: a tenant that fails closed gets 503 state_unavailable; streams in flight go on to their end
    and are billed; afterwards budgets are decided again.
    """
    outcomes = []
    for state in ("refusing", "silent"):
        name = f"redis-open-{state}"
        with ThreadPoolExecutor(1) as clients:
            knobs = {"x_sim_output_tokens": 40, "x_sim_chunk_ms": 50}
            flying = clients.submit(lambda name=name, knobs=knobs: gateway.post(name, "redis", stream=True, **knobs))
            eventually(lambda name=name: rig.laptop.served(name)["attempts"])
            rig.redis.set(state)
            until = time.monotonic() + OUTAGE_SECONDS
            while time.monotonic() < until:
                answer = gateway.post(f"redis-{state}-{len(outcomes)}", "redis", timeout=20)
                outcomes.append((f"redis-{state}-{len(outcomes)}", answer))
                time.sleep(OUTAGE_SECONDS / 10)
            assert flying.result().text.endswith("data: [DONE]\n\n")
        rig.redis.set("up")
        eventually(lambda: gateway.post(f"redis-back-{time.monotonic()}", "redis").status_code == 200)
    for _, answer in outcomes:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "state_unavailable"
        assert int(answer.headers["retry-after"]) > 0
    assert not any(bill.truth.get("attempts") for bill in rig.bills([name for name, _ in outcomes]).values())
    for name, bill in rig.billed(["redis-open-refusing", "redis-open-silent"]).items():
        assert bill.billed == bill.served, name


def test_a_redis_that_comes_back_empty_is_no_fresh_budget(rig, gateway):
    """A lost cache, restarted: nobody is let in on a counter of zero. Calls are told to come again until what was spent
    is back from the ledger; then they are served and billed, and no earlier call is forgotten.
    """
    rig.assert_nothing_held(60)
    spent = float(rig.laptop.spend(TEAM)["spent"])
    assert spent > 0
    redis = rig.laptop.stack._redis
    redis.kill()
    redis.restart()
    names, served = [], False
    until = time.monotonic() + 90
    while not served and time.monotonic() < until:
        names.append(f"emptied-{len(names)}")
        answer = gateway.post(names[-1], "redis")
        served = answer.status_code == 200
        if not served:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            time.sleep(0.3)
    assert served
    *_, last = names
    bill = rig.billed([last])[last]
    assert bill.billed == bill.served
    assert float(eventually(lambda: rig.laptop.spend(TEAM)["spent"])) >= spent
    assert not any(bill.truth.get("attempts") for bill in rig.bills(names[:-1]).values())


def test_after_all_of_it_nothing_is_held_and_the_counter_is_the_ledger(rig, gateway):
    """The last word of this file: holds are settled or given back, and no row was counted twice or left out."""
    assert gateway.post("last").status_code == 200
    (row,) = rig.billed(["last"])["last"].rows
    assert row.measured
    rig.assert_nothing_held(60)
    rig.assert_counters_are_the_ledger()
    identities = [(row.source, row.id) for row in rig.laptop.all_rows()]
    assert len(identities) == len(set(identities))
