"""The simulated model's knobs: failures that pass, streams that wait, large answers, and what it remembers."""

import sys
import time

import httpx
import openai
import pytest

from local.process import Process, free_port, is_listening

MESSAGES = [{"role": "user", "content": "How much of the budget is left?"}]
BODY = {"model": "gpt-4o", "messages": MESSAGES}
TOOLS = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def model_url():
    port = free_port()
    deployments = '{"gpt-4o-weu": "gpt-4o"}'
    process = Process("model", [sys.executable, "-m", "local.model", "--port", str(port), "--deployments", deployments])
    process.wait_until(lambda: is_listening(port))
    yield f"http://127.0.0.1:{port}"
    process.stop()


def post(model_url, headers=None, path="/v1/chat/completions", **fields):
    return httpx.post(f"{model_url}{path}", json={**BODY, **fields}, headers=headers or {}, timeout=20)


def usage_of(model_url, call):
    return httpx.get(f"{model_url}/sim/usage", params={"by": "call"}).json()[call]


def test_the_first_attempts_of_a_call_fail_and_the_next_is_served(model_url):
    """x-sim-fail-first counts by call id, so a gateway that retries gets through and another call does not."""
    knobs = {"x-sim-call-id": "retried", "x-sim-fail-first": "2", "x-sim-status": "429", "x-sim-retry-after": "7"}
    answers = [post(model_url, knobs) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert post(model_url, {**knobs, "x-sim-call-id": "another"}).status_code == 429
    counted = usage_of(model_url, "retried")
    assert (counted["attempts"], counted["errors"], counted["calls"]) == (3, 2, 1)
    assert counted["completion_tokens"] == answers[2].json()["usage"]["completion_tokens"]


def test_an_official_client_retries_through_it(model_url):
    """The SDK's own retry reaches the attempt that is served."""
    client = openai.OpenAI(base_url=f"{model_url}/v1", api_key="none", max_retries=2)
    knobs = {"x-sim-call-id": "sdk", "x-sim-fail-first": "1", "x-sim-retry-after": "0.01"}
    assert client.chat.completions.create(**BODY, extra_headers=knobs).choices
    assert usage_of(model_url, "sdk")["attempts"] == 2


def test_every_call_is_counted_by_its_id_whatever_its_kind(model_url):
    """Chat, stream, Responses and embeddings: the count by call is what the answer said."""
    chat = post(model_url, {"x-sim-call-id": "c1"}).json()["usage"]
    post(model_url, {"x-sim-call-id": "c2"}, stream=True)
    response = post(model_url, {"x-sim-call-id": "c3"}, "/v1/responses", input="abcd").json()["usage"]
    vectors = post(model_url, {"x-sim-call-id": "c4"}, "/v1/embeddings", input="abcdefgh").json()["usage"]
    expected = {
        "c1": (chat["prompt_tokens"], chat["completion_tokens"]),
        "c2": (chat["prompt_tokens"], chat["completion_tokens"]),
        "c3": (response["input_tokens"], response["output_tokens"]),
        "c4": (vectors["prompt_tokens"], 0),
    }
    for call, tokens in expected.items():
        counted = usage_of(model_url, call)
        assert (counted["prompt_tokens"], counted["completion_tokens"]) == tokens
        assert (counted["model"], counted["calls"], counted["attempts"]) == ("gpt-4o", 1, 1)


def test_a_stream_waits_until_it_is_released(model_url):
    """x-sim-hold-after stops after so many pieces: what has arrived by then was not buffered on the way."""
    knobs = {"x-sim-call-id": "held", "x-sim-hold-after": "3", "x-sim-output-tokens": "20"}
    body = {**BODY, "stream": True}
    with httpx.stream("POST", f"{model_url}/v1/chat/completions", json=body, headers=knobs, timeout=20) as answer:
        lines = answer.iter_lines()
        seen = [line for line in (next(lines) for _ in range(6)) if line]
        assert len(seen) == 3
        assert usage_of(model_url, "held")["calls"] == 0  # the rest is not made yet
        httpx.post(f"{model_url}/sim/release/held")
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert usage_of(model_url, "held")["calls"] == 1


def test_a_stream_without_its_usage_chunk(model_url):
    """x-sim-no-usage-chunk: asked for, not sent, though the call is counted."""
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    knobs = {"x-sim-call-id": "silent", "x-sim-no-usage-chunk": "1"}
    assert '"prompt_tokens"' not in post(model_url, knobs, **fields).text
    assert '"prompt_tokens"' in post(model_url, **fields).text
    assert usage_of(model_url, "silent")["calls"] == 1


@pytest.mark.parametrize(("path", "fields"), [("/v1/chat/completions", {}), ("/v1/responses", {"input": "Hi"})])
def test_an_answer_can_be_larger_than_a_gateway_reads(model_url, path, fields):
    """x-sim-answer-bytes fills it up without changing what it counts."""
    knobs = {"x-sim-output-tokens": "10"}
    large = post(model_url, {**knobs, "x-sim-answer-bytes": "2200000"}, path, **fields)
    assert len(large.content) > 2_200_000
    assert large.json()["usage"] == post(model_url, knobs, path, **fields).json()["usage"]


def test_a_whole_answer_says_its_length_unless_asked_not_to(model_url):
    """Content-Length is there; x-sim-chunked takes it away and changes nothing else."""
    plain, chunked = post(model_url), post(model_url, {"x-sim-chunked": "1"})
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert "content-length" not in chunked.headers
    assert chunked.headers["transfer-encoding"] == "chunked"
    assert chunked.json()["choices"] == plain.json()["choices"]


def test_an_answer_can_repeat_what_it_was_told(model_url):
    """x-sim-echo: the prompt's words are in the answer, in a stream and in the arguments of a tool."""
    knobs = {"x-sim-echo": "1", "x-sim-output-tokens": "10"}
    messages = [{"role": "user", "content": "canary-7 web_search"}]
    answer = post(model_url, knobs, messages=messages).json()
    assert answer["choices"][0]["message"]["content"].startswith("canary-7 web_search ")
    assert answer["usage"]["completion_tokens"] == 10
    assert "canary-7" in post(model_url, knobs, messages=messages, stream=True).text
    called = post(model_url, knobs, messages=messages, tools=TOOLS).json()["choices"][0]["message"]["tool_calls"][0]
    assert "canary-7" in called["function"]["arguments"]


def test_requests_are_remembered_as_they_arrived(model_url):
    """Body, header names and the credential presented, so a test can see what a gateway sent on."""
    post(model_url, {"x-sim-call-id": "seen", "Authorization": "Bearer gateway", "X-Extra": "1"}, user="u-1")
    (seen,) = httpx.get(f"{model_url}/sim/requests", params={"call": "seen", "containing": "u-1"}).json()
    assert (seen["path"], seen["authorization"]) == ("/v1/chat/completions", "Bearer gateway")
    assert {"x-extra", "x-sim-call-id", "authorization"} <= set(seen["header_names"])
    assert "api-key" not in seen["header_names"]
    assert httpx.get(f"{model_url}/sim/requests", params={"containing": "said by nobody"}).json() == []


def test_the_service_tier_is_the_one_asked_for(model_url):
    """Named, it is repeated as the provider would; else it is the default one."""
    assert post(model_url).json()["service_tier"] == "default"
    assert post(model_url, service_tier="priority").json()["service_tier"] == "priority"


def test_an_aborted_stream_is_counted_for_its_call(model_url):
    """What was produced until the client left stands beside the calls, never among them."""
    knobs = {"x-sim-call-id": "left", "x-sim-chunk-ms": "20", "x-sim-output-tokens": "50"}
    body = {**BODY, "stream": True}
    with httpx.stream("POST", f"{model_url}/v1/chat/completions", json=body, headers=knobs) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 5
    while (counted := usage_of(model_url, "left"))["aborted"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (counted["calls"], counted["completion_tokens"]) == (0, 0)
    assert counted["aborted_completion_tokens"] < 50


def test_a_deployment_answers_and_counts_as_its_model(model_url):
    """As at Azure: what serves is the model behind the deployment, named in the path or in the body."""
    path = "/openai/deployments/gpt-4o-weu/chat/completions"
    for headers, where, fields in (
        ({"x-sim-call-id": "d1"}, path, {}),
        ({"x-sim-call-id": "d2"}, "/openai/v1/chat/completions", {"model": "gpt-4o-weu"}),
    ):
        assert post(model_url, headers, where, **fields).json()["model"] == "gpt-4o"
        assert usage_of(model_url, headers["x-sim-call-id"])["model"] == "gpt-4o"
