"""The doors that nobody calls: the hub's batches and the clock."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest
from azure.functions import meta
from azure.functions.eventhub import EventHubTriggerConverter
from azure.functions.timer import TimerRequest
from door_fakes import Doors, Recorder

from shared.ledger.row import Position
from shared.reports.formats import ASKED, FORMATS

ENQUEUED = "2026-11-21T10:00:00.1234567Z"
CONTEXT = {
    "FullyQualifiedNamespace": "ns.servicebus.windows.net",
    "EventHubName": "usage",
    "ConsumerGroup": "$Default",
    "PartitionId": "3",
}


def batch(bodies: list[bytes], context: dict[str, str] | None = CONTEXT) -> list[func.EventHubEvent]:
    """What the host hands over, decoded by azure-functions itself."""
    system = [
        {
            "SequenceNumber": 40 + i,
            "Offset": "0",
            "PartitionKey": None,
            "EnqueuedTimeUtc": ENQUEUED,
        }
        for i in range(len(bodies))
    ]
    metadata: dict[str, Any] = {"SystemPropertiesArray": meta.Datum(type="json", value=json.dumps(system))}
    if context is not None:
        metadata["PartitionContext"] = meta.Datum(type="json", value=json.dumps(context))
    data = meta.Datum(type="collection_bytes", value=SimpleNamespace(bytes=bodies))
    events = EventHubTriggerConverter.decode(data, trigger_metadata=metadata)
    assert isinstance(events, list)
    return events


@pytest.mark.parametrize("name", ["ingest", "llm_logs"])
async def test_batch_reaches_its_service_with_bytes_and_positions(
    doors: Doors, services: SimpleNamespace, name: str
) -> None:
    """Bodies go on byte for byte, with stream, enqueued time to the millisecond, and sequence number."""
    await doors.functions[name].get_user_function()(batch([b'{"a":1}', b"\xff not json"]))
    ((deliveries,), _) = getattr(services, name).run.calls[0]
    enqueued_ms = (datetime(2026, 11, 21, 10, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    stream = "ns.servicebus.windows.net/usage/3"
    assert [tuple(each) for each in deliveries] == [
        (b'{"a":1}', Position(stream, int(enqueued_ms) + 123, 40)),
        (b"\xff not json", Position(stream, int(enqueued_ms) + 123, 41)),
    ]


@pytest.mark.parametrize("name", ["ingest", "llm_logs"])
async def test_failed_batch_is_raised_to_the_host(doors: Doors, services: SimpleNamespace, name: str) -> None:
    """A swallowed failure would let the checkpoint pass money by."""
    getattr(services, name).run = Recorder(RuntimeError("the ledger is away"))
    with pytest.raises(RuntimeError, match="the ledger is away"):
        await doors.functions[name].get_user_function()(batch([b"{}"]))


async def test_batch_of_unknown_partition_is_refused(doors: Doors, services: SimpleNamespace) -> None:
    """Marks hang on the stream's name; without it a redelivery could not be told from a new event."""
    with pytest.raises(KeyError):
        await doors.functions["ingest"].get_user_function()(batch([b"{}"], context=None))
    assert services.ingest.run.calls == []


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("repair", "repair.run"),
        ("reconcile", "repair.reconcile_all"),
        ("rollup", "rollups.run"),
        ("retention", "retention.run"),
        ("close_months", "close_months.run"),
        ("log_budgets", "standing_log.run"),
        ("sweep_streams", "stream_sweep.run"),
        ("deliver_notices", "delivery.run"),
        ("notice_dead_letters", "dead_letter_notices.run"),
        ("weekly_digest", "digest.run"),
        ("find_anomalies", "anomalies.notify"),
        ("reconcile_invoice", "reconciliation.run_due"),
        ("re_rate_unpriced", "re_rate.run"),
        ("export_ledger", "ledger_export.run"),
    ],
)
async def test_timer_runs_its_job_and_raises_its_failure(
    doors: Doors, services: SimpleNamespace, name: str, service: str
) -> None:
    """Each timer runs one job; its failure reaches the host, which logs it and counts it."""
    part, method = service.split(".")
    timer = TimerRequest(past_due=False, schedule_status={}, schedule={})
    await doors.functions[name].get_user_function()(timer)
    assert len(getattr(getattr(services, part), method).calls) == 1
    setattr(services, part, SimpleNamespace(**{method: Recorder(OSError("away"))}))
    with pytest.raises(OSError, match="away"):
        await doors.functions[name].get_user_function()(timer)


async def test_nightly_timer_writes_statements(doors: Doors, services: SimpleNamespace) -> None:
    """Every form of both months for every tenant, each month behind a manifest."""
    timer = TimerRequest(past_due=True, schedule_status={}, schedule={})
    await doors.functions["statements"].get_user_function()(timer)
    names = [name.rsplit("/", 1)[1] for name in services.files.files]
    assert Counter(names) == dict.fromkeys({"manifest.json", *(FORMATS[each].file_name for each in ASKED)}, 3 * 2)


def test_schedules_are_six_field_cron(doors: Doors) -> None:
    """Repair every ten seconds, rollups every five minutes, budgets every 15, reconciling hourly, the rest nightly."""
    timers = {
        name: each.get_trigger() for name, each in doors.functions.items() if each.get_trigger().type == "timerTrigger"
    }
    assert {name: each.schedule for name, each in timers.items()} == {
        "repair": "*/10 * * * * *",
        "reconcile": "0 20 * * * *",
        "rollup": "0 */5 * * * *",
        "log_budgets": "45 */15 * * * *",
        "sweep_streams": "30 */5 * * * *",
        "deliver_notices": "*/30 * * * * *",
        "notice_dead_letters": "20 */5 * * * *",
        "weekly_digest": "0 0 7 * * 1",
        "statements": "0 10 2 * * *",
        "retention": "0 40 3 * * *",
        "close_months": "0 30 5 * * *",
        "find_anomalies": "0 25 3 * * *",
        "reconcile_invoice": "0 50 4 * * *",
        "re_rate_unpriced": "0 35 * * * *",
        "export_ledger": "0 5 4 * * *",
    }
    assert timers["repair"].run_on_startup
