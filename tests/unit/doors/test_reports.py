"""Statements and their files."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from door_fakes import FakeLedger, fake_reports

from shared.errors import InvalidRequest
from shared.ledger.deadletters import DeadLetter
from shared.ledger.replay import ReplayService
from shared.ledger.rollup import RollupCell
from shared.ledger.row import Position
from shared.months import month_before, month_span
from shared.reports.building import status_of
from shared.reports.files_json import document
from shared.settings import Settings
from tests.support.reports import MemoryFiles

NOW = datetime(2026, 12, 3, 2, 10, tzinfo=UTC)


def booked(period: str, quarter_utc: datetime, cost: int) -> RollupCell:
    """A quarter hour's use by team search, booked into a month."""
    return RollupCell(
        tenant="contoso",
        quarter_utc=quarter_utc,
        scopes={"team": "search"},
        model="gpt-4o",
        booked_period=period,
        requests=1,
        tokens={"input": 1},
        cost_nano_usd=cost,
    )


def test_month_spans_from_first_instant_to_first_instant() -> None:
    """Ends are exclusive, December runs into the next year."""
    assert month_span("2026-12") == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert (month_before("2026-01"), month_before("2026-12")) == ("2025-12", "2026-11")


@pytest.mark.parametrize("period", ["2026-00", "2026-13", "26-01", "2026-1", "٢٠٢٦-01", ""])
def test_what_is_no_month_is_refused(period: str) -> None:
    """InvalidRequest naming the parameter."""
    with pytest.raises(InvalidRequest) as caught:
        month_span(period)
    assert caught.value.param == "period"


def test_only_closing_makes_a_statement_final() -> None:
    """A late event can change a month that is merely over, so it is not called final."""
    assert status_of("2026-12", NOW, closed=False) == "draft"
    assert status_of("2026-11", NOW, closed=False) == "provisional"
    assert status_of("2026-11", NOW, closed=True) == "final"


async def test_nightly_files_are_deterministic() -> None:
    """Running the job again writes the same names with the same bytes: nothing is added, nothing drifts."""
    ledger = FakeLedger([booked("2026-11", NOW - timedelta(days=5), 7), booked("2026-12", NOW - timedelta(days=1), 11)])
    first, second = MemoryFiles(), MemoryFiles()
    names = await fake_reports(ledger, first).publish_statements(NOW)
    await fake_reports(ledger, second).publish_statements(NOW)
    assert first.files == second.files
    assert [name for name in names if name.startswith("contoso/")] == [
        "contoso/2026-11/manifest.json",
        "contoso/2026-12/manifest.json",
    ]
    manifest = json.loads(first.files["contoso/2026-11/manifest.json"][0])
    assert (manifest["status"], manifest["total"], manifest["ledger_cost"]) == (
        "provisional",
        "0.000000007",
        "0.000000007",
    )
    assert [team["team"] for team in manifest["teams"]] == ["search"]
    for file in manifest["files"]:
        body, media_type = first.files[f"contoso/2026-11/{manifest['digest']}/{file['path']}"]
        assert (hashlib.sha256(body).hexdigest(), len(body), media_type) == (
            file["sha256"],
            file["bytes"],
            file["media_type"],
        )


async def test_late_rows_of_a_closed_month_are_carried_by_the_open_one() -> None:
    """November is closed; a late November row booked into December is on December's statement and on no other."""
    late = booked("2026-12", datetime(2026, 11, 30, 23, 45, tzinfo=UTC), 100)
    ledger = FakeLedger([late, booked("2026-11", datetime(2026, 11, 2, tzinfo=UTC), 7), booked("2026-12", NOW, 11)])
    reports = fake_reports(ledger, MemoryFiles(), frozen=["2026-11"])
    november = await reports.statement("contoso", "2026-11", None, NOW)
    december = await reports.statement("contoso", "2026-12", None, NOW)
    assert (november.status, november.totals.cost_nano_usd) == ("final", 7)
    assert december.totals.cost_nano_usd == 100 + 11


async def test_statement_sums_are_exact_over_many_lines() -> None:
    """A thousand amounts that no float could add sum to the nano-dollar."""
    ledger = FakeLedger([booked("2026-12", NOW - timedelta(minutes=i), 10**15 + i) for i in range(1000)])
    statement = await fake_reports(ledger, MemoryFiles()).statement("contoso", "2026-12", None, NOW)
    assert statement.totals.cost_nano_usd == 1000 * 10**15 + sum(range(1000))
    assert document(statement)["totals"]["cost"] == "1000000000.0004995"


@pytest.mark.parametrize(("age_minutes", "part"), [(15 + 29, "estimated"), (15 + 30, "missing")])
async def test_an_estimate_in_a_statement_ages(age_minutes: int, part: str) -> None:
    """While its log record may come a stream's cost is estimated, from the end of the wait on it is missing."""
    estimate = booked("2026-12", NOW - timedelta(minutes=age_minutes), 3)
    estimate.measured = False
    reports = fake_reports(FakeLedger([booked("2026-12", NOW, 9), estimate]), MemoryFiles())
    statement = await reports.statement("contoso", "2026-12", None, NOW)
    for usage in (statement.totals, statement.of_teams(["search"]).totals, statement.lines[0].usage):
        body = usage.coverage.body()
        assert (body["measured_cost"], body[f"{part}_cost"]) == ("0.000000009", "0.000000003")
        assert (body["measured_share"], body[f"{part}_share"]) == ("0.7500", "0.2500")


class Letters:
    """Dead letters, held in a list."""

    def __init__(self, letters: list[DeadLetter]) -> None:
        self.letters = letters
        self.replayed: list[tuple[list[str], str]] = []

    async def take(self, ids: list[str]) -> list[DeadLetter]:
        return [letter for letter in self.letters if letter.id in ids]

    async def mark_replayed(self, ids: list[str], who: str) -> None:
        self.replayed.append((list(ids), who))


def replay(store: Any, publish: Any, publish_logs: Any = None) -> ReplayService:
    """The service over these; without a hub for log records nobody may publish one."""
    return ReplayService(store, publish, publish_logs, Settings().is_llm_log_stream)


async def test_replay_publishes_bytes_unchanged_then_notes_who() -> None:
    """Readable or not, a letter goes back byte for byte; ids that are not there are reported."""
    event = b'{"source":"s","id":"i"}'
    store = Letters([DeadLetter("hub-1", "id_conflict", "m", event), DeadLetter("hub-2", "invalid_json", "m", b"{")])
    sent: list[tuple[str, bytes]] = []

    async def publish(bodies: list[tuple[str, bytes]]) -> None:
        sent.extend(bodies)

    report = await replay(store, publish).run(["hub-1", "hub-2", "hub-3", "hub-3"], "grace")
    assert [body for _, body in sent] == [event, b"{"]
    assert report == (2, ["hub-3"])
    assert store.replayed == [(["hub-1", "hub-2"], "grace")]


async def test_letters_of_the_llm_log_go_back_to_its_hub() -> None:
    """On the usage hub a log record would only become a dead letter again. The letter's stream says where it came
    from; names of hubs have no letter case."""
    record = b'{"records": []}'
    places = {"hub-1": "ns/usage/0", "hub-2": "ns/LLM-Logs/1", "hub-3": None}
    letters = [
        DeadLetter(id_, "c", "m", record, position=None if stream is None else Position(stream, 1, 1))
        for id_, stream in places.items()
    ]
    sent: dict[str, list[str]] = {"usage": [], "logs": []}

    async def publish(bodies: list[tuple[str, bytes]]) -> None:
        sent["usage"] += [key for key, _ in bodies]

    async def publish_logs(bodies: list[tuple[str, bytes]]) -> None:
        sent["logs"] += [key for key, _ in bodies]

    await replay(Letters(letters), publish, publish_logs).run(list(places), "grace")
    assert sent == {"usage": ["hub-1", "hub-3"], "logs": ["hub-2"]}


async def test_failed_replay_is_not_noted() -> None:
    """When the hub does not take the letters they are not marked, so nobody believes they went out."""
    store = Letters([DeadLetter("hub-1", "id_conflict", "m", b"{}")])

    async def publish(bodies: list[tuple[str, bytes]]) -> None:
        raise ConnectionError("the hub is away")

    with pytest.raises(ConnectionError):
        await replay(store, publish).run(["hub-1"], "grace")
    assert store.replayed == []
