"""The simulated model's faults: what a backend can do wrong, each as it looks on the wire."""

import contextlib
import json
import sys
import time

import httpx
import pytest

from local.process import Process, free_port, is_listening

MESSAGES = [{"role": "user", "content": "How much of the budget is left?"}]
BODY = {"model": "gpt-4o-weu", "messages": MESSAGES}
DEPLOYMENTS = {"gpt-4o-weu": "gpt-4o", "gpt-4o-swc": "gpt-4o"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model_url():
    port = free_port()
    arguments = ["-m", "local.model", "--port", str(port), "--deployments", json.dumps(DEPLOYMENTS)]
    process = Process("model", [sys.executable, *arguments])
    process.wait_until(lambda: is_listening(port))
    yield f"http://127.0.0.1:{port}"
    process.stop()


def post(model_url, path=CHAT, timeout=10, **knobs):
    headers = {f"x-sim-{name.replace('_', '-')}": str(value) for name, value in knobs.items()}
    return httpx.post(f"{model_url}{path}", json=BODY, headers=headers, timeout=timeout)


def stream(model_url, timeout=1.0, **knobs):
    """(what arrived of a stream, the error that ended it)."""
    headers = {f"x-sim-{name.replace('_', '-')}": str(value) for name, value in knobs.items()}
    seen = b""
    try:
        with httpx.stream(
            "POST", f"{model_url}{CHAT}", json={**BODY, "stream": True}, headers=headers, timeout=timeout
        ) as answer:
            for piece in answer.iter_raw():
                seen += piece
                if len(seen) > 2_000_000:
                    break
    except httpx.HTTPError as error:
        return seen, error
    return seen, None


def usage_of(model_url, call):
    return httpx.get(f"{model_url}/sim/usage", params={"by": "call"}).json()[call]


def test_a_reset_comes_before_the_head_or_behind_some_pieces(model_url):
    """A reset, not an orderly end: the client reads ECONNRESET, and nothing was produced before the head."""
    with pytest.raises(httpx.ReadError):
        post(model_url, fault="reset", call_id="early")
    counted = usage_of(model_url, "early")
    assert (counted["errors"], counted["calls"], counted["aborted"]) == (1, 0, 0)
    seen, error = stream(model_url, fault="reset", fault_after=3, chunk_ms=20, call_id="late", output_tokens=20)
    assert isinstance(error, httpx.ReadError)
    assert seen.count(b"data: ") == 3
    counted = usage_of(model_url, "late")
    assert (counted["aborted"], counted["aborted_completion_tokens"]) == (1, 2)  # the first piece is the role alone


@pytest.mark.parametrize(
    ("fault", "breaks"), [("half", True), ("cut", True), ("end", False), ("error", False), ("stall", True)]
)
def test_a_stream_stops_in_its_middle(model_url, fault, breaks):
    """Cut, ended as if it were whole, ended by an error event or silent: the rest is never produced."""
    seen, error = stream(model_url, fault=fault, fault_after=4, output_tokens=20, call_id=fault)
    assert (error is not None) == breaks
    assert b"[DONE]" not in seen
    assert seen.endswith(b"\n\n") == (fault != "half")
    assert (b"simulated_error" in seen) == (fault == "error")
    deadline = time.monotonic() + 5
    while usage_of(model_url, fault)["aborted"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    counted = usage_of(model_url, fault)
    assert (counted["aborted_completion_tokens"], counted["calls"]) == (3, 0)
    assert counted["aborted_prompt_tokens"] > 0


@pytest.mark.parametrize("fault", ["json", "utf8"])
def test_one_piece_is_spoiled_and_the_stream_goes_on(model_url, fault):
    """One event nobody can read, in the middle of an answer that is complete otherwise."""
    seen, error = stream(model_url, fault=fault, fault_after=2, output_tokens=20, call_id=f"one-{fault}")
    assert error is None
    assert seen.endswith(b"data: [DONE]\n\n")
    unreadable = 0
    for event in seen.strip().split(b"\n\n")[:-1]:
        try:
            json.loads(event.removeprefix(b"data: "))
        except ValueError:
            unreadable += 1
    assert unreadable == 1
    assert usage_of(model_url, f"one-{fault}")["completion_tokens"] == 20


def test_an_event_without_end(model_url):
    """Megabytes without a blank line: what a reader must not collect for ever."""
    seen, error = stream(model_url, fault="endless", fault_after=1)
    assert error is None
    assert len(seen) > 2_000_000


def test_whole_answers_break_too(model_url):
    """Half a body under the length of all of it, a body that is no JSON, no UTF-8, or an error that says 200."""
    with pytest.raises(httpx.RemoteProtocolError):
        post(model_url, fault="half")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        post(model_url, fault="json").json()
    with pytest.raises(UnicodeDecodeError):
        post(model_url, fault="utf8").content.decode()
    assert post(model_url, fault="error").json()["error"]["code"] == "simulated_error"


@pytest.mark.parametrize("fault", ["reset", "json", "error"])
def test_a_fault_can_pass(model_url, fault):
    """x-sim-fail-first: the next attempt of the call is served."""
    knobs = {"fault": fault, "fail_first": 1, "call_id": f"passing-{fault}"}
    with contextlib.suppress(httpx.ReadError, ValueError):
        assert "choices" not in post(model_url, **knobs).json()
    assert post(model_url, **knobs).json()["choices"]


def test_only_the_named_deployment_fails(model_url):
    """x-sim-at: of the deployments behind one gateway a request's knobs reach those it lists."""
    knobs = {"status": 503, "at": "gpt-4o-swc, primary"}
    assert post(model_url, **knobs).status_code == 200
    assert post(model_url, "/openai/deployments/gpt-4o-swc/chat/completions", **knobs).status_code == 503
    assert post(model_url, f"/at/primary{CHAT}", **knobs).status_code == 503
    assert post(model_url, f"/at/secondary{CHAT}", **knobs).status_code == 200


def test_knobs_stand_for_every_request_until_their_time_is_over(model_url):
    """A storm that callers need not ask for: all requests to a deployment get it, others none."""
    rule = {"seconds": 1, "knobs": {"x-sim-status": "429", "x-sim-retry-after": "7"}}
    httpx.post(f"{model_url}/sim/knobs/gpt-4o-weu", json=rule)
    answer = post(model_url)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert post(model_url, "/openai/deployments/gpt-4o-swc/chat/completions").status_code == 200
    time.sleep(1)
    assert post(model_url).status_code == 200
    httpx.post(f"{model_url}/sim/knobs/*", json={"knobs": {"x-sim-status": "500"}})
    assert post(model_url).status_code == 500
    httpx.post(f"{model_url}/sim/knobs/*", json={})
    assert post(model_url).status_code == 200
