"""The function app is away, slow, broken or wrong: clients get what their tenant's fail mode says, in time.

The function app is really stopped. Its port then stays empty, or a scripted server takes it and answers each budget
check in the way of one outage. When the function app is back, every call that was let pass is billed.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import openai
import pytest

from tests.support.laptop import CHAT, Laptop, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import configuration, team_file

TIMEOUT_SECONDS = 1  # how long a call waits for the check; the default is 3
SLACK_SECONDS = 6.0  # for the call itself, on a busy machine
SILENT_SECONDS = 10  # of a server that does not answer: longer than both together
HOLD_SECONDS = 20  # a check whose answer came too late has held something that nobody knows of
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
TENANTS = """
tenants:
  - {id: default}
  - {id: closed, fail_mode: closed}
  - {id: open, fail_mode: open}
  - {id: cached, fail_mode: cached}
  - {id: observed, fail_mode: closed, enforcement: observe}
  - {id: unenforced, fail_mode: closed, enforcement: "off"}
"""
TENANT_OF = {
    "shut": "closed",
    "easy": "open",
    "known": "cached",  # has called before
    "unknown": "cached",  # has not
    "watched": "observed",
    "free": "unenforced",
}
SERVED = ("easy", "known", "watched", "free")  # while nobody can decide
REFUSED = ("shut", "unknown")
FILES = configuration(
    TENANTS, **{team: f"tenant: {tenant}{team_file(team, '100.00')}" for team, tenant in TENANT_OF.items()}
)

Answer = Callable[[BaseHTTPRequestHandler], None]


def answering(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Answer:
    """This response to every question."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-type": content_type, "content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def never(handler: BaseHTTPRequestHandler) -> None:
    """Takes the question and says nothing."""
    time.sleep(SILENT_SECONDS)


def stalling(handler: BaseHTTPRequestHandler) -> None:
    """Begins to answer and stops in the middle."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"decision": "allow", ')
    handler.wfile.flush()
    time.sleep(SILENT_SECONDS)


def cutting(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def error_body(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "no", "type": "x", "param": None}}).encode()


PAGE = b"<!doctype html><title>Function host is not running.</title>"
OUTAGES: dict[str, Answer | None] = {
    "down": None,  # nothing listens
    "slow": never,
    "stalled": stalling,
    "cut": cutting,
    "500": answering(500, error_body("internal_error")),
    "500 page": answering(500, PAGE, "text/html"),
    "502 page": answering(502, PAGE, "text/html"),
    "503 page": answering(503, PAGE, "text/html", retry_after="10"),
    "404 page": answering(404, PAGE, "text/html"),
    "401": answering(401, b"", www_authenticate='Bearer realm="functions"'),
    "401 as ours": answering(401, error_body("not_authenticated")),
    "403 page": answering(403, PAGE, "text/html"),
    "403 role": answering(403, error_body("role_required")),
    "redirect to a login": answering(302, b"", location="https://login.example/"),
    "garbage": answering(200, b"\x00\xff\xfe garbage", "application/octet-stream"),
    "page": answering(200, PAGE, "text/html"),
    "nothing": answering(200, b""),
    "half an answer": answering(200, b'{"decision": "allow", "tenant": '),
    "another answer": answering(200, b'{"status": "ok"}'),
    "an answer that names nobody": answering(200, b'{"decision": "allow", "model": "gpt-4o"}'),
    "a list": answering(200, b"[1, 2, 3]"),
    "null": answering(200, b"null"),
}


@contextmanager
def scripted(port: int, answer: Answer | None) -> Iterator[None]:
    """A server on this port that answers everything so; nothing when there is no answer."""
    if answer is None:
        yield
        return

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer(self)
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        # The threads of `never` still sleep; waiting for each would take longer than all tests.
        server.block_on_close = False
        server.server_close()


@dataclass
class Got:
    """What one client got, and how long it waited."""

    call: str
    answer: httpx.Response
    seconds: float


@dataclass
class Outcome:
    """Every call made during the outages."""

    laptop: Laptop
    got: dict[tuple[str, str], Got]
    sdk_error: openai.APIStatusError
    trued_up: Got  # a stream while the function app was down


@pytest.fixture(scope="module")
def outcome(mono, tmp_path_factory):
    settings = {"tk-check-timeout-seconds": str(TIMEOUT_SECONDS)}
    environment = {
        "APIM_NAMED_VALUES": json.dumps(settings),
        "APIM_LLM_LOG_DELAY_SECONDS": "0.5",
        "HOLD_TTL_SECONDS": str(HOLD_SECONDS),
        "HOLD_BUCKET_SECONDS": "1",
    }
    with start_laptop(tmp_path_factory.mktemp("outages"), FILES, **environment) as laptop:
        assert laptop.post("known", CHAT, BODY, call="before").status_code == 200
        functions = laptop.stack.processes["functions"]
        functions.kill()
        got = {}
        for number, (name, answer) in enumerate(OUTAGES.items()):
            with (
                scripted(laptop.stack.options.functions_port, answer),
                ThreadPoolExecutor(len(TENANT_OF)) as clients,
            ):
                calls = [(team, f"o{number}-{team}") for team in TENANT_OF]
                for (team, _), result in zip(calls, clients.map(lambda each: call(laptop, *each), calls), strict=True):
                    got[name, team] = result
        trued_up = call(laptop, "easy", "streamed", stream=True)
        with pytest.raises(openai.APIStatusError) as raised:
            laptop.client("shut", max_retries=0).chat.completions.create(**BODY)
        laptop.stack.start_functions()
        eventually(lambda: is_back(laptop), 60)
        yield Outcome(laptop, got, raised.value, trued_up)


def call(laptop: Laptop, team: str, name: str, **fields: bool) -> Got:
    """One call and its duration."""
    started = time.monotonic()
    answer = laptop.post(team, CHAT, {**BODY, **fields}, call=name, x_sim_output_tokens="15")
    return Got(name, answer, time.monotonic() - started)


def is_back(laptop: Laptop) -> bool:
    """Whether budgets are decided again."""
    try:
        return laptop.post("shut", CHAT, BODY, call="after").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("outage", OUTAGES)
def test_each_client_gets_what_its_fail_mode_says(outcome, outage):
    """Closed: 503 with our code and when to come back. Open, cached, observed, off: served. Never a 500 or a 401."""
    for team in SERVED:
        got = outcome.got[outage, team]
        assert (team, got.answer.status_code) == (team, 200), got.answer.text
        assert outcome.laptop.served(got.call)["calls"] == 1
    for team in REFUSED:
        got = outcome.got[outage, team]
        assert (team, got.answer.status_code) == (team, 503), got.answer.text
        assert got.answer.json()["error"]["code"] == "state_unavailable"
        assert int(got.answer.headers["retry-after"]) > 0
        assert outcome.laptop.served(got.call)["attempts"] == 0


def test_nobody_waits_longer_than_the_timeout(outcome):
    """The check's time limit covers its whole answer, and nothing is tried again."""
    waited = {key: round(got.seconds, 1) for key, got in outcome.got.items()}
    assert {key: each for key, each in waited.items() if each > TIMEOUT_SECONDS + SLACK_SECONDS} == {}
    assert all(waited["slow", team] >= TIMEOUT_SECONDS for team in ("shut", "easy"))


def test_a_caller_whose_tenant_is_not_enforced_waits_for_nobody(outcome):
    """With enforcement off the budget service is not asked at all."""
    assert outcome.got["slow", "free"].seconds < outcome.got["slow", "easy"].seconds


def test_the_sdk_raises_its_own_error(outcome):
    """A server error with our code, which the SDK would try again by itself."""
    assert isinstance(outcome.sdk_error, openai.InternalServerError)
    assert (outcome.sdk_error.status_code, outcome.sdk_error.code) == (503, "state_unavailable")


def test_answers_without_a_check_claim_no_budget(outcome):
    """A client is told nothing about a budget that nobody looked at."""
    for team in ("easy", "free"):
        headers = outcome.got["down", team].answer.headers
        assert [name for name in headers if name.startswith("x-budget-")] == []
        assert headers["x-request-id"]


@pytest.mark.parametrize("team", SERVED)
def test_calls_that_were_let_pass_are_billed_when_the_service_is_back(outcome, team):
    """Each once, for its own team and tenant, with the tokens that the model counted."""
    calls = {
        outcome.got[outage, team].answer.headers["x-request-id"]: outcome.got[outage, team].call for outage in OUTAGES
    }
    found = eventually(lambda: rows if calls.keys() <= (rows := outcome.laptop.rows_by_request()).keys() else None)
    served = outcome.laptop.served_by_call()
    for request_id, name in calls.items():
        (row,) = found[request_id]
        truth = served[name]
        assert row.kind == "usage"
        assert (row.tenant, row.scopes["team"], row.model) == (TENANT_OF[team], team, "gpt-4o")
        assert prompt_and_output(row) == (truth["prompt_tokens"], truth["completion_tokens"])
        assert row.charge_nano_usd > 0


def test_a_stream_that_was_let_pass_is_trued_up(outcome):
    """Without a reservation it is accrued from its event, and measured by the LLM log like any other."""
    rows = eventually(lambda: found if "true_up" in (found := outcome.laptop.rows(outcome.trued_up.answer)) else None)
    truth = outcome.laptop.served("streamed")
    assert prompt_and_output(rows["true_up"]) == (truth["prompt_tokens"], truth["completion_tokens"])
    assert rows["true_up"].scopes["team"] == "easy"


def test_nothing_is_held_and_nothing_refused_is_billed(outcome):
    """Refused calls left no row, and what was held for an answer that came too late ends by itself."""
    rows = outcome.laptop.rows_by_request()
    for outage in OUTAGES:
        for team in REFUSED:
            assert outcome.got[outage, team].answer.headers["x-request-id"] not in rows
    eventually(lambda: all(held_usd(outcome.laptop, team) == 0 for team in TENANT_OF), 3 * HOLD_SECONDS)


def held_usd(laptop: Laptop, team: str) -> float:
    """What is held of a team's budget after a check has looked: that is when expired holds are found."""
    question = {"identity": {"subscription": f"{team}-prod"}, "model": "gpt-4o", "max_output_tokens": 1}
    asked = httpx.post(f"{laptop.functions_url}/budget/check", json=question).raise_for_status().json()
    if asked["reservation"]:
        httpx.post(f"{laptop.functions_url}/budget/release", json={"reservation": asked["reservation"]})
    return reserved_usd(laptop, TENANT_OF[team])


def test_a_decision_is_made_again_at_once(outcome):
    """The first call after the outage carries its budget's headers."""
    answer = outcome.laptop.post("easy", CHAT, BODY, call="again")
    assert answer.headers["x-budget-scope"] == "team:easy"


def test_a_frozen_function_app_holds_nothing_for_those_who_gave_up(outcome):
    """Checks that wait in a frozen process are answered when it goes on, to nobody: each says until when somebody
    listened, so none of them holds budget until its time to live is over."""
    laptop = outcome.laptop
    functions = laptop.stack.processes["functions"]
    eventually(lambda: is_back(laptop), 60)
    eventually(lambda: all(held_usd(laptop, team) == 0 for team in TENANT_OF), 3 * HOLD_SECONDS)
    asked = [(team, f"frozen-{number}-{team}") for team in ("shut", "easy", "watched") for number in range(3)]
    late_before = functions.log_path.read_text().count("check_too_late")
    functions.pause()
    try:
        with ThreadPoolExecutor(len(asked)) as clients:
            got = list(clients.map(lambda each: call(laptop, *each), asked))
        time.sleep(TIMEOUT_SECONDS)
    finally:
        functions.resume()
    resumed = time.monotonic()
    assert {(each.call.rpartition("-")[2], each.answer.status_code) for each in got} == {
        ("shut", 503),
        ("easy", 200),
        ("watched", 200),
    }
    eventually(lambda: functions.log_path.read_text().count("check_too_late") - late_before >= len(asked))
    eventually(lambda: not any(reserved_usd(laptop, tenant) for tenant in TENANT_OF.values()))
    assert time.monotonic() - resumed < HOLD_SECONDS, "the holds ended by themselves, so this shows nothing"


def reserved_usd(laptop: Laptop, tenant: str) -> float:
    """What /spend shows as held of a tenant's budgets."""
    return sum(float(budget["reserved"]) for budget in laptop.budgets(tenant))
