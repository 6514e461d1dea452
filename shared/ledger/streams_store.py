"""The halves of accrued calls in Table Storage: the call on one side, what the LLM log says of it on the other.

PartitionKey is a shard of the correlation id, RowKey starts with the id, so that one range read finds everything about
a call. Rows `due-<minute>` and `end-<minute>` lead the sweep to what has waited long enough, past all the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from shared.ledger.codec import INT64, Entity, integer
from shared.ledger.insert import PartitionWriter
from shared.ledger.inserted import RowRef
from shared.ledger.keys import row_key
from shared.ledger.row import LedgerRow
from shared.ledger.tables import TRANSACTION_ROWS, delete_rows
from shared.usage.events import UsageEvent
from shared.usage.llm_log import LogRecord

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

SHARDS = 16
MAX_REQUESTS_IN_FLIGHT = 16
BUCKET = timedelta(minutes=5)
_MANY, _PAGE = 4, 1_000
_READABLE = re.compile(r"[0-9a-z._-]{1,100}")  # else the key holds a hash: a slash is no part of a key


class StreamCall(NamedTuple):
    """An accrued call, and what its true-up needs beyond the ledger row."""

    correlation_id: str
    tenant: str
    source: str
    accrual_id: str
    time_utc: datetime
    attempt: int = 1
    needs_output: bool = True  # embeddings write none
    processing_tier: str = ""
    max_output_tokens: int | None = None
    aborted: bool = False  # by its gateway's own word

    @classmethod
    def of(cls, row: LedgerRow, event: UsageEvent) -> StreamCall:
        """The call of an accrual as it is stored."""
        return cls(
            event.correlation_id.lower(),
            row.tenant,
            row.source,
            row.id,
            row.time_utc,
            row.attempt,
            row.operation != "embeddings",
            event.data.processing_tier,
            event.data.max_output_tokens,
            event.data.aborted,
        )

    @property
    def ref(self) -> RowRef:
        """Where the accrual stands in the ledger."""
        return RowRef(self.source, self.accrual_id, self.time_utc)


class Match(msgspec.Struct):
    """The one true-up of a source's call, fixed when both halves first met: what it says never changes again."""

    call: StreamCall
    prompt_tokens: int
    completion_tokens: int
    published: bool = False


class Halves(msgspec.Struct):
    """All that is known of one correlation id."""

    correlation_id: str
    calls: list[StreamCall] = msgspec.field(default_factory=list)
    prompt_tokens: int | None = None  # the largest any record says
    completion_tokens: int | None = None
    logged: bool = False
    streamed: bool = False  # a record says that the answer was streamed
    aborted: bool = False
    matches: dict[str, Match] = msgspec.field(default_factory=dict)  # by source
    swept: bool = False  # was counted as unmeasured or unreported
    newest_utc: datetime = datetime.min.replace(tzinfo=UTC)  # when the last half came
    keys: list[tuple[str, str]] = msgspec.field(default_factory=list)


class StreamTable:
    """Reads and writes halves. Everything may be written again, by anybody, in any order."""

    def __init__(self, table: TableClient) -> None:
        self._table = table
        self._in_flight = asyncio.Semaphore(MAX_REQUESTS_IN_FLIGHT)
        self._writer = PartitionWriter(table, self._in_flight)

    async def add(self, calls: Sequence[StreamCall], records: Sequence[LogRecord], now_utc: datetime) -> None:
        """Keep halves. What leads the sweep to them is written first: a half without it would lie there for ever."""
        ids = {call.correlation_id for call in calls} | {record.correlation_id for record in records}
        await self._upsert(_lead("due", now_utc, correlation_id) for correlation_id in ids)
        since = {"since": now_utc.isoformat(timespec="seconds")}
        rows = [_call_row(call) | since for call in calls] + [_log_row(record) | since for record in records]
        await self._upsert(rows)

    async def read(self, correlation_ids: Iterable[str]) -> list[Halves]:
        """Everything about these calls."""
        shards: defaultdict[str, dict[str, Halves]] = defaultdict(dict)
        for correlation_id in correlation_ids:
            key = _key(correlation_id, "")
            shards[key["PartitionKey"]][key["RowKey"]] = Halves(correlation_id)
        await asyncio.gather(*(self._read_shard(shard, wanted) for shard, wanted in shards.items()))
        return [halves for wanted in shards.values() for halves in wanted.values()]

    async def claim(self, matches: Sequence[Match], now_utc: datetime) -> list[Match]:
        """Fix the true-up of each call, unless somebody did: returns the ones that stand."""
        since = {"since": now_utc.isoformat(timespec="seconds")}
        by_key = {_match_key(match.call)["RowKey"]: match for match in matches}
        chunks = _transactions(_match_row(match) | since for match in by_key.values())
        for there in await asyncio.gather(*(self._writer.insert(chunk) for chunk in chunks)):
            by_key |= {key: _match(entity) for key, entity in there.items()}
        return list(by_key.values())

    async def mark_published(self, matches: Iterable[Match]) -> None:
        """The true-ups are on the hub. Rows are written whole: one deleted meanwhile would hold only the mark."""
        await self._upsert(_match_row(match) | {"published": True} for match in matches)

    async def mark_swept(self, halves: Iterable[Halves]) -> None:
        """They were counted and noticed."""
        await self._upsert({**_key(each.correlation_id, "swept"), "swept": True} for each in halves)

    async def due(self, kind: str, before_utc: datetime, limit: int) -> list[tuple[tuple[str, str], str]]:
        """The oldest entries `due` or `end` of before this instant: (key of the entry, correlation id)."""
        condition = f"PartitionKey ge '{kind}-' and PartitionKey lt '{_bucket(kind, before_utc)}'"
        found: list[tuple[tuple[str, str], str]] = []
        async for entity in self._entities(condition):
            found.append(((entity["PartitionKey"], entity["RowKey"]), entity["correlation_id"]))
            if len(found) == limit:
                break
        return found

    async def keep_until(self, correlation_ids: Iterable[str], until_utc: datetime) -> None:
        """Lead the sweep to these calls again, to delete them then."""
        await self._upsert(_lead("end", until_utc, correlation_id) for correlation_id in correlation_ids)

    async def delete(self, keys: Iterable[tuple[str, str]]) -> None:
        """Delete rows; those already gone are fine."""
        await delete_rows(self._table, keys)

    async def _read_shard(self, shard: str, wanted: Mapping[str, Halves]) -> None:
        """Fill in the calls wanted of one shard, by what their rows' keys start with.

        Many are found by one page of the range from the first to the last; what lies beyond the page is then read call
        by call, so that the work depends on the batch and not on how many others wait.
        """
        names = sorted(wanted)
        if len(names) >= _MANY:
            async with self._in_flight:
                pages = self._table.query_entities(_range(shard, names[0], names[-1]), results_per_page=_PAGE).by_page()
                rows = [row async for row in await anext(pages)]
                more = pages.continuation_token is not None  # type: ignore[attr-defined]  # the SDK types it too loosely
            last = _name(rows[-1]) if rows else ""
            for row in rows:
                name = _name(row)
                if name in wanted and not (more and name >= last):  # the last one may go on behind the page
                    _add(wanted[name], row)
            names = [name for name in names if name >= last] if more else []
        await asyncio.gather(*(self._read_one(shard, name, wanted[name]) for name in names))

    async def _read_one(self, shard: str, name: str, halves: Halves) -> None:
        async with self._in_flight:
            async for entity in self._entities(_range(shard, name, name)):
                _add(halves, entity)

    async def _entities(self, condition: str) -> AsyncIterator[Mapping[str, Any]]:
        async for entity in self._table.query_entities(condition):
            yield entity

    async def _upsert(self, entities: Iterable[Entity]) -> None:
        """Merge: a half that comes again keeps what was noted on it."""

        async def submit(chunk: list[Entity]) -> None:
            async with self._in_flight:
                await self._table.submit_transaction([("upsert", entity, {"mode": "merge"}) for entity in chunk])

        await asyncio.gather(*(submit(chunk) for chunk in _transactions(entities)))


def _transactions(entities: Iterable[Entity]) -> list[list[Entity]]:
    """Entities in chunks of one partition each, every key once, sorted, so that a range read of a chunk is narrow."""
    partitions: defaultdict[str, dict[str, Entity]] = defaultdict(dict)
    for entity in entities:
        partitions[entity["PartitionKey"]][entity["RowKey"]] = entity
    return [
        [rows[key] for key in keys[start : start + TRANSACTION_ROWS]]
        for rows in partitions.values()
        for keys in [sorted(rows)]
        for start in range(0, len(keys), TRANSACTION_ROWS)
    ]


def _key(correlation_id: str, rest: str) -> dict[str, str]:
    name = correlation_id
    digest = blake2b(correlation_id.encode(), digest_size=16).hexdigest()
    if not _READABLE.fullmatch(name):
        name = f"~{digest}"
    return {"PartitionKey": f"{int(digest[:2], 16) % SHARDS:02d}", "RowKey": f"{name}|{rest}"}


def _range(shard: str, first: str, last: str) -> str:
    """All rows of the calls from the first to the last, both given with their `|`, which `}` follows."""
    return f"PartitionKey eq '{shard}' and RowKey ge '{first}' and RowKey lt '{last[:-1]}}}'"


def _name(row: Mapping[str, Any]) -> str:
    """What all rows of a call start with. Its `|` belongs to it, or `a-1` would not sort as its rows do behind `a`."""
    name, bar, _ = row["RowKey"].partition("|")
    return f"{name}{bar}"


def _bucket(kind: str, at_utc: datetime) -> str:
    seconds = int(BUCKET.total_seconds())
    start = datetime.fromtimestamp(int(at_utc.timestamp()) // seconds * seconds, UTC)
    return f"{kind}-{start:%Y%m%d%H%M}"


def _lead(kind: str, at_utc: datetime, correlation_id: str) -> Entity:
    key = _key(correlation_id, "")["RowKey"][:-1]
    return {"PartitionKey": _bucket(kind, at_utc), "RowKey": key, "correlation_id": correlation_id}


def _call_row(call: StreamCall) -> Entity:
    rest = f"call|{row_key(call.source, call.accrual_id)}"
    return {**_key(call.correlation_id, rest), "correlation_id": call.correlation_id, **_call_columns(call)}


def _call_columns(call: StreamCall) -> Entity:
    columns: Entity = {
        "tenant": call.tenant,
        "source": call.source,
        "accrual_id": call.accrual_id,
        "time": call.time_utc.astimezone(UTC).isoformat(timespec="microseconds"),
        "attempt": call.attempt,
        "needs_output": call.needs_output,
    }
    if call.processing_tier:
        columns["processing_tier"] = call.processing_tier
    if call.max_output_tokens is not None:
        columns["max_output_tokens"] = (call.max_output_tokens, INT64)
    if call.aborted:
        columns["aborted"] = True
    return columns


def _log_row(record: LogRecord) -> Entity:
    """The numbers are part of the key: records of one sequence number that contradict each other are all kept."""
    if record.aborted:
        return {**_key(record.correlation_id, "log|aborted"), "aborted": True}
    prompt, completion = record.prompt_tokens, record.completion_tokens
    rest = f"log|{record.sequence}-{prompt or 0}-{completion or 0}"
    row: Entity = {**_key(record.correlation_id, rest), "streamed": bool(record.streamed)}
    if prompt is not None:
        row["prompt_tokens"] = (prompt, INT64)
    if completion is not None:
        row["completion_tokens"] = (completion, INT64)
    return row


def _match_key(call: StreamCall) -> dict[str, str]:
    """One per source: else whoever may post usage could post an accrual under another's id and be measured instead."""
    return _key(call.correlation_id, f"match|{blake2b(call.source.encode(), digest_size=16).hexdigest()}")


def _match_row(match: Match) -> Entity:
    return {
        **_match_key(match.call),
        "correlation_id": match.call.correlation_id,
        **_call_columns(match.call),
        "prompt_tokens": (match.prompt_tokens, INT64),
        "completion_tokens": (match.completion_tokens, INT64),
        "published": match.published,
    }


def _match(entity: Mapping[str, Any]) -> Match:
    prompt, completion = integer(entity["prompt_tokens"]), integer(entity["completion_tokens"])
    return Match(_call(entity), prompt, completion, bool(entity.get("published")))


def _call(entity: Mapping[str, Any]) -> StreamCall:
    cap = entity.get("max_output_tokens")
    return StreamCall(
        entity["correlation_id"],
        entity["tenant"],
        entity["source"],
        entity["accrual_id"],
        datetime.fromisoformat(entity["time"]),
        integer(entity["attempt"]),
        entity["needs_output"],
        entity.get("processing_tier", ""),
        None if cap is None else integer(cap),
        bool(entity.get("aborted")),
    )


def _add(halves: Halves, entity: Mapping[str, Any]) -> None:
    halves.keys.append((entity["PartitionKey"], entity["RowKey"]))
    if since := entity.get("since"):
        halves.newest_utc = max(halves.newest_utc, datetime.fromisoformat(since))
    kind = entity["RowKey"].split("|")[1]
    if kind == "call":
        halves.calls.append(_call(entity))
    elif kind == "match":
        match = _match(entity)
        halves.matches[match.call.source] = match
    elif kind == "swept":
        halves.swept = True
    elif entity.get("aborted"):
        halves.aborted = True
    else:
        halves.logged = True
        halves.streamed = halves.streamed or bool(entity["streamed"])
        for name in ("prompt_tokens", "completion_tokens"):
            if (count := entity.get(name)) is not None:
                setattr(halves, name, max(getattr(halves, name) or 0, integer(count)))
