"""What was seen of a live system: the facts that verdicts are pure functions of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from shared.ledger.row import LedgerRow
from shared.usage.llm_log import LLM_LOGS

LONG_AGO = datetime.min.replace(tzinfo=UTC)
_BURST_SECONDS = 0.02  # what arrives closer together than this came together


class Piece(NamedTuple):
    """Bytes of an answer and when they arrived, in seconds since the call began."""

    at: float
    size: int


@dataclass(frozen=True)
class Answer:
    """What a call got. `status` 0: no answer, for the reason in `failure`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    pieces: tuple[Piece, ...] = ()
    started: datetime = LONG_AGO
    ended: datetime = LONG_AGO
    http_version: str = ""
    failure: str = ""

    @property
    def request_id(self) -> str:
        """The gateway's id of the call, in small letters; empty when the answer carries none."""
        return self.headers.get("x-request-id", "").lower()

    @property
    def content(self) -> dict[str, Any]:
        """The body as a JSON object; empty when it is none."""
        return json_object(self.body)

    @property
    def error_code(self) -> str:
        """The code in OpenAI's error shape; empty when the body has another."""
        return str(self._error.get("code") or "")

    @property
    def error_message(self) -> str:
        """The message beside it."""
        return str(self._error.get("message") or "")

    @property
    def _error(self) -> dict[str, Any]:
        error = self.content.get("error")
        return error if isinstance(error, dict) else {}

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON objects of an event stream."""
        found = (json_object(line[5:]) for line in self.body.splitlines() if line.startswith("data:"))
        return [each for each in found if each]

    @property
    def bursts(self) -> list[int]:
        """Bytes that arrived together, in order."""
        bursts: list[int] = []
        last = float("-inf")
        for piece in self.pieces:
            if piece.at - last > _BURST_SECONDS:
                bursts.append(0)
            bursts[-1] += piece.size
            last = piece.at
        return bursts

    def told(self) -> str:
        """Status and code, for people."""
        return self.failure or f"{self.status} {self.error_code}".strip()


class Event(NamedTuple):
    """A usage event on the hub."""

    id: str
    time: str
    data: Mapping[str, Any]
    enqueued: datetime


class Record(NamedTuple):
    """A record of the LLM log hub, spelt as it came."""

    members: Mapping[str, Any]
    enqueued: datetime

    @property
    def properties(self) -> Mapping[str, Any]:
        """Its `properties`, whatever their spelling."""
        found = get(self.members, "properties")
        return found if isinstance(found, dict) else {}

    @property
    def correlation_id(self) -> str:
        """In small letters."""
        return str(get(self.members, "correlationId") or get(self.properties, "correlationId") or "").lower()

    @property
    def is_llm(self) -> bool:
        """Of the category that tells tokens."""
        return str(get(self.members, "category") or "").lower() == LLM_LOGS

    @property
    def tokens(self) -> int:
        """What it counts; most records of a call count nothing."""
        total = get(self.properties, "totalTokens") or 0
        return int(total) if str(total).isdigit() else 0


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that a text is in JSON; empty when it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def get(members: Mapping[str, Any], name: str) -> Any:
    """A member in any letter case; None when it is absent."""
    return next((value for key, value in members.items() if key.lower() == name.lower()), None)


@dataclass
class Documents:
    """What API Management holds of the policies. `problem`: why it could not be read."""

    policy: str = ""
    fragments: dict[str, str] = field(default_factory=dict)
    named_values: dict[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass
class LogSettings:
    """How the LLM log reaches its hub. `problem`: why it could not be read."""

    diagnostic_settings: list[dict[str, Any]] = field(default_factory=list)  # of API Management
    api_diagnostic: dict[str, Any] = field(default_factory=dict)  # of the API: what it logs of calls to models
    local_auth_disabled: bool | None = None  # of the hub's namespace
    problem: str = ""


@dataclass
class Seen:
    """Everything that was seen in one run."""

    answers: dict[str, Answer] = field(default_factory=dict)  # by the name of the call
    events: list[Event] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)  # of our calls only
    strangers: list[str] = field(default_factory=list)  # correlation ids of LLM records since our first call, not ours
    prompt_in_log: bool = False  # whether any message of that hub holds the word that our prompts carry
    rows: list[LedgerRow] = field(default_factory=list)
    rows_problem: str = ""
    documents: Documents = field(default_factory=Documents)
    settings: LogSettings = field(default_factory=LogSettings)
    scope_type: str | None = None  # that the caller may name itself by header
    waited_seconds: float = 0.0  # for the LLM log

    def events_of(self, name: str) -> list[Event]:
        """The usage events of a call."""
        wanted = self._id(name)
        return [event for event in self.events if wanted and event.id.lower() == wanted]

    def records_of(self, name: str) -> list[Record]:
        """The LLM log's records of a call that are about tokens."""
        wanted = self._id(name)
        return [record for record in self.records if wanted and record.is_llm and record.correlation_id == wanted]

    def rows_of(self, name: str) -> list[LedgerRow]:
        """The ledger's rows of a call, under whatever source."""
        wanted = self._id(name)
        return [row for row in self.rows if wanted and row.id.lower().split("/")[0] == wanted]

    def served(self, names: tuple[str, ...]) -> Iterator[str]:
        """Those of the calls that the model answered well."""
        return (name for name in names if name in self.answers and self.answers[name].status == 200)

    def _id(self, name: str) -> str:
        answer = self.answers.get(name)
        return answer.request_id if answer else ""
