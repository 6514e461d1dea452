"""The function host runs a v2 app: HTTP, Event Hubs and timers, with Azure's retry and checkpoint behaviour."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient
from azure.storage.blob.aio import ContainerClient

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from local.functions_host.eventhub import CHECKPOINT_CONTAINER
from local.functions_host.functions import AppError
from local.functions_host.host import Host
from local.process import Process, free_port, is_listening

ROOT = Path(__file__).parents[2]

HTTP_APP = """
import json
import azure.functions as func
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
bp = func.Blueprint()

@bp.route(route="teams/{team}/cost/{month:int?}", methods=["GET"])
async def cost(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    seen = {"route": dict(req.route_params), "query": dict(req.params), "url": req.url, "name": context.function_name}
    return func.HttpResponse(json.dumps(seen), mimetype="application/json", headers={"X-Own": "1"})

@bp.route(route="teams/all/cost", methods=["GET"])
def sync_cost(req: func.HttpRequest) -> str:
    return "all"

@bp.route(route="echo", methods=["POST"])
async def echo(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.get_body(), status_code=201, mimetype=req.headers["Content-Type"])

@bp.route(route="broken")
async def broken(req: func.HttpRequest) -> func.HttpResponse:
    raise RuntimeError("secret detail")

app.register_functions(bp)
"""

EVENT_APP = """
import json, os, time, typing
import azure.functions as func
app = func.FunctionApp()
CALLS, TIMERS, STARTS = [], [], []
FAILURES = {"left": 0}

@app.event_hub_message_trigger(arg_name="events", event_hub_name="%TEST_HUB%", connection="TEST_EVENT_HUBS",
                               consumer_group="$Default", cardinality=func.Cardinality.MANY)
RETRY
async def ingest(events: typing.List[func.EventHubEvent], context: func.Context) -> None:
    if FAILURES["left"]:
        FAILURES["left"] -= 1
        raise RuntimeError("the store is away")
    for event in events:
        CALLS.append({
            "body": event.get_body().decode(), "sequence": event.sequence_number, "key": event.partition_key,
            "enqueued": event.enqueued_time, "partition": event.metadata["PartitionContext"]["PartitionId"],
            "namespace": event.metadata["PartitionContext"]["FullyQualifiedNamespace"],
            "at": time.time(), "batch": len(events), "retry": context.retry_context.retry_count,
        })

@app.timer_trigger(arg_name="timer", schedule="*/1 * * * * *")
async def tick(timer: func.TimerRequest) -> None:
    TIMERS.append(time.time())

@app.timer_trigger(arg_name="timer", schedule="0 0 0 29 2 *", run_on_startup=True)
async def start(timer: func.TimerRequest) -> None:
    STARTS.append(time.time())
"""
UNLIMITED = '@app.retry(strategy="fixed_delay", max_retry_count="-1", delay_interval="00:00:00.05")'
ONCE_MORE = '@app.retry(strategy="fixed_delay", max_retry_count="1", delay_interval="00:00:00.05")'


def _write_app(directory: Path, source: str) -> Path:
    host_json = {
        "version": "2.0",
        "extensions": {
            "http": {"routePrefix": "api/v1", "customHeaders": {"X-Everywhere": "yes"}},
            "eventHubs": {"maxEventBatchSize": 40, "prefetchCount": 200},
        },
    }
    (directory / "host.json").write_text(json.dumps(host_json))
    path = directory / "function_app.py"
    path.write_text(source)
    return path


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a hosted HTTP app."""
    host = Host(_write_app(tmp_path, HTTP_APP))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=host), base_url="http://host/api/v1") as client:
        yield client


class Running:
    """A hosted event app and what it saw."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._module = sys.modules["function_app"]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """One entry per event the function was given."""
        return self._module.CALLS

    @property
    def timers(self) -> list[float]:
        """Times of the scheduled timer's calls."""
        return self._module.TIMERS

    @property
    def starts(self) -> list[float]:
        """Times of the calls of the timer that runs at the start."""
        return self._module.STARTS

    def fail(self, times: int) -> None:
        """Make the next calls raise."""
        self._module.FAILURES["left"] = times

    @property
    def failures_left(self) -> int:
        """Failures not used up yet."""
        return int(self._module.FAILURES["left"])


@asynccontextmanager
async def _hosted(path: Path, env: dict[str, str]) -> AsyncIterator[Running]:
    host = Host(path, env)
    host.start()
    try:
        yield Running(host)
    finally:
        await host.stop()


@pytest.fixture
def env(hub: EmbeddedHub, hub_name: str, azurite: Azurite) -> dict[str, str]:
    """Settings of the event app."""
    return {
        "TEST_HUB": hub_name,
        "TEST_EVENT_HUBS": hub.connection_string(),
        "AzureWebJobsStorage": azurite.connection_string,
    }


@pytest.fixture
async def producer(hub: EmbeddedHub, hub_name: str) -> AsyncIterator[EventHubProducerClient]:
    """An open producer of the test's hub."""
    async with EventHubProducerClient.from_connection_string(hub.connection_string(hub_name)) as client:
        yield client


async def test_routes_parameters_and_headers(http: httpx.AsyncClient) -> None:
    """Route and query parameters arrive; answers carry the app's and host.json's headers."""
    answer = await http.get("/teams/a%20b/cost/11?x=1&y=&x=2")
    assert answer.status_code == 200
    assert answer.json() == {
        "route": {"team": "a b", "month": "11"},
        "query": {"x": "1,2", "y": ""},
        "url": "http://host/api/v1/teams/a b/cost/11?x=1&y=&x=2",
        "name": "cost",
    }
    assert (answer.headers["x-own"], answer.headers["x-everywhere"]) == ("1", "yes")
    assert answer.headers["content-type"].startswith("application/json")


async def test_a_fixed_route_wins_and_functions_may_be_synchronous(http: httpx.AsyncClient) -> None:
    """`teams/all/cost` is not taken by `teams/{team}/cost`; a plain function returning text works."""
    assert (await http.get("/teams/all/cost")).text == "all"


async def test_bodies_pass_through(http: httpx.AsyncClient) -> None:
    """Any bytes come in and go out, with the status and type the function chose."""
    answer = await http.post("/echo", content=b"\x00\xff", headers={"content-type": "application/x-test"})
    assert (answer.status_code, answer.content) == (201, b"\x00\xff")
    assert answer.headers["content-type"].startswith("application/x-test")


async def test_failures_and_unknown_routes(http: httpx.AsyncClient) -> None:
    """A function that raises gives 500 without its message; what matches no route and method gives 404."""
    broken = await http.get("/broken")
    assert (broken.status_code, broken.content) == (500, b"")
    assert (await http.get("/nothing")).status_code == 404
    assert (await http.get("/echo")).status_code == 404


async def test_events_reach_the_function_quickly_and_whole(
    tmp_path: Path, env: dict[str, str], hub: EmbeddedHub, producer: EventHubProducerClient
) -> None:
    """Single events arrive within 0.3 s; bursts in batches no larger than host.json allows, in order per partition."""
    async with _hosted(_write_app(tmp_path, EVENT_APP.replace("RETRY", UNLIMITED)), env) as app:
        await producer.send_event(EventData("warm"), partition_id="0")
        await _until(lambda: len(app.calls) == 1)
        latencies = []
        for number in range(5):
            sent = time.time()
            await producer.send_event(EventData(f"single {number}"), partition_id="0")
            await _until(lambda wanted=number + 2: len(app.calls) == wanted)  # type: ignore[misc]
            latencies.append(app.calls[-1]["at"] - sent)
        assert sorted(latencies)[2] < 0.3
        await producer.send_batch([EventData(f"{number}") for number in range(100)], partition_key="team-1")
        await _until(lambda: len(app.calls) == 106)
        burst = app.calls[6:]
        assert [call["body"] for call in burst] == [str(number) for number in range(100)]
        assert max(call["batch"] for call in burst) == 40
        assert {call["key"] for call in burst} == {"team-1"}
        assert {call["namespace"] for call in burst} == {hub.namespace}
        assert [call["sequence"] for call in burst] == list(range(burst[0]["sequence"], burst[0]["sequence"] + 100))
        assert burst[0]["enqueued"].tzinfo is not None


async def test_unlimited_retries_keep_the_batch(
    tmp_path: Path, env: dict[str, str], producer: EventHubProducerClient
) -> None:
    """While the store is away the same batch is tried again and again, and nothing is lost or passed over."""
    async with _hosted(_write_app(tmp_path, EVENT_APP.replace("RETRY", UNLIMITED)), env) as app:
        app.fail(6)
        await producer.send_batch([EventData("a"), EventData("b")], partition_id="1")
        await _until(lambda: len(app.calls) == 2)
        await producer.send_event(EventData("c"), partition_id="1")
        await _until(lambda: len(app.calls) == 3)
        assert [(call["body"], call["retry"]) for call in app.calls] == [("a", 6), ("b", 6), ("c", 0)]


async def test_exhausted_retries_lose_the_batch_as_on_azure(
    tmp_path: Path, env: dict[str, str], producer: EventHubProducerClient
) -> None:
    """With a limit, the checkpoint moves past a batch that failed to the end: the reason ingest has no limit."""
    path = _write_app(tmp_path, EVENT_APP.replace("RETRY", ONCE_MORE))
    async with _hosted(path, env) as app:
        app.fail(2)
        await producer.send_event(EventData("lost"), partition_id="1")
        await _until(lambda: app.failures_left == 0)
        await producer.send_event(EventData("kept"), partition_id="1")
        await _until(lambda: len(app.calls) == 1)
    async with _hosted(path, env) as app:
        await producer.send_event(EventData("later"), partition_id="1")
        await _until(lambda: bool(app.calls))
        assert [call["body"] for call in app.calls] == ["later"]


async def test_a_stopped_host_resumes_after_its_last_batch(
    tmp_path: Path, env: dict[str, str], producer: EventHubProducerClient, azurite: Azurite, hub_name: str
) -> None:
    """Checkpoints are blobs of the container Azure uses; the next host starts behind them at once."""
    path = _write_app(tmp_path, EVENT_APP.replace("RETRY", UNLIMITED))
    async with _hosted(path, env) as app:
        await producer.send_batch([EventData("a"), EventData("b")], partition_id="0")
        await _until(lambda: len(app.calls) == 2)
    async with ContainerClient.from_connection_string(azurite.connection_string, CHECKPOINT_CONTAINER) as container:
        names = [blob.name async for blob in container.list_blobs()]
    assert any(f"/{hub_name}/$default/checkpoint/0" in name for name in names)
    await producer.send_event(EventData("c"), partition_id="0")
    async with _hosted(path, env) as app:
        await _until(lambda: bool(app.calls))
        await asyncio.sleep(0.3)
        assert [call["body"] for call in app.calls] == ["c"]


async def test_the_trigger_survives_lost_connections(
    tmp_path: Path, env: dict[str, str], hub: EmbeddedHub, producer: EventHubProducerClient
) -> None:
    """After the hub dropped every connection, events go on arriving without a restart."""
    async with _hosted(_write_app(tmp_path, EVENT_APP.replace("RETRY", UNLIMITED)), env) as app:
        await producer.send_event(EventData("before"), partition_id="0")
        await _until(lambda: len(app.calls) == 1)
        hub.abort_connections()
        await producer.send_event(EventData("after"), partition_id="0")
        await _until(lambda: any(call["body"] == "after" for call in app.calls))


async def test_a_hub_created_again_is_read_once_its_old_checkpoints_are_gone(
    tmp_path: Path,
    env: dict[str, str],
    hub: EmbeddedHub,
    hub_name: str,
    producer: EventHubProducerClient,
    azurite: Azurite,
) -> None:
    """As on Azure the trigger refuses to guess: it stands still until an operator deletes the checkpoint blobs."""
    async with _hosted(_write_app(tmp_path, EVENT_APP.replace("RETRY", UNLIMITED)), env) as app:
        await producer.send_batch([EventData(f"old {n}") for n in range(5)], partition_id="0")
        await _until(lambda: len(app.calls) == 5)
        async with ContainerClient.from_connection_string(azurite.connection_string, CHECKPOINT_CONTAINER) as container:
            while await _checkpoint(container, hub_name) != "4":  # noqa: ASYNC110 - written after the call
                await asyncio.sleep(0.01)
        hub.recreate_hub(hub_name)
        await producer.send_event(EventData("new"), partition_id="0")
        await asyncio.sleep(2.5)
        assert len(app.calls) == 5
        async with ContainerClient.from_connection_string(azurite.connection_string, CHECKPOINT_CONTAINER) as container:
            async for blob in container.list_blobs():
                if f"/{hub_name}/$default/checkpoint/" in blob.name:
                    await container.delete_blob(blob.name)
        await _until(lambda: len(app.calls) == 6)
        assert (app.calls[-1]["body"], app.calls[-1]["sequence"]) == ("new", 0)


async def test_timers_fire_at_start_and_on_schedule(tmp_path: Path, env: dict[str, str]) -> None:
    """run_on_startup calls at once, whenever the schedule's turn is; the other one comes every second on the second."""
    async with _hosted(_write_app(tmp_path, EVENT_APP.replace("RETRY", "")), env) as app:
        await _until(lambda: sum(at % 1 < 0.1 for at in app.timers) >= 3)
        assert len({int(at) for at in app.timers}) == len(app.timers)
        assert len(app.starts) == 1


def test_missing_settings_are_named(tmp_path: Path) -> None:
    """An app whose trigger names a setting that is not there is refused with its name."""
    with pytest.raises(AppError, match="the setting TEST_HUB is not in the environment"):
        Host(_write_app(tmp_path, EVENT_APP.replace("RETRY", "")), {})


def test_unsupported_bindings_are_refused(tmp_path: Path) -> None:
    """An app that needs what this host lacks fails when it is loaded."""
    source = """
import azure.functions as func
app = func.FunctionApp()
@app.queue_trigger(arg_name="msg", queue_name="q", connection="C")
def work(msg: func.QueueMessage) -> None: ...
"""
    with pytest.raises(AppError, match="work: this host has no queueTrigger binding"):
        Host(_write_app(tmp_path, source))


def test_annotations_that_azures_worker_refuses_are_refused_here(tmp_path: Path) -> None:
    """`list[...]` on a trigger keeps a deployed app from loading at all, so it must not work on the laptop."""
    source = EVENT_APP.replace("RETRY", "").replace("typing.List[", "list[")
    with pytest.raises(AppError, match=r"ingest: Azure's worker refuses list\[azure.functions.*typing\.List"):
        Host(_write_app(tmp_path, source), {})


async def test_the_host_runs_as_a_process(tmp_path: Path) -> None:
    """`python -m local.functions_host` serves on loopback and ends on SIGTERM."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "local.functions_host",
        "--app",
        _write_app(tmp_path, HTTP_APP),
        "--port",
        str(port),
    ]
    process = Process("functions", command, cwd=ROOT, log_path=tmp_path / "log.txt")
    process.wait_until(lambda: is_listening(port))
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/api/v1/teams/all/cost")).text == "all"
    process.stop()
    assert process.exit_code is not None
    assert "Traceback" not in process.log_tail()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_it_listens_on_loopback_only(address: str) -> None:
    """Any address that others could reach is refused: nothing in front of this host asks who they are."""
    command = [sys.executable, "-m", "local.functions_host", "--host", address]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False)
    assert answer.returncode == 2
    assert "is not loopback" in answer.stderr


async def _until(condition: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        await asyncio.sleep(0.01)


async def _checkpoint(container: ContainerClient, hub_name: str) -> str | None:
    """The sequence number of the last event that the trigger has done with in partition 0."""
    async for blob in container.list_blobs(include=["metadata"]):
        if blob.name.endswith(f"/{hub_name}/$default/checkpoint/0"):
            return str(blob.metadata["sequencenumber"])
    return None
