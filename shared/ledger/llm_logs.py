"""Ingest of the LLM log hub: records become halves of streams, and what cannot be read a dead letter without texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from shared.ledger.deadletters import DeadLetters
from shared.ledger.delivery import Delivery
from shared.ledger.streams import Streams
from shared.notify.outbox import Outbox
from shared.usage.llm_log import LogRecord, decode_log, log_bytes

log = logging.getLogger("tollkeeper.streams")


class LogReport(NamedTuple):
    """What became of a batch."""

    records: int
    ignored: int
    dead_letters: int


class LlmLogs:
    """Takes deliveries of the LLM log hub; safe to run twice on the same ones, killed at any point."""

    def __init__(self, streams: Streams, dead_letters: DeadLetters, outbox: Outbox) -> None:
        self._streams = streams
        self._dead_letters = dead_letters
        self._outbox = outbox

    async def run(self, deliveries: Sequence[Delivery]) -> LogReport:
        """Process one batch. Raises whatever kept it from being durably done; run it again then."""
        found: list[tuple[Delivery, int, LogRecord]] = []  # with its number among the message's letters
        ignored = letters = 0
        for delivery in deliveries:
            decoded = decode_log(delivery.body)
            ignored += decoded.ignored
            for number, (reason, kept) in enumerate(decoded.refused):
                await self._refuse(reason.code, reason.message, kept, delivery, number)
                letters += 1
            found += [(delivery, len(decoded.refused) + at, record) for at, record in enumerate(decoded.records)]
        if found:
            contradictions = set(await self._streams.logged([record for *_, record in found]))
            for delivery, number, record in found:
                if record in contradictions:
                    await self._conflict(record, delivery, number)
                    letters += 1
        return LogReport(len(found), ignored, letters)

    async def _conflict(self, record: LogRecord, delivery: Delivery, number: int) -> None:
        message = f"correlationId: {record.correlation_id} was trued up before with fewer tokens"
        await self._refuse("id_conflict", message, log_bytes(record), delivery, number)
        payload = {
            "correlation_id": record.correlation_id,
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
        }
        await self._outbox.add_once(f"stream_conflict|{record.correlation_id}", "stream_conflict", payload)

    async def _refuse(self, code: str, message: str, kept: bytes, delivery: Delivery, number: int) -> None:
        log.warning("dead_letter", extra={"code": code, "stream": delivery.position.stream})
        await self._dead_letters.put(code, message, kept, delivery.position, number)
