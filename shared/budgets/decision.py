"""One decision as the live list keeps and shows it, and who may see what of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from shared.budgets.answer import CheckAnswer
from shared.instants import rfc3339
from shared.money import decimal_from_nano
from shared.scopes import ORGANISATIONAL

Covers = Callable[[str, str], bool]
"""Whether a scope, by type and key, belongs to what the reader may see."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check answered, without figures of any budget."""

    at_utc: datetime
    decision: str
    reason: str
    state: str = ""
    requested_model: str
    model: str
    scopes: dict[str, str]
    estimate_nano_usd: int | None = None  # None: it was decided before anything was estimated
    budget: str | None = None  # scope of the budget that binds
    observed: dict[str, str] | None = None  # what enforcement would have done
    sampled: bool = False  # one of many like it

    @property
    def team(self) -> str:
        """The team on whose account the call runs, empty for none."""
        return self.scopes.get("team", "")


def decision_of(answer: CheckAnswer) -> Decision:
    """The decision that an answer states."""
    return Decision(
        at_utc=answer.admitted_at_utc,
        decision=answer.decision,
        reason=answer.reason,
        state=answer.state,
        requested_model=answer.requested_model,
        model=answer.model,
        scopes=answer.scopes,
        estimate_nano_usd=answer.estimate_nano_usd,
        budget=None if answer.budget is None else answer.budget["scope"],
        observed=answer.observed,
        sampled=is_plain(answer),
    )


def is_plain(answer: CheckAnswer) -> bool:
    """Whether the call just passes: most calls do, and a list of them all would push everything else off the list."""
    return answer.decision == "allow" and answer.observed is None


def shown(decision: Decision, covers: Covers) -> dict[str, Any]:
    """The decision as the API shows it: without the keys of persons, sessions and tasks that are not the reader's."""
    scopes = {kind: key for kind, key in decision.scopes.items() if kind in ORGANISATIONAL or covers(kind, key)}
    budget = decision.budget
    if budget is not None:
        kind, _, key = budget.partition(":")
        budget = budget if kind in ORGANISATIONAL or covers(kind, key) else kind
    estimate = decision.estimate_nano_usd
    return {
        "at": rfc3339(decision.at_utc),
        "decision": decision.decision,
        "reason": decision.reason,
        "state": decision.state or None,
        "requested_model": decision.requested_model,
        "model": decision.model,
        "scopes": scopes,
        "estimate": None if estimate is None else decimal_from_nano(estimate),
        "budget": budget,
        "observed": decision.observed,
        "sampled": decision.sampled,
    }
