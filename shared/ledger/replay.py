"""Replay: dead letters go back onto the hub byte for byte, after what stopped them was fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from shared.ledger.deadletters import DeadLetter
from shared.usage.build import Publish, partition_key_of


class DeadLetterStore(Protocol):
    """What replay needs of the dead-letter store."""

    async def take(self, ids: Sequence[str]) -> list[DeadLetter]: ...
    async def mark_replayed(self, ids: Iterable[str], who: str) -> None: ...


class ReplayReport(NamedTuple):
    """What was put back, and the ids that name no letter."""

    replayed: int
    unknown: list[str]


class ReplayService:
    """Puts letters back. Replaying twice is harmless: the ledger knows the event by its identity, not by its place."""

    def __init__(
        self,
        dead_letters: DeadLetterStore,
        publish: Publish,
        publish_logs: Publish,
        is_llm_log_stream: Callable[[str], bool],
    ) -> None:
        """`publish` puts events onto the usage hub, `publish_logs` messages onto the LLM log hub.

        `is_llm_log_stream` says of a stream, `namespace/hub/partition`, whether it is one of the latter.
        """
        self._dead_letters = dead_letters
        self._publish = publish
        self._publish_logs = publish_logs
        self._is_llm_log_stream = is_llm_log_stream

    async def run(self, ids: Sequence[str], who: str) -> ReplayReport:
        """Publish the letters, then note who did it. Raises what the hub or the store raises; run it again then."""
        letters = await self._dead_letters.take(ids)
        if letters:
            for publish, of_logs in ((self._publish, False), (self._publish_logs, True)):
                mine = [letter for letter in letters if self._is_of_logs(letter) == of_logs]
                if mine:
                    await publish([(_partition_key(letter), letter.body) for letter in mine])
            await self._dead_letters.mark_replayed([letter.id for letter in letters], who)
        found = {letter.id for letter in letters}
        return ReplayReport(len(letters), [each for each in dict.fromkeys(ids) if each not in found])

    def _is_of_logs(self, letter: DeadLetter) -> bool:
        return letter.position is not None and self._is_llm_log_stream(letter.position.stream)


def _partition_key(letter: DeadLetter) -> str:
    """The event's own key, so that it follows its first try; one that cannot be read has no order to keep."""
    try:
        return partition_key_of(letter.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return letter.id
