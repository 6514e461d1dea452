"""Each verdict of `make verify` over facts made up for it: as assumed, different, and not to be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scripts.azure.verify import points_calls as calls
from scripts.azure.verify import points_log as log
from scripts.azure.verify import points_saved as saved
from scripts.azure.verify import points_settings as settings
from scripts.azure.verify.calls import DATE, WORD
from scripts.azure.verify.disturb import (
    LIMITS,
    Outcome,
    judge_dead_backend,
    judge_dead_issuer,
    judge_limits,
    judge_save,
)
from scripts.azure.verify.probe import Verdict
from scripts.azure.verify.seen import Answer, Documents, Event, LogSettings, Piece, Record, Seen
from shared.ledger.row import LedgerRow, Position

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
JSON = {"content-type": "application/json"}
POLICIES = saved.PROBES[:6]


def answer(status: int = 200, body: object = None, name: str = "whole", **headers: str) -> Answer:
    """An answer whose request id is the name of its call."""
    known = {"x-request-id": name.replace(" ", "-"), **JSON, **{key.replace("_", "-"): v for key, v in headers.items()}}
    text = body if isinstance(body, str) else json.dumps(body or {})
    return Answer(status, known, text, started=NOW, ended=NOW + timedelta(seconds=2), http_version="HTTP/1.1")


def error(status: int, code: str, message: str = "", name: str = "whole") -> Answer:
    """A refusal in OpenAI's shape."""
    return answer(status, {"error": {"code": code, "message": message}}, name)


def event(name: str = "whole", time: str = "2026-11-21T10:00:00Z", **data: object) -> Event:
    """The usage event of a call."""
    return Event(name.replace(" ", "-"), time, data, NOW + timedelta(seconds=3))


def record(name: str = "stream", seconds: float = 60, **properties: object) -> Record:
    """A record of the LLM log, by default as it should be."""
    usual = {"promptTokens": 7, "completionTokens": 16, "totalTokens": 23, "sequenceNumber": 1}
    members = {
        "time": "2026-11-21T10:00:01Z",
        "category": "GatewayLlmLogs",
        "correlationId": name.replace(" ", "-").upper(),
        "properties": {**usual, "isStreamCompletion": True, **properties},
    }
    return Record(members, NOW + timedelta(seconds=2 + seconds))


def row(name: str, kind: Any, suffix: str = "") -> LedgerRow:
    """A row of the ledger."""
    return LedgerRow(
        tenant="default",
        source="apim/x",
        id=f"{name.replace(' ', '-')}{suffix}",
        kind=kind,
        time_utc=NOW,
        scopes={},
        position=Position("s", 0, 0),
        content_digest="",
        charge_nano_usd=1,
    )


def logged(*names: str, **properties: object) -> Seen:
    """Calls that were answered, reported and logged."""
    return Seen(
        answers={name: answer(name=name) for name in names},
        events=[event(name) for name in names],
        records=[record(name, **properties) for name in names],
    )


def streamed(*pieces: tuple[float, int], text: str = "") -> Seen:
    """A stream that arrived in these pieces and said this text."""
    chunks = [{"choices": [{"delta": {"content": part}}]} for part in (text[:5], text[5:])]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in [*chunks, {"choices": [], "usage": {"a": 1}}])
    found = answer(body=f"{body}data: [DONE]\n\n", name="stream")
    return Seen(answers={"stream": Answer(**{**vars(found), "pieces": tuple(Piece(*piece) for piece in pieces)})})


def documents(**changed: Any) -> Seen:
    """Policies as API Management holds them, with a call that went through."""
    text = "using (x) => catch (Exception) {{tk-buffer-bytes}}L"
    markup = (
        '<forward-request /><forward-request /><cache-lookup-value key="x" />'
        '<rate-limit-by-key calls="{{tk-rate-calls}}" /><set-query-parameter name="a" exists-action="delete" />'
        '<authentication-managed-identity resource="r" client-id="c" ignore-error="true" />'
    )
    names = ("limit-rate", "check-budget", "limit-size", "identify", "read-usage", "use-backend")
    held = Documents(text + markup, {f"tk-{name}": text + markup for name in names}, {"tk-token-quota": "10000000000"})
    return Seen(answers={"whole": answer()}, documents=Documents(**{**vars(held), **changed}))


def unreadable(seen: Seen) -> Seen:
    """The same, but what Resource Manager has could not be read."""
    seen.settings.problem = seen.documents.problem = "Forbidden (403)"
    return seen


def hub(
    *, local_auth_disabled: bool = False, rule: str = "n/authorizationRules/a", records: bool = True, **log_on: bool
) -> Seen:
    """A way of the LLM log to its hub."""
    seen = logged("stream") if records else Seen(answers={"stream": answer(name="stream")})
    on = {"GatewayLlmLogs": True, "GatewayLogs": True, **log_on}
    logs = [{"category": category, "enabled": enabled} for category, enabled in on.items()]
    setting = {"name": "llm-logs", "properties": {"eventHubAuthorizationRuleId": rule, "logs": logs}}
    seen.settings = LogSettings([setting], {}, local_auth_disabled=local_auth_disabled)
    return seen


def billed(*rows: LedgerRow, has_tokens: bool = True) -> Seen:
    """A stream with these rows."""
    seen = logged("stream") if has_tokens else Seen(answers={"stream": answer(name="stream")})
    seen.rows = list(rows)
    return seen


def one(name: str, **changed: Any) -> Seen:
    """One call's answer and event."""
    return Seen(answers={name: changed.pop("got", answer(name=name))}, scope_type="session", **changed)


BY_POLICY = "this key is not known here; ask"
UNKNOWN = "unknown key"
TEXTS = {"properties": {"largeLanguageModel": {"logs": "enabled", "requests": {"messages": "all"}}}}

AS_ASSUMED: list[tuple[Callable[[Seen], Verdict], Seen]] = [
    *((probe.judge, documents()) for probe in saved.PROBES),
    (calls.judge_unknown_key, one(UNKNOWN, got=error(401, "invalid_api_key", BY_POLICY))),
    (calls.judge_unknown_key, one(UNKNOWN, got=error(401, "invalid_api_key", "not accepted"))),
    (calls.judge_on_error, one(UNKNOWN, got=error(401, "invalid_api_key", "not accepted"))),
    (calls.judge_stream, streamed((0.1, 300), (0.2, 300), (0.9, 9000))),
    (calls.judge_stream, streamed((0.1, 3000), (0.9, 4000))),
    (calls.judge_event_usage, one("whole", events=[event(usage={"prompt_tokens": 7})])),
    (calls.judge_length, one("whole")),
    (calls.judge_header_text, one("whole", events=[event(scopes={"session": WORD})])),
    (calls.judge_date, streamed((0.1, 300), text=f"{DATE} {DATE}")),
    (calls.judge_unread, one("unread")),
    (calls.judge_event_time, one("whole", events=[event(decision="off")])),
    (log.judge_correlation, logged("whole")),
    (log.judge_stream_correlation, logged("stream")),
    (log.judge_names, logged("whole", "stream")),
    (log.judge_latency, logged("stream")),
    (log.judge_coverage, logged(*log.LOGGED)),
    (log.judge_texts, logged("stream")),
    (
        log.judge_whole_stream,
        one(
            "refused stream",
            got=error(400, "x", name="refused stream"),
            records=[record("refused stream", isStreamCompletion=False)],
        ),
    ),
    (log.judge_billing, billed(row("stream", "usage"))),
    (log.judge_billing, billed(*(row("stream", kind, f"/{kind}") for kind in ("accrual", "reversal", "true_up")))),
    (log.judge_billing, billed(row("stream", "accrual"), has_tokens=False)),
    (settings.judge_rule, hub()),
]
DIFFERENT: list[tuple[Callable[[Seen], Verdict], Seen, str]] = [
    *((probe.judge, documents(policy="<x />", fragments={}), "") for probe in POLICIES),
    (saved.PROBES[4].judge, documents(fragments={"tk-use-backend": "<x />"}), "somebody had to change it"),
    (saved.judge_quota, documents(named_values={}), "''"),
    (
        calls.judge_unknown_key,
        one(UNKNOWN, got=answer(401, {"statusCode": 401, "message": "Access denied"})),
        "statusCode",
    ),
    (calls.judge_unknown_key, one(UNKNOWN), "200"),
    (calls.judge_on_error, one(UNKNOWN, got=answer(401, {"statusCode": 401})), "on-error did not run"),
    (calls.judge_stream, streamed((1.0, 9000)), "1 bursts"),
    (calls.judge_stream, streamed((1.0, 4000), (1.001, 4192), (2.0, 8192), (3.0, 10)), "none smaller"),
    (calls.judge_event_usage, one("whole", events=[event(usage=None)]), "no usage"),
    (calls.judge_length, one("whole", got=error(411, "length_required")), "411 length_required"),
    (calls.judge_header_text, one("whole", events=[event(scopes={"session": "cafÃ©"})]), "cafÃ©"),
    (calls.judge_header_text, one("whole", events=[event(scopes={})]), "None"),
    (calls.judge_date, streamed((0.1, 300), text="11/21/2026 08:00:00"), "11/21/2026"),
    (calls.judge_date, streamed((0.1, 300), text="2026-11-21T10:00:00.12+02:00"), ".12+"),
    (calls.judge_unread, one("unread", got=error(404, "DeploymentNotFound")), "body names"),
    (calls.judge_event_time, one("whole", events=[event(time="2026-11-21T11:00:00Z", decision="off")]), "11:00:00"),
    (calls.judge_event_time, one("whole", events=[event(time="21.11.2026", decision="off")]), "21.11.2026"),
    (log.judge_correlation, one("whole", strangers=["x-1"]), "x-1"),
    (log.judge_stream_correlation, one("stream", strangers=["x-1"]), "x-1"),
    (
        log.judge_names,
        Seen(
            answers={"stream": answer(name="stream")},
            records=[Record({"CorrelationId": "stream", "Category": "gatewayllmlogs", "properties": {}}, NOW)],
        ),
        "CorrelationId instead of correlationId",
    ),
    (log.judge_latency, Seen(answers={"stream": answer(name="stream")}, records=[record(seconds=3600)]), "3600"),
    (
        log.judge_coverage,
        Seen(answers={name: answer(name=name) for name in log.LOGGED}, records=[record("whole")]),
        "response stream",
    ),
    (log.judge_texts, logged("stream", requestMessages="[...]"), "requestMessages"),
    (log.judge_texts, Seen(prompt_in_log=True), "a word of our prompts"),
    (log.judge_texts, Seen(settings=LogSettings(api_diagnostic=TEXTS)), "requests"),
    (
        log.judge_whole_stream,
        one("refused stream", got=error(400, "x", name="refused stream"), records=[record("refused stream")]),
        "what was asked for",
    ),
    (log.judge_billing, billed(), "no row"),
    (log.judge_billing, billed(row("stream", "accrual")), "still an estimate"),
    (log.judge_billing, billed(row("stream", "usage"), row("stream", "usage", "/2")), "usage + usage"),
    (log.judge_billing, billed(row("stream", "accrual"), row("stream", "reversal", "/reversal")), "accrual + reversal"),
    (settings.judge_local_auth, hub(local_auth_disabled=True), "can stay off"),
    (settings.judge_rule, hub(rule=""), "no diagnostic setting"),
    (settings.judge_rule, hub(GatewayLogs=False), "GatewayLogs"),
    (settings.judge_rule, hub(rule="n/eventhubs/llm-logs/authorizationRules/a"), "one hub is enough"),
]
UNKNOWABLE: list[tuple[Callable[[Seen], Verdict], Seen, str]] = [
    *((probe.judge, unreadable(documents()), "Forbidden") for probe in saved.PROBES),
    *((probe.judge, Seen(documents=documents().documents), "none was made") for probe in saved.PROBES),
    (saved.judge_quota, documents(named_values={"tk-token-quota": "1000"}), "which 32 bits hold"),
    (calls.judge_on_error, one(UNKNOWN, got=error(401, "invalid_api_key", BY_POLICY)), "no built-in step failed"),
    (calls.judge_on_error, one(UNKNOWN), "no 401"),
    (calls.judge_stream, streamed((0.1, 3000)), "too little to tell"),
    (calls.judge_stream, one("stream", got=error(402, "budget_exhausted")), "402 budget_exhausted"),
    (calls.judge_event_usage, one("whole"), "did not arrive"),
    (calls.judge_length, one("whole", got=Answer(0, failure="ConnectError: no")), "ConnectError"),
    (calls.judge_header_text, Seen(answers={"whole": answer()}), "client_asserted_scopes"),
    (calls.judge_date, streamed((0.1, 300), text="Once upon a time"), "did not repeat"),
    (calls.judge_date, one("stream", got=answer(body="data: [DONE]\n\n")), "not rewritten"),
    (calls.judge_unread, one("unread", got=error(402, "budget_exhausted")), "402"),
    (calls.judge_event_time, one("whole", events=[event(decision="allow")]), "is enforced"),
    (log.judge_correlation, one("whole"), "no record"),
    (log.judge_names, one("whole"), "no record"),
    (log.judge_latency, one("whole"), "no record"),
    (log.judge_coverage, one("whole", got=error(402, "budget_exhausted")), "no call was answered"),
    (log.judge_texts, one("whole"), "no record"),
    (log.judge_whole_stream, one("refused stream"), "did not answer whole"),
    (log.judge_billing, Seen(rows_problem="ServiceRequestError: no route"), "no route"),
    (settings.judge_local_auth, unreadable(hub()), "Forbidden"),
    (settings.judge_local_auth, hub(local_auth_disabled=True, records=False), "nothing arrives"),
    (settings.judge_local_auth, hub(), "whether they need it"),
    (settings.judge_local_auth, hub(records=False), "nothing arrives"),
    (settings.judge_rule, hub(records=False), "nothing arrives"),
]


@pytest.mark.parametrize(("judge", "seen"), AS_ASSUMED)
def test_what_is_as_assumed(judge: Callable[[Seen], Verdict], seen: Seen) -> None:
    """The facts that the design rests on."""
    assert judge(seen).word == "as assumed", judge(seen).seen


@pytest.mark.parametrize(("judge", "seen", "told"), DIFFERENT)
def test_what_differs_is_told(judge: Callable[[Seen], Verdict], seen: Seen, told: str) -> None:
    """And the reader learns what was seen instead."""
    verdict = judge(seen)
    assert verdict.word == "differs", verdict.seen
    assert told in verdict.seen


@pytest.mark.parametrize(("judge", "seen", "told"), UNKNOWABLE)
def test_what_cannot_be_told_is_no_verdict(judge: Callable[[Seen], Verdict], seen: Seen, told: str) -> None:
    """Neither good nor bad: why nothing was learned."""
    verdict = judge(seen)
    assert verdict.word == "not measured", verdict.seen
    assert told in verdict.seen


@pytest.mark.parametrize(
    ("answered", "records", "word"),
    [
        (answer(), [], "as assumed"),
        (answer(), [record("whole")], "differs"),
        (error(402, "budget_exhausted"), [], "not measured"),
    ],
)
def test_a_log_without_keys_is_judged_by_a_call_that_was_served(
    answered: Answer, records: list[Record], word: str
) -> None:
    """A refused call would leave no record with keys either."""
    assert settings.judge_keyless(answered, records, 900).word == word


def test_records_spelt_otherwise_are_read_all_the_same() -> None:
    """Names in capitals are a finding for point b; every other verdict must not depend on them."""
    members = {"CorrelationID": "STREAM", "CATEGORY": "GatewayLlmLogs", "Properties": {"TotalTokens": "23"}}
    seen = Seen(answers={"stream": answer(name="stream")}, events=[event("stream")], records=[Record(members, NOW)])
    assert log.judge_stream_correlation(seen).word == "as assumed"
    assert log.judge_coverage(seen).word == "as assumed"


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ({name: Outcome(error(status, code)) for name, code, status in LIMITS}, "as assumed"),
        ({name: Outcome(error(500, code)) for name, code, _ in LIMITS}, "differs"),
        ({name: Outcome(None, ("500 gateway_error",)) for name, _, _ in LIMITS}, "differs"),
        ({name: Outcome(None) for name, _, _ in LIMITS}, "not measured"),
    ],
)
def test_each_limit_has_a_code_of_its_own(outcomes: dict[str, Outcome], word: str) -> None:
    """Another code under a limit is a difference; no refusal at all tells nothing."""
    assert judge_limits(outcomes).word == word


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (judge_dead_issuer(error(503, "identity_unavailable")), "as assumed"),
        (judge_dead_issuer(error(401, "invalid_api_key")), "differs"),
        (judge_dead_issuer(None), "not measured"),
        (judge_dead_backend(error(502, "upstream_unreachable"), [event(attempt=3)], 3), "as assumed"),
        (judge_dead_backend(error(502, "upstream_unreachable"), [event(attempt=1)], 3), "differs"),
        (judge_dead_backend(error(502, "upstream_unreachable"), [event(attempt=3)] * 2, 3), "differs"),
        (judge_dead_backend(error(502, "upstream_unreachable"), [], 3), "differs"),
        (judge_dead_backend(error(504, "upstream_failed"), [], 3), "not measured"),
        (judge_dead_backend(None, [], 3), "not measured"),
        (judge_save(error(429, "rate_limit_exceeded"), passed=False), "as assumed"),
        (judge_save(error(429, "rate_limit_exceeded"), passed=True), "differs"),
        (judge_save(None, passed=False), "not measured"),
    ],
)
def test_what_a_change_brings_out(verdict: Verdict, word: str) -> None:
    """The points that need one."""
    assert verdict.word == word, verdict.seen
