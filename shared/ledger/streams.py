"""Accrued calls and the LLM log: when both halves of a call are known, its true-up goes onto the usage hub.

Each half is written first and then looks for the other: two that arrive together in two processes would otherwise each
miss the other. What both find is published twice with the same bytes, which the ledger takes once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from shared.ledger.streams_store import Halves, Match, StreamCall, StreamTable
from shared.usage.build import Publish, partition_key, true_up_event_bytes
from shared.usage.llm_log import LogRecord


class Streams:
    """Joins halves; safe to run twice on the same ones, in any order, killed at any point."""

    def __init__(self, table: StreamTable, publish: Publish) -> None:
        """`publish` puts events onto the usage hub."""
        self._table = table
        self._publish = publish

    async def accrued(self, calls: Sequence[StreamCall]) -> None:
        """Calls that were billed at their estimate. Raises what storage or the hub raises; run it again then."""
        await self._table.add(calls, [], datetime.now(UTC))
        await self.join([call.correlation_id for call in calls])

    async def logged(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """What the LLM log says. Returns the records that say more than what was published before: never billed."""
        await self._table.add([], records, datetime.now(UTC))
        standing = await self.join(record.correlation_id for record in records)
        return [
            record
            for record in records
            if any(contradicts(record, match) for match in standing.get(record.correlation_id, ()))
        ]

    async def join(self, correlation_ids: Iterable[str]) -> dict[str, list[Match]]:
        """Publish the true-ups of calls whose halves are both there; returns what stands for each, by id."""
        halves = await self._table.read(correlation_ids)
        claims = [match for each in halves for match in new_matches(each)]
        standing = [match for each in halves for match in each.matches.values()]
        if claims:
            standing += await self._table.claim(claims, datetime.now(UTC))
        waiting = [match for match in standing if not match.published]
        if waiting:
            await self._publish([(_partition_key(match), _event(match)) for match in waiting])
            await self._table.mark_published(waiting)
        by_id: defaultdict[str, list[Match]] = defaultdict(list)
        for match in standing:
            by_id[match.call.correlation_id].append(match)
        return by_id


def new_matches(halves: Halves) -> list[Match]:
    """The true-ups that these halves give and that nobody claimed yet; none while something is missing.

    Each source's own accrual is trued up, so that no source can take another's measurement away. Of several attempts
    of one source it is the last: the log tells of the answer that was sent, and billing both by it would bill it twice.
    """
    if halves.prompt_tokens is None:
        return []
    last: dict[str, StreamCall] = {}
    for call in sorted(halves.calls, key=lambda call: (call.attempt, call.accrual_id)):
        last[call.source] = call
    return [
        Match(call, halves.prompt_tokens, halves.completion_tokens or 0)
        for source, call in last.items()
        if source not in halves.matches and (halves.completion_tokens is not None or not call.needs_output)
    ]


def contradicts(record: LogRecord, match: Match) -> bool:
    """Whether a record says more than the true-up that was made of the ones before it."""
    more_prompt = (record.prompt_tokens or 0) > match.prompt_tokens
    return more_prompt or (record.completion_tokens or 0) > match.completion_tokens


def _event(match: Match) -> bytes:
    call = match.call
    return true_up_event_bytes(
        call.source,
        call.accrual_id,
        call.time_utc,
        tenant=call.tenant,
        prompt_tokens=match.prompt_tokens,
        completion_tokens=match.completion_tokens,
        processing_tier=call.processing_tier,
        max_output_tokens=call.max_output_tokens,
    )


def _partition_key(match: Match) -> str:
    return partition_key(match.call.source, match.call.accrual_id)
