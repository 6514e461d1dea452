"""The gateway over real HTTP, between a client and the simulated model; budget and hub are stand-ins."""

import asyncio
import hashlib
import json
import socket
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
import uvicorn

from gateway.app import build_app
from gateway.attempts import Attempts, Place
from gateway.events import MOST_PENDING_EVENTS, EventQueue
from local.model.app import build_app as build_model
from local.process import free_port
from shared.budgets.answer import CheckAnswer
from shared.budgets.request import canonical
from shared.config.model import Config, Endpoint, Model, Team, Tenant
from shared.errors import BudgetExhausted
from shared.routing.deployments import Deployments
from shared.settings import Settings

ADMITTED = datetime(2026, 11, 21, 10, tzinfo=UTC)
MESSAGES = [{"role": "user", "content": "How much is left?"}]
HEADERS = {"api-key": "local-search"}
CHAT_BODY = json.dumps({"model": "gpt-4o", "messages": MESSAGES}).encode()


MODELS = {
    "gpt-4o": Model(id="gpt-4o", deployments=("gpt-4o-weu",)),
    "gpt-4o-mini": Model(id="gpt-4o-mini"),
    "probed": Model(id="probed", fallbacks=("gpt-4o-mini",)),
}


class Budget:
    """Allows everything unless told otherwise, and remembers what it was asked and given back."""

    def __init__(self) -> None:
        self.change: dict = {}
        self.asked = []
        self.released: list[str] = []

    async def check(self, request):
        self.asked.append(request)
        request = canonical(request, Deployments(MODELS))
        fields = {
            "decision": "allow",
            "reason": "within_budget",
            "tenant": "default",
            "scopes": {"team": "search", **request.scopes},
            "requested_model": request.model,
            "model": request.model,
            "provider": request.provider,
            "deployment": request.deployment,
            "state": "active",
            "disabled_tools": [],
            "budget": None,
            "admitted_at_utc": ADMITTED,
            "reservation": f"hold-{len(self.asked)}",
        }
        return CheckAnswer(**{**fields, **self.change})

    async def release(self, token: str) -> bool:
        self.released.append(token)
        return True


class Hub:
    """Keeps the events it was given, unless it is down."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.is_down = False

    async def publish(self, bodies) -> None:
        if self.is_down:
            raise ConnectionError("the hub is down")
        self.events += [json.loads(body) for _, body in bodies]


async def serve(app, **options):
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", **options))
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, not an event
        await asyncio.sleep(0.01)

    async def stop() -> None:
        server.should_exit = True
        await task

    return f"http://127.0.0.1:{listener.getsockname()[1]}", stop


async def until(condition) -> None:
    """Return once the condition holds, on a busy machine too."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the stand-ins offer no event
            await asyncio.sleep(0.01)


class Bench:
    """A gateway in front of a model, and what went in and out."""

    def __init__(self, url: str, model_url: str, budget: Budget, hub: Hub, stop) -> None:
        self.budget, self.hub, self.model_url, self.stop = budget, hub, model_url, stop
        self.client = httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=20)

    async def chat(self, path="/v1/chat/completions", headers=None, **fields) -> httpx.Response:
        body = {"model": "gpt-4o", "messages": MESSAGES, **fields}
        return await self.client.post(path, json=body, headers=headers or {})

    async def event(self) -> dict:
        """The one event of the one call."""
        return (await self.events(1))[0]

    async def events(self, count: int) -> list[dict]:
        """All events, exactly so many, in the order of the attempts."""
        await until(lambda: len(self.hub.events) >= count)
        await asyncio.sleep(0.05)
        assert len(self.hub.events) == count
        return sorted(self.hub.events, key=lambda event: event["data"]["attempt"])


@pytest.fixture
def most_pending():
    """Places in the event queue; a test that parametrizes this name gets a smaller one."""
    return MOST_PENDING_EVENTS


@pytest.fixture
async def bench(most_pending, monkeypatch):
    monkeypatch.setattr("gateway.app.EventQueue", partial(EventQueue, most_pending=most_pending))
    model_url, stop_model = await serve(build_model({"gpt-4o-weu": "gpt-4o"}))
    settings = Settings(
        environment="development",
        local_model_url=model_url,
        gateway_keys={hashlib.sha256(b"local-search").hexdigest(): "search-prod"},
    )
    team = Team("search", "default", subscriptions=frozenset({"search-prod"}), allowed_models=tuple(MODELS))
    others = {"dear": Model(id="dear")}
    config = Config("1", {"default": Tenant("default")}, {"search": team}, (), MODELS | others)
    budget, hub = Budget(), Hub()

    async def nothing() -> None:
        return None

    services = SimpleNamespace(
        settings=settings, config=SimpleNamespace(current=config), budget=budget, publisher=hub, close=nothing
    )

    async def open_services():
        return services

    url, stop = await serve(build_app(open_services, "test"), timeout_graceful_shutdown=1)
    bench = Bench(url, model_url, budget, hub, stop)
    yield bench
    await bench.client.aclose()
    await stop()
    await stop_model()


async def test_a_call_is_checked_forwarded_and_reported(bench):
    """The event carries the provider's own usage, the admission time and the request id the client saw."""
    answer = await bench.chat(headers={"x-budget-scope-session": "s-42"}, max_tokens=50, service_tier="flex")
    event = await bench.event()
    assert answer.status_code == 200
    assert answer.headers["x-budget-state"] == "active"
    check = bench.budget.asked[0]
    assert (check.identity, check.scopes) == ({"subscription": "search-prod"}, {"session": "s-42"})
    assert (check.model, check.max_output_tokens, check.service_tier) == ("gpt-4o", 50, "flex")
    assert (event["source"], event["id"]) == ("gateway/test", answer.headers["x-request-id"])
    assert event["time"] == "2026-11-21T10:00:00Z"
    data = event["data"]
    assert data["usage"] == answer.json()["usage"]
    assert (data["reservation"], data["status"], data["streamed"]) == ("hold-1", 200, False)
    assert data["scopes"] == {"team": "search", "session": "s-42"}
    assert "content" not in json.dumps(event)


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/openai/deployments/gpt-4o-weu/chat/completions"])
async def test_azure_paths_reach_the_same_model(bench, path):
    """A deployment in the path is checked and billed as its model, and the answer's deployment gets the call."""
    answer = await bench.chat(path + "?api-version=2024-10-21")
    assert answer.json()["model"] == "gpt-4o"
    data = (await bench.event())["data"]
    assert (data["model"], data["requested_model"], data["deployment"]) == ("gpt-4o", "gpt-4o", "gpt-4o-weu")


async def test_streams_arrive_while_they_are_made(bench):
    """The first piece is with the client before the model makes the others: it waits until it is told to go on."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True, "max_tokens": 20}
    headers = {"x-sim-call-id": "held", "x-sim-hold-after": "3", "x-sim-output-tokens": "20"}
    async with bench.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = answer.aiter_bytes()
        text = await anext(pieces)
        assert b"[DONE]" not in text
        await bench.client.post(f"{bench.model_url}/sim/release/held")
        async for piece in pieces:
            text += piece
    assert b'"usage":{' not in text
    assert text.endswith(b"data: [DONE]\n\n")
    data = (await bench.event())["data"]
    assert (data["streamed"], data["usage"]["completion_tokens"]) == (True, 20)


async def test_a_client_that_asks_for_usage_gets_it(bench):
    """The usage chunk is hidden only from those who did not ask."""
    answer = await bench.chat(stream=True, stream_options={"include_usage": True})
    last = json.loads(answer.text.strip().split("\n\n")[-2].removeprefix("data: "))
    assert last["usage"] == (await bench.event())["data"]["usage"]


async def test_a_client_that_leaves_is_still_billed_and_the_model_stopped(bench):
    """An aborted stream makes its event at once, without usage, and the model does not go on producing."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    headers = {"x-sim-chunk-ms": "50", "x-sim-output-tokens": "1200"}  # a minute, three times as long as is waited
    async with bench.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        async for _ in answer.aiter_bytes():
            break
    data = (await bench.event())["data"]
    assert (data["usage"], data["streamed"], data["status"], data["aborted"]) == (None, True, 200, True)
    async with httpx.AsyncClient() as client:
        for _ in range(100):
            served = (await client.get(f"{bench.model_url}/sim/usage")).json()["gpt-4o"]
            if served["aborted"]:
                break
            await asyncio.sleep(0.02)
    assert served["aborted"] == 1
    assert served["aborted_completion_tokens"] < 1200


async def test_a_client_that_stops_waiting_is_billed_what_the_model_answered(bench):
    """Without a stream the model has the whole answer made, and bills it, whether or not anybody still listens."""
    body = {"model": "gpt-4o", "messages": MESSAGES}
    headers = {"x-sim-latency-ms": "400", "x-sim-output-tokens": "33"}
    call = asyncio.create_task(bench.client.post("/v1/chat/completions", json=body, headers=headers))
    async with httpx.AsyncClient() as client:
        while not (await client.get(f"{bench.model_url}/sim/requests")).json():  # noqa: ASYNC110 - of another service
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await bench.event())["data"]["usage"]["completion_tokens"] == 33


async def test_a_shutdown_in_the_middle_of_a_stream_loses_no_event(bench):
    """A gateway that is told to stop ends what is open after its grace; the events are on the hub before it is gone."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    headers = {"x-sim-chunk-ms": "100", "x-sim-output-tokens": "60"}
    async with bench.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        await anext(answer.aiter_bytes())
        await bench.stop()
        assert [event["data"]["usage"] for event in bench.hub.events] == [None]


async def test_a_call_cut_by_a_shutdown_is_on_record(bench):
    """Waiting for the model's answer when the gateway stops: an event with an error status, so the hold comes back, and
    an error that the client's SDK understands.
    """
    body = {"model": "gpt-4o", "messages": MESSAGES}
    headers = {"x-sim-latency-ms": "5000"}
    call = asyncio.create_task(bench.client.post("/v1/chat/completions", json=body, headers=headers))
    while not bench.budget.asked:  # noqa: ASYNC110 - the stand-in has no event to wait for
        await asyncio.sleep(0.01)
    await bench.stop()
    answer = await call
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_stopping")
    assert answer.headers["x-request-id"]
    assert [event["data"]["status"] for event in bench.hub.events] == [504]
    assert bench.budget.released == []


async def test_a_stream_the_backend_cuts_ends_with_an_error_the_sdk_raises(bench):
    """A broken stream says so instead of looking complete; what was produced is billed by estimate."""
    answer = await bench.chat(stream=True, headers={"x-sim-break-after": "4", "x-sim-output-tokens": "50"})
    last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "upstream_failed"
    data = (await bench.event())["data"]
    assert (data["usage"], data["streamed"], data["aborted"]) == (None, True, True)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_backend_error_reaches_the_client_and_the_books(bench, streamed):
    """The backend's own status and body pass through; the event has the status and no usage, so the hold comes back."""
    answer = await bench.chat(stream=streamed, headers={"x-sim-status": "400"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "simulated_error")
    data = (await bench.event())["data"]
    assert (data["status"], data["usage"]) == (400, None)


async def test_a_backend_that_is_busy_for_long_says_so_to_the_client(bench):
    """Nobody waits a minute for a quota: the backend's 429 passes with its Retry-After, and so does the next call's."""
    busy = {"x-sim-status": "429", "x-sim-retry-after": "60"}
    answer = await bench.chat(headers=busy)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "simulated_error")
    assert answer.headers["retry-after"] == "60"
    assert (await bench.event())["data"]["status"] == 429
    answer = await bench.chat()  # the backend would serve it, and is left alone all the same
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "upstream_busy")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert bench.budget.released == ["hold-1", "hold-2"]


async def test_a_short_wait_is_the_gateways(bench):
    """Retry-After of a second is waited out; both attempts are on record, each with its own number and hold."""
    headers = {"x-sim-call-id": "c-1", "x-sim-fail-first": "1", "x-sim-status": "429", "x-sim-retry-after": "1"}
    answer = await bench.chat(headers=headers)
    assert (answer.status_code, answer.headers["x-tollkeeper-attempts"]) == (200, "2")
    events = await bench.events(2)
    assert {event["id"] for event in events} == {answer.headers["x-request-id"]}
    told = [[event["data"][name] for name in ("attempt", "status", "reservation")] for event in events]
    assert told == [[1, 429, "hold-1"], [2, 200, "hold-2"]]
    assert events[1]["data"]["usage"] == answer.json()["usage"]
    assert bench.budget.released == ["hold-1"]


async def test_a_place_that_comes_back_is_probed_by_one_call(bench, monkeypatch):
    """Of ten calls at once the half-open breaker lets one through; when that was served everybody is welcome again."""
    monkeypatch.setattr("gateway.breakers.OPEN_SECONDS", 2.0)
    fails = {"x-sim-at": "probed", "x-sim-status": "500"}
    for _ in range(5):
        assert (await bench.chat(model="probed", headers=fails)).headers["x-served-model"] == "gpt-4o-mini"
    assert "x-tollkeeper-attempts" not in (await bench.chat(model="probed")).headers  # open: not even tried
    await asyncio.sleep(2.0)
    slow = {"x-sim-at": "probed", "x-sim-latency-ms": "2000"}
    answers = await asyncio.gather(*(bench.chat(model="probed", headers=slow) for _ in range(10)))
    assert sorted(answer.json()["model"] for answer in answers) == ["gpt-4o-mini"] * 9 + ["probed"]
    assert (await bench.chat(model="probed")).json()["model"] == "probed"


async def test_a_body_nested_however_deep_is_no_defect(bench):
    """Some can just be read and not be written again: the caller hears of it, and nothing stays held."""
    for depth in range(900, 960):
        raw = b'{"model": "gpt-4o", "messages": [], "x": ' + b"[" * depth + b"]" * depth + b"}"
        answer = await bench.client.post("/v1/chat/completions", content=raw)
        assert "internal_error" not in answer.text, depth  # what the model itself makes of it is its own affair


async def test_an_answer_nested_too_deep_is_billed_and_said_to_be_broken(bench, monkeypatch):
    """A backend may answer anything; whoever asked gets an error that says whose it is.

    It is billed at the tier that was asked for and held: nobody could read which one served it.
    """

    def whole(*_):
        raise RecursionError

    monkeypatch.setattr("gateway.providers.azure_openai.AzureOpenAiApi.whole", whole)
    answer = await bench.chat(service_tier="priority")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
    data = (await bench.event())["data"]
    assert (data["aborted"], data["processing_tier"]) == (True, "priority")


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_the_gateways_own_credential_problem_is_not_the_callers(bench, status):
    """A 401 of the backend would look like the caller's wrong key, a 402 like the caller's spent budget; and what the
    provider says beside it is about an account that is not the caller's.
    """
    answer = await bench.chat(headers={"x-sim-status": str(status)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")
    assert (await bench.event())["data"]["status"] == status


async def test_errors_of_the_gateways_own_have_the_headers_of_every_admitted_call(bench):
    """The budget's state and how many attempts it took, as on any other answer; no model is said to have served it."""
    bench.budget.change = {"requested_model": "gpt-4.1", "state": "degraded"}
    answer = await bench.chat(model="probed", headers={"x-sim-status": "401"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")
    assert (answer.headers["x-budget-state"], answer.headers["x-tollkeeper-attempts"]) == ("degraded", "2")
    assert answer.headers["x-request-id"] == (await bench.events(2))[0]["id"].partition("/")[0]
    assert "x-served-model" not in answer.headers


async def test_a_backend_that_cannot_be_reached_costs_nothing(bench, monkeypatch):
    """Without a connection the model saw nothing: what was held is released, for either try, and no event made."""
    nowhere = Endpoint(id="gone", provider="azure-openai", api="openai", url=f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(Attempts, "_place", lambda *_: Place("gpt-4o", "azure-openai", "gpt-4o-weu", nowhere))
    answer = await bench.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert bench.budget.released == ["hold-1", "hold-2"]
    await asyncio.sleep(0.1)
    assert bench.hub.events == []


@pytest.mark.parametrize("most_pending", [2])
async def test_a_hub_that_is_down_closes_the_door_before_money_is_spent(bench):
    """Events that cannot be published fill the queue; then calls get 503 before a model is asked; none is lost."""
    bench.hub.is_down = True
    statuses = [(await bench.chat()).status_code for _ in range(3)]
    assert statuses == [200, 200, 503]
    refused = await bench.chat()
    assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("events_backlog", "2")
    assert len(bench.budget.asked) == 2
    bench.hub.is_down = False
    await until(lambda: len(bench.hub.events) == 2)
    assert (await bench.chat()).status_code == 200


async def test_a_refusal_reaches_neither_model_nor_hub(bench):
    """A spent budget answers with OpenAI's error shape and asks not to retry."""
    bench.budget.change = {"decision": "refuse", "state": "stopped", "error": BudgetExhausted("spent")}
    answer = await bench.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exhausted")
    assert (answer.headers["x-should-retry"], answer.headers["x-budget-state"]) == ("false", "stopped")
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{bench.model_url}/sim/usage")).json() == {}
    assert bench.hub.events == []


async def test_a_downgrade_serves_the_cheaper_model_without_the_tool(bench):
    """The client is told what it asked for, what served it, and which tool was left out."""
    served = {"model": "gpt-4o-mini", "deployment": "gpt-4o-mini"}
    bench.budget.change = {"decision": "downgrade", **served, "disabled_tools": ["web_search"]}
    tools = [{"type": "function", "function": {"name": "web_search"}}]
    messages = [{"role": "user", "content": "use web_search"}]
    answer = await bench.chat(tools=tools, messages=messages)
    assert answer.json()["model"] == "gpt-4o-mini"
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("gpt-4o", "gpt-4o-mini")
    assert answer.headers["x-budget-disabled-tools"] == "web_search"
    data = (await bench.event())["data"]
    assert (data["requested_model"], data["model"], data["decision"]) == ("gpt-4o", "gpt-4o-mini", "downgrade")


async def test_embeddings_are_billed_too(bench):
    """An embeddings call is an event with its own operation."""
    answer = await bench.client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "abcdefgh"})
    assert len(answer.json()["data"]) == 1
    data = (await bench.event())["data"]
    assert (data["operation"], data["usage"]["prompt_tokens"]) == ("embeddings", 2)


async def test_models_are_those_of_the_configuration(bench):
    """In OpenAI's shape, to callers with a key: `auto`, and those that their team may use."""
    answer = await bench.client.get("/v1/models")
    assert [model["id"] for model in answer.json()["data"]] == ["auto", *MODELS]
    assert (await bench.client.get("/v1/models/gpt-4o")).json()["owned_by"] == "azure-openai"
    assert (await bench.client.get("/v1/models/dear")).status_code == 404
    assert (await bench.client.get("/v1/models", headers={"api-key": "x"})).status_code == 401


async def test_a_call_that_must_be_in_two_places_is_in_neither(bench):
    """Of two headers none is left out: where data may go is no matter of which came first."""
    places = [("x-tollkeeper-region", "eastus"), ("x-tollkeeper-region", "westeurope")]
    await bench.client.post("/v1/chat/completions", content=CHAT_BODY, headers=places)
    assert bench.budget.asked[0].required_region == "eastus,westeurope"


async def test_what_no_header_may_hold_stays_out_of_the_models_headers(bench):
    """A knob of the simulated model that is no ASCII is none."""
    headers = {"x-sim-output-tokens": "é".encode()}
    assert (await bench.chat(headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/chat/completions", "POST"), ("DELETE", "/chat", "POST"), ("POST", "/v1/models", "GET")],
)
async def test_a_wrong_method_is_told_the_right_one(bench, method, path, allowed):
    """405 in OpenAI's shape, and `Allow` as HTTP wants it."""
    answer = await bench.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert allowed in answer.headers["allow"].split(", ")
    assert allowed in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "content", "status", "code"),
    [
        ("/v1/chat/completions", {"api-key": "wrong"}, b"{}", 401, "invalid_api_key"),
        ("/v1/chat/completions", {}, b"{", 400, "invalid_request"),
        ("/v1/chat/completions", {}, b"x" * (32 * 1024 * 1024 + 1), 413, "payload_too_large"),
        ("/v1/images", {}, b"{}", 404, "not_found"),
        ("/v1/chat/completions", {"x-tollkeeper-region": "w" * 129}, CHAT_BODY, 400, "invalid_request"),
        ("/v1/chat/completions", {"x-tollkeeper-data-zone": "e\tu"}, CHAT_BODY, 400, "invalid_request"),
    ],
    ids=["key", "json", "size", "path", "region", "data zone"],
)
async def test_bad_requests_get_openai_shaped_answers(bench, path, headers, content, status, code):
    """Whatever is wrong, the SDK can read the answer, and no budget is asked."""
    answer = await bench.client.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"]
    assert bench.budget.asked == []
