"""Points that a call's own answer and its usage event show."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from scripts.azure.verify.calls import DATE, NO_DEPLOYMENT, WORD
from scripts.azure.verify.probe import Point, Probe, Source, Verdict, as_assumed, differs, not_measured
from scripts.azure.verify.seen import Answer, Event, Seen

INVALID_KEY = "invalid_api_key"
BUFFER_BYTES = 8 * 1024  # what API Management sends at once when it buffers
CLOCKS_APART = timedelta(minutes=2)
_DATE_ANYHOW = re.compile(r"(2026-11-21|11/21/2026|21/11/2026)\S*")
_FROM_POLICY = "this key is not known here"  # tk-authenticate's words; on-error has others


def judge_unknown_key(seen: Seen) -> Verdict:
    """Who answers a key that nobody has."""
    answer = seen.answers["unknown key"]
    if answer.status == 401 and answer.error_code == INVALID_KEY:
        return as_assumed(f"401 {INVALID_KEY}, {'by our policy' if _from_policy(answer) else 'by on-error'}")
    if answer.status == 401:
        return differs(f"401 of API Management's own: {sorted(answer.content)}")
    return differs(answer.told()) if answer.status else not_measured(answer.failure)


def judge_on_error(seen: Seen) -> Verdict:
    """Whether on-error runs for the key check that API Management does before any policy."""
    answer = seen.answers["unknown key"]
    if answer.status != 401:
        return not_measured(f"no 401: {answer.told()}")
    if answer.error_code != INVALID_KEY:
        return differs("the 401 has API Management's own body: on-error did not run")
    if _from_policy(answer):
        return not_measured("API Management let the call go on without a subscription, so no built-in step failed")
    return as_assumed("the 401 has our body, made in on-error")


def judge_stream(seen: Seen) -> Verdict:
    """Whether a stream arrives as it is made."""
    answer = seen.answers["stream"]
    if answer.status != 200 or not answer.pieces:
        return not_measured(f"no stream: {answer.told()}")
    bursts = answer.bursts
    first, last = answer.pieces[0].at, answer.pieces[-1].at
    told = f"{sum(bursts)} bytes in {len(bursts)} bursts from {first:.1f} to {last:.1f} s"
    if len(bursts) == 1 and sum(bursts) <= BUFFER_BYTES:
        return not_measured(f"{told}: too little to tell; name a --deployment that answers longer")
    if all(burst >= BUFFER_BYTES for burst in bursts[:-1]):
        return differs(f"{told}, none smaller than a buffer of {BUFFER_BYTES}")
    return as_assumed(told)


def judge_event_usage(seen: Seen) -> Verdict:
    """Whether the policy could read the usage of a whole answer."""
    answer = seen.answers["whole"]
    event, missing = _event(seen, "whole")
    if event is None:
        return missing
    usage = event.data.get("usage")
    if isinstance(usage, dict) and usage.get("prompt_tokens"):
        return as_assumed(f"the event has {usage['prompt_tokens']} + {usage.get('completion_tokens', 0)} tokens")
    length = answer.headers.get("content-length", "none")
    return differs(f"the event has no usage; the answer's Content-Length is {length}")


def judge_length(seen: Seen) -> Verdict:
    """Whether the policy sees how long a request is."""
    answer = seen.answers["whole"]
    if answer.status == 411:
        return differs(f"411 {answer.error_code} over {answer.http_version}")
    if not answer.status:
        return not_measured(answer.failure)
    offered = "" if answer.http_version == "HTTP/2" else "; this gateway offers no HTTP/2"
    return as_assumed(f"{answer.status} over {answer.http_version}{offered}")


def judge_header_text(seen: Seen) -> Verdict:
    """What becomes of UTF-8 in a header."""
    if seen.scope_type is None:
        return not_measured("the caller's tenant lists no client_asserted_scopes")
    event, missing = _event(seen, "whole")
    if event is None:
        return missing
    found = event.data.get("scopes", {}).get(seen.scope_type)
    if found == WORD:
        return as_assumed(f"{seen.scope_type} is {WORD!r} in the event")
    return differs(f"{seen.scope_type} is {found!r} in the event, not {WORD!r}")


def judge_date(seen: Seen) -> Verdict:
    """Whether a prompt that looks like a date survives a rewritten body. The model, asked to repeat it, tells."""
    answer = seen.answers["stream"]
    if answer.status != 200:
        return not_measured(f"no answer: {answer.told()}")
    choices = [choice for chunk in answer.chunks for choice in chunk.get("choices", [])]
    said = "".join(choice.get("delta", {}).get("content") or "" for choice in choices)
    if not any(chunk.get("usage") for chunk in answer.chunks):
        return not_measured("the stream ended without usage, so the body was not rewritten, or its end was cut")
    if DATE in said:
        return as_assumed(f"the model repeated {DATE}")
    if spelt := _DATE_ANYHOW.search(said):
        return differs(f"the model was sent {spelt[0]} instead of {DATE}")
    return not_measured("the model did not repeat what it was sent")


def judge_unread(seen: Seen) -> Verdict:
    """Which deployment serves a body that the policies did not read."""
    answer = seen.answers["unread"]
    if answer.status == 200:
        served = answer.content.get("model", "a model")
        return as_assumed(f"{served} of the path answered, although the body names {NO_DEPLOYMENT}")
    if answer.status == 404:
        return differs("404: the backend looked for the deployment that the body names")
    return not_measured(f"no answer of the model: {answer.told()}")


def judge_event_time(seen: Seen, name: str = "whole") -> Verdict:
    """Whether `context.Timestamp` is the call's time in UTC."""
    answer = seen.answers[name]
    event, missing = _event(seen, name)
    if event is None:
        return missing
    if event.data.get("decision") != "off":
        return not_measured("the caller's tenant is enforced, so the service told the time")
    try:
        at = datetime.fromisoformat(event.time).astimezone(UTC)
    except ValueError:
        return differs(f"the event's time is {event.time!r}")
    told = f"the event says {at:%H:%M:%S}, the call ran from {answer.started:%H:%M:%S} to {answer.ended:%H:%M:%S} UTC"
    in_time = answer.started - CLOCKS_APART <= at <= answer.ended + CLOCKS_APART
    return as_assumed(told) if in_time else differs(told)


def _from_policy(answer: Answer) -> bool:
    return answer.error_message.startswith(_FROM_POLICY)


def _event(seen: Seen, name: str) -> tuple[Event | None, Verdict]:
    """The one event of a call, or why there is none to judge."""
    answer = seen.answers[name]
    if answer.status != 200:
        return None, not_measured(f"no answer: {answer.told()}")
    events = seen.events_of(name)
    if not events:
        return None, not_measured("its event did not arrive (point g tells whether it was billed)")
    return events[0], not_measured("")


def _seen(
    number: int, title: str, assumption: str, judge: Callable[[Seen], Verdict], call: str, *, event: bool = False
) -> Probe:
    reads: tuple[Source, ...] = ("events",) if event else ()
    return Probe(Point(str(number), title, assumption), judge, (call,), reads)


EVENT_TIME = Point("20", "an event's time without a check", "is the call's, in UTC")

PROBES = (
    _seen(8, "an unknown key", "is our 401", judge_unknown_key, "unknown key"),
    _seen(9, "on-error for built-in steps", "runs for the key check too", judge_on_error, "unknown key"),
    _seen(12, "a stream through retry and llm-token-limit", "arrives as it is made", judge_stream, "stream"),
    _seen(14, "the usage of a whole answer", "is in its event", judge_event_usage, "whole", event=True),
    _seen(15, "the length of a request", "is visible, over HTTP/2 too", judge_length, "whole"),
    _seen(16, "UTF-8 in a scope header", "is the same in the event", judge_header_text, "whole", event=True),
    _seen(17, "a prompt that looks like a date", "reaches the model as it was", judge_date, "stream"),
    Probe(EVENT_TIME, judge_event_time, ("whole",), ("events",)),
    _seen(21, "an unread body that names another model", "is served by the path's", judge_unread, "unread"),
)
