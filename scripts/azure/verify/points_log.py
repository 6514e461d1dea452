"""Points that the LLM log on its hub shows, and what the ledger made of it all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from scripts.azure.verify.probe import Point, Probe, Source, Verdict, as_assumed, differs, not_measured
from scripts.azure.verify.seen import Record, Seen

STREAMS = ("stream", "response stream", "deployment stream")
LOGGED = ("whole", *STREAMS)
BILLED = (*LOGGED, "unread", "refused stream")
STREAM_WAIT = timedelta(minutes=30)  # the default of STREAM_WAIT_MINUTES: later a stream counts as never measured
NAMES = ("time", "category", "correlationId", "properties")
PROPERTIES = ("promptTokens", "completionTokens", "totalTokens", "sequenceNumber", "isStreamCompletion")
_TEXTS = ("requestmessages", "responsemessages")


def judge_correlation(seen: Seen) -> Verdict:
    """Whether the log names a call by `context.RequestId`, which its event has as id."""
    return _joined(seen, LOGGED)


def judge_stream_correlation(seen: Seen) -> Verdict:
    """The same of streams alone, whose true-ups rest on it."""
    return _joined(seen, STREAMS)


def _joined(seen: Seen, names: tuple[str, ...]) -> Verdict:
    served = list(seen.served(names))
    known = [name for name in served if seen.records_of(name) and seen.events_of(name)]
    if known:
        return as_assumed(f"{len(known)} of {len(served)} calls have records with the id of their event")
    if seen.strangers:
        others = f"{len(seen.strangers)} records of others came, such as {seen.strangers[0]}"
        return differs(f"no record has the id of a call's event; {others}")
    return _no_record(seen)


def judge_names(seen: Seen) -> Verdict:
    """How the records spell what ingest reads (in any letter case, so another case costs nothing)."""
    records = [record for name in seen.served(LOGGED) for record in seen.records_of(name)]
    if not records:
        return _no_record(seen)
    spelt = {name for record in records for name in record.members}
    spelt_properties = {name for record in records for name in record.properties}
    wrong = [_spelling(name, spelt) for name in NAMES if name not in spelt]
    wrong += [_spelling(name, spelt_properties) for name in PROPERTIES if name not in spelt_properties]
    if wrong:
        return differs(", ".join(wrong))
    return as_assumed(f"{', '.join(NAMES)} and in properties {', '.join(PROPERTIES)}")


def _spelling(name: str, spelt: set[str]) -> str:
    found = next((other for other in spelt if other.lower() == name.lower()), None)
    return f"{found} instead of {name}" if found else f"no {name}"


def judge_latency(seen: Seen) -> Verdict:
    """How long after a call its tokens reach the hub."""
    waits = [
        min(record.enqueued for record in seen.records_of(name) if record.tokens) - seen.answers[name].ended
        for name in seen.served(LOGGED)
        if any(record.tokens for record in seen.records_of(name))
    ]
    if not waits:
        return _no_record(seen)
    shortest, longest = min(waits), max(waits)
    told = f"{shortest.total_seconds():.0f} to {longest.total_seconds():.0f} s after the calls, {len(waits)} of them"
    return as_assumed(told) if longest <= STREAM_WAIT else differs(told)


def judge_coverage(seen: Seen) -> Verdict:
    """Whether every kind of call has its tokens in the log of this tier."""
    served = list(seen.served(LOGGED))
    if not served:
        return not_measured("no call was answered")
    without = [name for name in served if not any(record.tokens for record in seen.records_of(name))]
    if without:
        return differs(f"no tokens of: {', '.join(without)}; waited {seen.waited_seconds:.0f} s")
    tokens = (f"{name} {max(record.tokens for record in seen.records_of(name))}" for name in served)
    unserved = [
        f"; {name} was not served: {seen.answers[name].told()}"
        for name in LOGGED
        if name in seen.answers and name not in served
    ]
    return as_assumed(f"tokens of: {', '.join(tokens)}{''.join(unserved)}")


def judge_texts(seen: Seen) -> Verdict:
    """Whether any text of a prompt or an answer is in the log."""
    if seen.prompt_in_log:
        return differs("a word of our prompts is in messages of the hub: whoever reads it reads prompts")
    ours = [record for name in seen.answers for record in seen.records_of(name)]
    texts = {name for record in ours for name, value in record.properties.items() if value and name.lower() in _TEXTS}
    if texts:
        return differs(f"records carry {', '.join(sorted(texts))}")
    models = seen.settings.api_diagnostic.get("properties", {}).get("largeLanguageModel") or {}
    if asked := [name for name in ("requests", "responses") if models.get(name)]:
        return differs(f"the API's diagnostic asks for the texts of {' and '.join(asked)}")
    if not ours:
        return _no_record(seen)
    unread = f"; the API's diagnostic cannot be read: {seen.settings.problem}" if seen.settings.problem else ""
    return as_assumed(f"no text in {len(ours)} records{unread}")


def judge_whole_stream(seen: Seen) -> Verdict:
    """Whether a call for a stream that was answered whole passes for a stream."""
    answer = seen.answers["refused stream"]
    if answer.status != 400 or not answer.headers.get("content-type", "").startswith("application/json"):
        return not_measured(f"the model did not answer whole: {answer.told()}")
    records = seen.records_of("refused stream")
    if any(_is_stream(record) for record in records):
        return differs("its record says isStreamCompletion: the flag tells what was asked for, not what was answered")
    if records:
        return as_assumed("its record does not say isStreamCompletion")
    if not any(seen.records_of(name) for name in LOGGED):
        return _no_record(seen)
    return as_assumed("the log has no record of it, so nothing passes for a stream")


def _is_stream(record: Record) -> bool:
    return any(
        name.lower() == "isstreamcompletion" and str(value).lower() == "true"
        for name, value in record.properties.items()
    )


def judge_billing(seen: Seen) -> Verdict:
    """Whether each call stands in the ledger once."""
    if seen.rows_problem:
        return not_measured(f"the ledger cannot be read: {seen.rows_problem}")
    names = [name for name in BILLED if name in seen.answers and (seen.answers[name].status in (200, 400))]
    if not names:
        return not_measured("no call was answered")
    problems = [problem for name in names if (problem := _billing_problem(seen, name))]
    if problems:
        return differs("; ".join(problems))
    measured = sum(any(row.kind in ("usage", "true_up") for row in seen.rows_of(name)) for name in names)
    estimated = f", {len(names) - measured} of them by estimate" if measured < len(names) else ""
    return as_assumed(f"{len(names)} calls billed once each{estimated}")


def _billing_problem(seen: Seen, name: str) -> str:
    kinds = sorted(row.kind for row in seen.rows_of(name))
    if kinds == ["usage"] or (kinds == ["accrual"] and not any(record.tokens for record in seen.records_of(name))):
        return ""
    if kinds == ["accrual", "reversal", "true_up"]:
        return ""
    if kinds == ["accrual"]:
        return f"{name}: still an estimate, though the log has its tokens"
    return f"{name}: {' + '.join(kinds) or 'no row'}"


def _no_record(seen: Seen) -> Verdict:
    return not_measured(f"no record of the LLM log came within {seen.waited_seconds:.0f} s")


def _log(
    point: str, title: str, assumption: str, judge: Callable[[Seen], Verdict], calls: tuple[str, ...], *more: Source
) -> Probe:
    return Probe(Point(point, title, assumption), judge, calls, ("events", "log", *more))


PROBES = (
    _log("18", "a stream's correlationId", "is the id of its event", judge_stream_correlation, STREAMS),
    _log(
        "19",
        "a call for a stream, answered whole",
        "does not pass for a stream in the log",
        judge_whole_stream,
        ("whole", "refused stream"),
    ),
    _log("a", "correlationId on the hub", "is context.RequestId of every call", judge_correlation, LOGGED),
    _log("b", "names in the records", "are spelt as in the table of Log Analytics, in camel case", judge_names, LOGGED),
    _log("c", "how late records reach the hub", "is within STREAM_WAIT_MINUTES (30)", judge_latency, LOGGED),
    _log("d", "the LLM log in this tier", "has v1 and deployment paths, Responses and streams", judge_coverage, LOGGED),
    _log(
        "f", "prompts in the log", "there are none without `requests` and `responses`", judge_texts, LOGGED, "settings"
    ),
    _log("g", "the bill", "has each call once", judge_billing, BILLED, "ledger"),
)
