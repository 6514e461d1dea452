"""The kinds of notices: what each is about and what to do about it, in words a person on call understands. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Payload = Mapping[str, Any]
Severity = Literal["info", "warning", "critical"]
Titled = Callable[[Payload], str]


class Kind(NamedTuple):
    """How notices of one kind read. `title` gets the payload, whose values anybody may have chosen."""

    severity: Severity
    title: Titled
    advice: str
    page: str = "overview"  # of the dashboard


def _threshold(payload: Payload) -> str:
    verb = {"warn": "passed its warning threshold", "degrade": "is served by cheaper models now", "stop": "is spent"}
    return f"Budget {payload.get('scope', '')} {verb.get(str(payload.get('threshold')), 'passed a threshold')}"


def _unpriced(payload: Payload) -> str:
    return f"No price for {payload.get('model', '')} of {payload.get('provider', '')}"


def _anomaly(payload: Payload) -> str:
    about = payload.get("scope") or payload.get("tenant", "")
    return f"Unusual spend of {about} on {payload.get('day', 'a day')}: {payload.get('spent', '')} USD"


def _dead_letters(payload: Payload) -> str:
    return (
        f"{payload.get('count', '')} events of {payload.get('day', '')} could not be billed: {payload.get('code', '')}"
    )


def _digest(payload: Payload) -> str:
    return f"Week {payload.get('week', '')}: {payload.get('spent', '')} spent by {payload.get('tenant', '')}"


NOTICE_KINDS: dict[str, Kind] = {
    "threshold": Kind(
        "warning",
        _threshold,
        "Tell the budget's owner. Raise the limit if the spend is wanted; otherwise let the budget do its work.",
        "budgets",
    ),
    "anomaly": Kind(
        "warning",
        _anomaly,
        "Look at what changed that day: a new release, a loop, a key in other hands. The team's budget holds it.",
        "anomalies",
    ),
    "unpriced_model": Kind(
        "critical",
        _unpriced,
        "Add a dated price to prices.yaml, or map the deployment in models.yaml. Until then its cost is unknown and "
        "budgets are charged the guard price.",
        "unpriced",
    ),
    "drift": Kind(
        "critical",
        lambda payload: f"Budget counters of {payload.get('tenant', '')} were off by {payload.get('drift', '')} USD",
        "They are right again. Look for a Redis failover at that time; a drift that returns is a bug.",
    ),
    "dead_letters": Kind(
        "critical",
        _dead_letters,
        "Read the reason with GET /dead-letters, fix its cause, then replay the letters: replaying twice is harmless.",
        "dead-letters",
    ),
    "weekly_digest": Kind("info", _digest, "Nothing has to be done unless a figure surprises you."),
    "holds_expired": Kind(
        "warning",
        lambda payload: (
            f"{payload.get('holds', '')} admitted calls of {payload.get('tenant', '')} never reported usage"
        ),
        "Look for crashed clients, or a gateway that does not report.",
    ),
    "redis_evicts": Kind(
        "critical",
        lambda payload: f"Redis may evict budget counters (maxmemory-policy {payload.get('policy', '')})",
        "Set maxmemory-policy to noeviction: an evicted counter is spend forgotten.",
    ),
    "hub_recreated": Kind(
        "critical",
        lambda payload: f"An event hub was deleted and created again: {payload.get('stream', '')}",
        "Delete the trigger's checkpoints of that hub so that it reads from the start; what was billed is recognised.",
    ),
    "streams_unmeasured": Kind(
        "warning",
        lambda payload: f"{payload.get('unmeasured', '')} streamed calls of {payload.get('tenant', '')} stay estimates",
        "See whether API Management's LLM log reaches its hub; operations.md lists the usual reasons.",
    ),
    "streams_unreported": Kind(
        "critical",
        lambda payload: f"{payload.get('unreported', '')} streamed calls were logged and never billed",
        "Look at the gateway's usage logger and the dead letters: the events of these calls did not arrive.",
    ),
    "stream_conflict": Kind(
        "warning",
        lambda payload: f"A log record contradicts the bill of a call of {payload.get('tenant', '')}",
        "Compare the dead letter id_conflict with the provider's own logs; the bill stays as it is.",
    ),
}

_OTHER = Kind("warning", lambda payload: "Something happened that you should know", "See docs/operations.md, Notices.")


def kind_of(name: str) -> Kind:
    """How a kind reads; a general text for one that a later version added and this one does not know."""
    return NOTICE_KINDS.get(name, _OTHER)
