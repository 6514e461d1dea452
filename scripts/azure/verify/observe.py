"""Makes the calls and waits for what they leave behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from scripts.azure.arm import Arm
from scripts.azure.verify.calls import Call, Caller
from scripts.azure.verify.errors import CannotRunError
from scripts.azure.verify.hubs import LLM_LOGS, USAGE, Hubs, Message
from scripts.azure.verify.ledger import ReadRows
from scripts.azure.verify.points_log import BILLED, LOGGED, judge_billing
from scripts.azure.verify.probe import Probe, Source
from scripts.azure.verify.resources import read_documents, read_log_settings
from scripts.azure.verify.seen import LONG_AGO, Event, Record, Seen, get, json_object

Say = Callable[[str], None]
_MOST_STRANGERS = 1000
_EXPECTED = (200, 411)  # 411 is a finding of its own; with any other answer there is nothing to look at


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    events: float = 120
    log: float = 900
    late_records: float = 20  # for records that need not come
    ledger: float = 300
    poll: float = 2
    progress: float = 15
    change: float = 240  # until a changed named value has reached the gateway
    change_poll: float = 10
    keyless: float = 300  # until connections that a key opened are gone: nothing tells when they are


@dataclass
class System:
    """A live system: the ways in which it is called and read."""

    caller: Caller
    calls: Mapping[str, Call]
    hubs: Hubs
    arm: Arm
    read_rows: ReadRows
    gateway_id: str
    namespace_id: str  # of the LLM log
    subscription: str
    word: str  # that our prompts carry
    scope_type: str | None
    token: Callable[[str], str]  # an Entra token of an audience
    patience: Patience = field(default_factory=Patience)
    say: Say = lambda text: None


class Observer:
    """One run: what it sees adds up in `seen`."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.seen = Seen(scope_type=system.scope_type)

    def look(self, probes: Sequence[Probe]) -> Seen:
        """Make the calls that the probes need, once each, and wait for what they need of them."""
        names = [name for name in self.system.calls if any(name in probe.calls for probe in probes)]
        sources: set[Source] = {source for probe in probes for source in probe.reads}
        if "documents" in sources:
            self.seen.documents = read_documents(self.system.arm, self.system.gateway_id)
        if "settings" in sources:
            self.seen.settings = read_log_settings(self.system.arm, self.system.gateway_id, self.system.namespace_id)
        for name in names:
            self.call(name)
        if "events" in sources:
            self._wait("usage events", self.system.patience.events, lambda: self._without_event(names))
        if "log" in sources:
            began = time.monotonic()
            self._wait("LLM log", self.system.patience.log, lambda: self._without_tokens(names))
            if "refused stream" in names:
                time.sleep(self.system.patience.late_records)
                self.take_in()
            self.seen.waited_seconds = time.monotonic() - began
        if "ledger" in sources:
            self._wait("ledger", self.system.patience.ledger, self._unbilled)
        return self.seen

    def call(self, name: str) -> None:
        """Make one call. Raises CannotRunError when a plain one is refused."""
        answer = self.seen.answers[name] = self.system.caller.ask(self.system.calls[name])
        self.system.say(f"{name}: {answer.told()}")
        if name == "whole" and answer.status not in _EXPECTED:
            raise CannotRunError(f"a plain call is not served: {answer.told()} {answer.error_message}".strip())

    def wait_for_event(self, name: str) -> list[Event]:
        """The events of a call once there is one, or none in time."""
        self._wait(f"event of {name}", self.system.patience.events, lambda: [] if self.seen.events_of(name) else [name])
        return self.seen.events_of(name)

    def wait_for_record(self, name: str) -> list[Record]:
        """The LLM log's records of a call once there is one, or none in time."""
        self._wait(f"record of {name}", self.system.patience.log, lambda: [] if self.seen.records_of(name) else [name])
        return self.seen.records_of(name)

    def take_in(self) -> None:
        """Look at what has arrived on the hubs since the last time."""
        ids = {answer.request_id for answer in self.seen.answers.values()} - {""}
        since = min((answer.started for answer in self.seen.answers.values()), default=datetime.now(UTC))
        for message in self.system.hubs.messages():
            if message.hub == USAGE:
                self.seen.events += [event for event in _events(message) if event.id.lower() in ids]
            elif message.hub == LLM_LOGS:
                self._take_records(message, ids, since)

    def _take_records(self, message: Message, ids: set[str], since: datetime) -> None:
        if self.system.word.encode() in message.body:
            self.seen.prompt_in_log = True
        for record in _records(message):
            if record.correlation_id in ids:
                self.seen.records.append(record)
            elif record.is_llm and _time(record) >= since and len(self.seen.strangers) < _MOST_STRANGERS:
                self.seen.strangers.append(record.correlation_id)

    def _wait(self, what: str, seconds: float, missing: Callable[[], list[str]]) -> None:
        """Until nothing is missing or the time is over, telling now and then what it is waiting for."""
        patience = self.system.patience
        began = told = time.monotonic()
        while True:
            self.take_in()
            left = missing()
            now = time.monotonic()
            if not left or now - began >= seconds:
                if left:
                    self.system.say(f"{what}: nothing of {', '.join(left)} after {now - began:.0f} s")
                return
            if now - told >= patience.progress:
                told = now
                self.system.say(f"{what}: waiting for {', '.join(left)}, {now - began:.0f} of at most {seconds:.0f} s")
            time.sleep(patience.poll)

    def _without_event(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._was_answered(name) and not self.seen.events_of(name)]

    def _without_tokens(self, names: Iterable[str]) -> list[str]:
        served = self.seen.served(tuple(name for name in names if name in LOGGED))
        return [name for name in served if not any(record.tokens for record in self.seen.records_of(name))]

    def _was_answered(self, name: str) -> bool:
        """By the model: the gateway reports such a call."""
        return self.seen.answers[name].status == 200 or (
            name == "refused stream" and self.seen.answers[name].status == 400
        )

    def _unbilled(self) -> list[str]:
        """What is not as it should be; read anew each time."""
        from azure.core.exceptions import AzureError

        names = [name for name in BILLED if name in self.seen.answers]
        answers = [self.seen.answers[name] for name in names]
        times = [answer.started for answer in answers] + [answer.ended for answer in answers]
        try:
            self.seen.rows = self.system.read_rows(
                (answer.request_id for answer in answers if answer.request_id), times
            )
        except AzureError as error:
            self.seen.rows_problem = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            return []
        verdict = judge_billing(self.seen)
        return [verdict.seen] if verdict.word == "differs" else []


def _events(message: Message) -> list[Event]:
    members = json_object(message.body)
    if not isinstance(members.get("data"), dict):
        return []
    event_id, time_text = str(members.get("id", "")), str(members.get("time", ""))
    return [Event(event_id, time_text, members["data"], message.enqueued)]


def _records(message: Message) -> list[Record]:
    found = get(json_object(message.body), "records")
    return [Record(each, message.enqueued) for each in found or [] if isinstance(each, dict)]


def _time(record: Record) -> datetime:
    """When the gateway wrote it; long ago when it does not say so readably."""
    try:
        return datetime.fromisoformat(str(get(record.members, "time"))).astimezone(UTC)
    except ValueError:
        return LONG_AGO
