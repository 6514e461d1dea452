"""Refusals on their way to the ledger: summed by what they agree in, then sealed into events for good. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from shared.budgets.answer import CheckAnswer
from shared.budgets.request import CheckRequest
from shared.ledger.keys import quarter_start
from shared.money import MAX_NANO_USD, NANO_PER_USD
from shared.scopes import ORGANISATIONAL

SOURCE = "tollkeeper/refusals"
MOST_GROUPS = 5_000  # of one worker; beyond it refusals are told apart by team and model no longer by person

_MOST_NANO_USD = MAX_NANO_USD // NANO_PER_USD * NANO_PER_USD  # what an amount of an event may be


class _Group(msgspec.Struct):
    """Like refusals of one quarter hour. Amounts in nano-USD."""

    tenant: str
    scopes: dict[str, str]
    requested_model: str
    reason: str
    status: int
    provider: str
    operation: str
    region: str
    first_utc: datetime
    calls: int = 0
    estimate_nano_usd: int = 0


class Refusals:
    """Sums of the refusals that are not yet sealed. Bounded: what does not fit is counted in `lost`."""

    def __init__(self, worker: str) -> None:
        """`worker` tells this process's events from those of any other, at any time."""
        self._worker = worker
        self._sealed = 0
        self._groups: dict[tuple[object, ...], _Group] = {}
        self.lost = 0

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, answer: CheckAnswer, request: CheckRequest, asserted: Collection[str]) -> None:
        """Count one refused call; `asserted` are the scope types that clients name themselves."""
        scopes = {kind: key for kind, key in answer.scopes.items() if kind not in asserted}
        group = self._group(answer, request, scopes)
        if group is None:
            organisational = {kind: key for kind, key in scopes.items() if kind in ORGANISATIONAL}
            group = self._group(answer, request, organisational, room=MOST_GROUPS)
        estimate_nano_usd = answer.estimate_nano_usd or 0
        if group is None or group.estimate_nano_usd + estimate_nano_usd > _MOST_NANO_USD:
            self.lost += 1
            return
        group.calls += 1
        group.estimate_nano_usd += estimate_nano_usd
        group.first_utc = min(group.first_utc, answer.admitted_at_utc)

    def seal(self) -> list[tuple[str, bytes]]:
        """Take everything out as `(partition key, event)` pairs. Their ids are their own for good: send these bytes
        until they are taken, however often, and the ledger counts them once."""
        groups, self._groups = self._groups, {}
        if not groups:
            return []
        from shared.usage.build import partition_key, refusal_event_bytes  # a cold check does without

        self._sealed += 1
        events = []
        for number, group in enumerate(groups.values()):
            event_id = f"{self._worker}/{self._sealed}/{number}"
            body = refusal_event_bytes(
                SOURCE,
                event_id,
                group.first_utc,
                tenant=group.tenant,
                scopes=group.scopes,
                requested_model=group.requested_model,
                reason=group.reason,
                status=group.status,
                calls=group.calls,
                estimate_nano_usd=group.estimate_nano_usd,
                provider=group.provider,
                operation=group.operation,
                region=group.region,
            )
            events.append((partition_key(SOURCE, event_id), body))
        return events

    def _group(
        self, answer: CheckAnswer, request: CheckRequest, scopes: dict[str, str], room: int = 0
    ) -> _Group | None:
        """The group of such a refusal; None when it is a new one and there is no room for it."""
        names = (answer.tenant, answer.requested_model, answer.reason, answer.status)
        place = (answer.provider, request.operation, request.region)
        key = (*names, *place, quarter_start(answer.admitted_at_utc), *scopes.items())
        group = self._groups.get(key)
        if group is None and len(self._groups) < MOST_GROUPS + room:
            group = self._groups[key] = _Group(answer.tenant, scopes, *names[1:], *place, answer.admitted_at_utc)
        return group
