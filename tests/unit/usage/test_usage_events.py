"""Decoding events: what is taken, what is refused, and that every refusal names the field."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from shared.errors import InvalidRequest
from shared.usage.build import (
    correction_event_bytes,
    grant_event_bytes,
    partition_key,
    partition_key_of,
    re_rate_event_bytes,
    true_up_event_bytes,
    usage_event_bytes,
)
from shared.usage.correcting_events import CorrectionEvent, ReRateEvent
from shared.usage.events import MAX_EVENT_BYTES, GrantEvent, TrueUpEvent, UsageEvent, decode_event, decode_http
from shared.usage.rejected import EventRejected

NOW = datetime(2026, 11, 21, 10, 0, 1, tzinfo=UTC)
TIME = datetime(2026, 11, 21, 10, 0, 0, 123000, tzinfo=UTC)
ONE = "application/cloudevents+json"
MANY = "application/cloudevents-batch+json; charset=utf-8"


def data(**changes: Any) -> dict[str, Any]:
    """The data of a valid event, changed; `...` leaves a field out."""
    base: dict[str, Any] = {
        "tenant": "contoso",
        "scopes": {"user": "ada@contoso.com", "team": "search"},
        "provider": "azure-openai",
        "operation": "chat",
        "requested_model": "gpt-4o",
        "model": "gpt-4o-mini",
        "deployment": "mini-weu",
        "region": "westeurope",
        "streamed": False,
        "status": 200,
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
        "reservation": "v1.token",
        "input_tokens_estimate": 1200,
        "max_output_tokens": 800,
        "latency_ms": 930,
        "decision": "downgrade",
        "attempt": 1,
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def event(data_changes: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """A valid usage event, changed; `...` leaves a field out."""
    base: dict[str, Any] = {
        "specversion": "1.0",
        "type": "tollkeeper.usage.v1",
        "source": "apim/prod-weu",
        "id": "request-1",
        "time": "2026-11-21T10:00:00.123Z",
        "data": data(**(data_changes or {})),
    }
    return json.dumps({name: value for name, value in {**base, **changes}.items() if value is not ...}).encode()


def decode_usage(body: bytes) -> UsageEvent:
    """The usage event in the body."""
    decoded = decode_event(body, NOW)
    assert isinstance(decoded, UsageEvent)
    return decoded


def refusal(body: bytes) -> EventRejected:
    """Why the event is refused."""
    with pytest.raises(EventRejected) as caught:
        decode_event(body, NOW)
    return caught.value


def test_a_whole_event_is_decoded() -> None:
    """Every field of the contract arrives, the usage object verbatim, scopes in canonical order."""
    decoded = decode_usage(event())
    assert (decoded.source, decoded.id, decoded.time_utc) == ("apim/prod-weu", "request-1", TIME)
    assert decoded.data.usage == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    assert list(decoded.data.scopes.items()) == [("team", "search"), ("user", "ada@contoso.com")]
    assert (decoded.data.model, decoded.data.requested_model) == ("gpt-4o-mini", "gpt-4o")
    assert (decoded.data.reservation, decoded.data.latency_ms) == ("v1.token", 930)


def test_the_digest_is_of_the_delivered_bytes() -> None:
    """Identical bytes have one digest; any other byte, even a blank, has another: that is how a conflict is told."""
    assert decode_event(event(), NOW).content_digest == decode_event(event(), NOW).content_digest
    assert decode_event(event(), NOW).content_digest != decode_event(event() + b" ", NOW).content_digest


def test_only_what_a_bill_needs_is_required() -> None:
    """Tenant, scopes and a model suffice; the model that was asked for is the one served unless stated."""
    minimal = {"tenant": "contoso", "scopes": {}, "requested_model": "gpt-4o"}
    decoded = decode_usage(event(data=minimal))
    assert (decoded.data.model, decoded.data.requested_model) == ("gpt-4o", "gpt-4o")
    assert (decoded.data.usage, decoded.data.attempt, decoded.data.status) == (None, 1, 200)
    served_only = decode_usage(event({"requested_model": ...}))
    assert served_only.data.requested_model == "gpt-4o-mini"


def test_identity_stands_for_tenant_and_scopes() -> None:
    """A gateway that no check told whose call it is sends what it validated; null and empty members count as absent."""
    identity = {"subscription": "search-prod", "product": None, "app": "", "groups": ["g-1"]}
    for absent in ({"tenant": ..., "scopes": ...}, {"tenant": None, "scopes": None}, {"tenant": "", "scopes": {}}):
        decoded = decode_usage(event({**absent, "identity": identity}))
        assert (decoded.data.tenant, decoded.data.scopes, decoded.data.identity) == ("", {}, identity)
    asserted = decode_usage(event({"tenant": ..., "scopes": {"session": "s-1"}, "identity": identity}))
    assert asserted.data.scopes == {"session": "s-1"}


def test_missing_callers_are_told_both_ways_to_name_one() -> None:
    """The message names tenant and identity, and of an event with both it says that they exclude each other."""
    for changes in ({"tenant": ...}, {"identity": {"oid": "a"}}):
        with pytest.raises(EventRejected) as raised:
            decode_event(event(changes), NOW)
        assert "data.tenant" in raised.value.message
        assert "data.identity" in raised.value.message


def test_null_means_absent() -> None:
    """Emitters write null for what they do not know; an event with nulls equals one without the fields."""
    nulls = {"deployment": None, "region": None, "decision": None, "status": None, "attempt": None, "usage": None}
    decoded = decode_usage(event(nulls, datacontenttype=None))
    assert decoded.data == decode_usage(event(dict.fromkeys(nulls, ...))).data


def test_nulls_inside_the_usage_object_stay() -> None:
    """Dropping nulls from the envelope leaves the provider's own object as it was."""
    usage = {"prompt_tokens": 1, "prompt_tokens_details": None}
    assert decode_usage(event({"usage": usage, "region": None})).data.usage == usage


def test_unknown_fields_are_ignored() -> None:
    """A newer emitter may send more than this version knows."""
    assert decode_usage(event({"shiny": [1]}, dataschema="x")).data == decode_usage(event()).data


def test_latency_may_be_fractional() -> None:
    """Latency informs only; a policy that measures in fractions of a millisecond must not lose its bill."""
    assert decode_usage(event({"latency_ms": 930.25})).data.latency_ms == 930.25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T15:30:00+05:30", datetime(2026, 11, 21, 10, 0, tzinfo=UTC)),
        ("2026-11-21T10:00:00z", datetime(2026, 11, 21, 10, 0, tzinfo=UTC)),
        ("2026-09-21T00:00:00Z", datetime(2026, 9, 21, tzinfo=UTC)),
        ("2026-11-21T10:05:00Z", datetime(2026, 11, 21, 10, 5, tzinfo=UTC)),
    ],
)
def test_times_become_utc(text: str, expected: datetime) -> None:
    """Any offset is understood, two months late is fine, and so is a clock under five minutes ahead."""
    time_utc = decode_event(event(time=text), NOW).time_utc
    assert (time_utc, time_utc.utcoffset()) == (expected, timedelta(0))


@pytest.mark.parametrize("time", [..., None])
def test_a_missing_time_is_refused(time: object) -> None:
    """The time fixes hour, period and price: a retry stamped by us would land elsewhere and bill twice."""
    error = refusal(event(time=time))
    assert (error.code, error.param) == ("time_missing", "time")


def test_an_event_from_the_future_is_refused() -> None:
    """More than five minutes ahead is a broken clock, and would be billed to a period not open yet."""
    error = refusal(event(time="2026-11-21T10:05:02Z"))
    assert (error.code, error.param) == ("time_in_future", "time")


@pytest.mark.parametrize(
    "time", ["2026-11-21T10:00:00", "yesterday", 1763719200, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
)
def test_an_unusable_time_is_refused(time: object) -> None:
    """No offset, no date, a bare number, the ends of the calendar: each names the field."""
    error = refusal(event(time=time))
    assert (error.code, error.param) == ("invalid_event", "time")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (event().replace(b"gpt-4o-mini", b"gpt-\xff"), "invalid_json", None),
        (event().replace(b"gpt-4o-mini", b"gpt-\n"), "invalid_json", None),
        (event()[:-2] + b', "deep": ' + b"[" * 100_000, "invalid_json", None),
        (b"[]", "invalid_event", None),
        (b'"text"', "invalid_event", None),
        (event(type=...), "type_unknown", "type"),
        (event(type=None), "type_unknown", "type"),
        (event(type="tollkeeper.usage.v9"), "type_unknown", "type"),
        (event(specversion="0.3"), "invalid_event", "specversion"),
        (event(specversion=...), "invalid_event", "specversion"),
        (event(id=""), "invalid_event", "id"),
        (event(id=7), "invalid_event", "id"),
        (event(id="x" * 513), "invalid_event", "id"),
        (event(source=...), "invalid_event", "source"),
        (event(data=...), "invalid_event", "data"),
        (event(data=None), "invalid_event", "data"),
        (event(data=[]), "invalid_event", "data"),
        (event({"tenant": ...}), "invalid_event", "data.tenant"),
        (event({"tenant": 5}), "invalid_event", "data.tenant"),
        (event({"tenant": "a b"}), "invalid_event", "data.tenant"),
        (event({"tenant": "{x}"}), "invalid_event", "data.tenant"),
        (event({"identity": {"oid": "a"}}), "invalid_event", "data.tenant"),
        (event({"tenant": ..., "identity": []}), "invalid_event", "data.identity"),
        (event({"tenant": ..., "identity": {"oid": 7}}), "invalid_event", "data.identity.oid"),
        (event({"tenant": ..., "identity": {"oid": "x" * 257}}), "invalid_event", "data.identity.oid"),
        (event({"tenant": ..., "identity": {"app": "a\nb"}}), "invalid_event", "data.identity.app"),
        (event({"tenant": ..., "identity": {"groups": "g"}}), "invalid_event", "data.identity.groups"),
        (event({"tenant": ..., "identity": {"groups": ["g"] * 1001}}), "invalid_event", "data.identity.groups"),
        (event({"scopes": ...}), "invalid_event", "data.scopes"),
        (event({"tenant": ..., "scopes": ...}), "invalid_event", "data.tenant"),
        (event({"scopes": {"team": 5}}), "invalid_event", "data.scopes[...]"),
        (event({"scopes": {"team": "x" * 4096}}), "invalid_event", "data.scopes.team"),
        (event({"scopes": {"team": "a\nb"}}), "invalid_event", "data.scopes.team"),
        (event({"scopes": {"Te:am": "x"}}), "invalid_event", "data.scopes"),
        (event({"scopes": {f"t{i}": "x" for i in range(17)}}), "invalid_event", "data.scopes"),
        (event({"model": ..., "requested_model": ...}), "invalid_event", "data.model"),
        (event({"model": "x" * 129}), "invalid_event", "data.model"),
        (event({"model": "a\u0000b"}), "invalid_event", "data.model"),
        (event({"region": "we\r\nst"}), "invalid_event", "data.region"),
        (event({"reservation": "x" * (64 * 1024 + 1)}), "invalid_event", "data.reservation"),
        (event({"usage": [1]}), "invalid_event", "data.usage"),
        (event({"status": "200"}), "invalid_event", "data.status"),
        (event({"streamed": 1}), "invalid_event", "data.streamed"),
        (event({"input_tokens_estimate": -1}), "invalid_event", "data.input_tokens_estimate"),
        (event({"max_output_tokens": 10**12 + 1}), "invalid_event", "data.max_output_tokens"),
        (event({"max_output_tokens": 1.5}), "invalid_event", "data.max_output_tokens"),
        (event({"attempt": 0}), "invalid_event", "data.attempt"),
        (event({"latency_ms": -3}), "invalid_event", "data.latency_ms"),
        (event({"deployment": None, "status": "x"}), "invalid_event", "data.status"),
        (b" " * (MAX_EVENT_BYTES + 1), "too_large", None),
    ],
)
def test_a_refusal_has_a_code_and_names_the_field(body: bytes, code: str, param: str | None) -> None:
    """Whatever is wrong, the code is stable and the message starts with the JSON path of the field."""
    error = refusal(body)
    assert (error.code, error.param) == (code, param)
    assert param is None or error.message.startswith(f"{param}")


@pytest.mark.parametrize(
    ("id_", "attempt", "identity"),
    [("r-1", 1, "r-1"), ("r-1", 2, "r-1/2"), ("r-1/2", 2, "r-1/2"), ("r-1/2", 3, "r-1/2/3")],
)
def test_the_identity_includes_the_attempt(id_: str, attempt: int, identity: str) -> None:
    """A retry inside the gateway shares the request id; without the attempt its cost would go unbilled."""
    assert decode_usage(event({"attempt": attempt}, id=id_)).identity_id == identity


def grant(**changes: Any) -> bytes:
    """A grant event, its data changed."""
    fields: dict[str, Any] = {
        "tenant": "contoso",
        "cell": "team:search|2026-11",
        "amount": "-12.50",
        "who": "ada@contoso.com",
        "why": "agreed with finance",
    }
    return event(type="tollkeeper.grant.v1", data={**fields, **changes})


def test_a_grant_is_built_and_decoded_exactly() -> None:
    """The amount travels as a decimal string and comes back to the nano-dollar."""
    built = grant_event_bytes(
        "admin", "g-1", TIME, tenant="contoso", cell="c", amount_nano_usd=-12_345_678_901, who="ada", why="agreed"
    )
    decoded = decode_event(built, NOW)
    assert isinstance(decoded, GrantEvent)
    assert decoded.data.amount == "-12.345678901"
    assert decoded.data.amount_nano_usd == -(12 * 10**9 + 345_678_901)
    assert decoded.identity_id == "g-1"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"amount": "a lot"}, "data.amount"),
        ({"amount": 12.5}, "data.amount"),
        ({"amount": "0.0000000001"}, "data.amount"),
        ({"amount": "NaN"}, "data.amount"),
        ({"amount": "1e400"}, "data.amount"),
        ({"who": ""}, "data.who"),
        ({"why": ""}, "data.why"),
        ({"why": "x\ny"}, "data.why"),
        ({"cell": ""}, "data.cell"),
        ({"tenant": ""}, "data.tenant"),
    ],
)
def test_a_grant_without_amount_person_or_reason_is_refused(changes: dict[str, Any], param: str) -> None:
    """A correction nobody signed, or of no exact amount, never reaches a counter."""
    error = refusal(grant(**changes))
    assert (error.code, error.param) == ("invalid_event", param)


def true_up(accrual: str = "request-1") -> bytes:
    """The true-up of a call, as the product publishes it."""
    return true_up_event_bytes(
        "apim/prod-weu", accrual, TIME, tenant="contoso", prompt_tokens=812, completion_tokens=240
    )


def test_a_true_up_names_its_accrual_by_its_own_id() -> None:
    """Under another id a second true-up of the same accrual would be another event, and be billed as well."""
    found = decode_event(true_up(), NOW)
    assert isinstance(found, TrueUpEvent)
    assert (found.id, found.data.accrual, found.time_utc) == ("request-1/true-up", "request-1", TIME)
    assert found.data.usage == {"prompt_tokens": 812, "completion_tokens": 240, "total_tokens": 1052}
    error = refusal(true_up().replace(b'"id":"request-1/true-up"', b'"id":"request-2/true-up"'))
    assert (error.code, error.param) == ("invalid_event", "id")


def test_a_true_up_of_the_longest_id_can_be_decoded() -> None:
    """What was accepted as a call must be accepted as its true-up, or that call could never be measured."""
    longest = "i" * 512
    assert decode_event(event(id=longest), NOW).id == longest
    assert decode_event(true_up(f"{longest}/1000"), NOW).id == f"{longest}/1000/true-up"


def re_rate(call: str = "request-1") -> bytes:
    """A re-rate of a call, as the product publishes it."""
    fields = {"tenant": "contoso", "run": "00ff00ff00ff", "config_version": "v1", "who": "oid", "why": "list was wrong"}
    return re_rate_event_bytes("apim/prod-weu", call, TIME, **fields)


def correction(**changes: Any) -> bytes:
    """A correction of the bill, as the product publishes it."""
    fields = {
        "tenant": "contoso",
        "amount_nano_usd": -12_345_678_901,
        "who": "tollkeeper",
        "why": "variance",
        **changes,
    }
    return correction_event_bytes("tollkeeper/reconciliation/contoso", "2026-11/a/1", TIME, **fields)


def test_a_re_rate_names_its_call_by_its_own_id() -> None:
    """The id follows from call and run, up to the longest id a call may have; another one is refused."""
    found = decode_event(re_rate(), NOW)
    assert isinstance(found, ReRateEvent)
    assert (found.id, found.data.call, found.time_utc) == ("request-1/re-rate/00ff00ff00ff", "request-1", TIME)
    longest = "i" * 512 + "/1000"
    assert decode_event(re_rate(longest), NOW).id == f"{longest}/re-rate/00ff00ff00ff"
    for harm in (
        (b'"id":"request-1/', b'"id":"request-2/'),
        (b'"run":"00', b'"run":"11'),
        (b'"run":"00ff', b'"run":"xyz'),
    ):
        assert refusal(re_rate().replace(*harm)).code == "invalid_event"


def test_a_correction_is_exact_and_signed() -> None:
    """An amount to the nano-dollar, of a team or of nobody, with who and why."""
    found = decode_event(correction(scopes={"team": "search"}, deployment="gpt-4o-weu"), NOW)
    assert isinstance(found, CorrectionEvent)
    assert (found.data.amount_nano_usd, found.data.scopes) == (-12_345_678_901, {"team": "search"})
    assert decode_event(correction(), NOW).data.scopes == {}
    for harm, param in (
        ({"who": ""}, "data.who"),
        ({"why": "a\nb"}, "data.why"),
        ({"scopes": {"T": "x"}}, "data.scopes"),
    ):
        assert refusal(correction(**harm)).param == param
    assert refusal(correction().replace(b"-12.345678901", b"1e99")).param == "data.amount"


@pytest.mark.parametrize("body", [true_up(), re_rate(), correction()], ids=["true-up", "re-rate", "correction"])
def test_nobody_may_post_what_corrects_the_bill(body: bytes) -> None:
    """Whoever may report usage could else replace what any call was billed."""
    with pytest.raises(EventRejected) as caught:
        decode_http(ONE, body, NOW)
    assert (caught.value.code, caught.value.param) == ("type_unknown", "type")


@pytest.mark.parametrize(
    ("id_", "attempt", "expected"), [("r-1", 1, "r-1"), ("r-1", 2, "r-1"), ("r-1/2", 2, "r-1"), ("r/2", 1, "r/2")]
)
def test_the_correlation_id_leaves_the_attempt_out(id_: str, attempt: int, expected: str) -> None:
    """The gateway's log knows the request, not which attempt answered it."""
    assert decode_usage(event({"attempt": attempt}, id=id_)).correlation_id == expected


def test_equal_arguments_build_equal_bytes() -> None:
    """A retry repeats its bytes, or it would be a conflict; the time is UTC whatever zone it came in."""
    kolkata = TIME.astimezone(ZoneInfo("Asia/Kolkata"))
    assert usage_event_bytes("s", "i", TIME, data()) == usage_event_bytes("s", "i", kolkata, data())
    assert decode_usage(usage_event_bytes("s", "i", TIME, data())).time_utc == TIME


def test_the_partition_key_depends_on_the_identity_alone() -> None:
    """A retry lands in the partition of its first try, whatever its body; other identities spread over 16 keys."""
    assert (
        partition_key_of(event())
        == partition_key_of(event({"status": 500}))
        == partition_key("apim/prod-weu", "request-1")
    )

    assert len({partition_key("apim", f"r-{number}") for number in range(1000)}) == 16


def test_http_takes_a_single_event_compact() -> None:
    """Blanks go, everything else stays as sent."""
    accepted, rejected = decode_http(ONE, json.dumps(json.loads(event()), indent=4).encode(), NOW)
    assert rejected == []
    assert accepted == [json.dumps(json.loads(event()), separators=(",", ":")).encode()]


def test_http_refuses_a_bad_single_event_with_its_reason() -> None:
    """There is nothing to accept beside it, so the request itself fails."""
    with pytest.raises(EventRejected) as caught:
        decode_http(ONE, event(time=...), NOW)
    assert (caught.value.code, caught.value.http_status) == ("time_missing", 400)


def test_http_takes_the_good_and_reports_the_bad_of_a_batch() -> None:
    """One bad event never costs its batch; each refusal carries its index."""
    bad_usage = event({"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}})
    body = b"[" + b",".join([event(), event(time=...), event(id="request-2"), bad_usage, b"7"]) + b"]"
    accepted, rejected = decode_http(MANY, body, NOW)
    assert [json.loads(one)["id"] for one in accepted] == ["request-1", "request-2"]
    assert [(entry["index"], entry["code"]) for entry in rejected] == [
        (1, "time_missing"),
        (3, "usage_unreadable"),
        (4, "invalid_event"),
    ]


def test_http_takes_no_grants() -> None:
    """Whoever may report usage may not give itself budget."""
    _, rejected = decode_http(MANY, b"[" + grant() + b"]", NOW)
    assert [(entry["code"], entry["param"]) for entry in rejected] == [("type_unknown", "type")]


def test_http_puts_the_caller_before_the_source() -> None:
    """A client cannot claim the ids of another emitter's calls, which would suppress their bill."""
    accepted, _ = decode_http(ONE, event(), NOW, caller="app-7")
    decoded = decode_usage(accepted[0])
    assert (decoded.source, decoded.id, decoded.data) == (
        "app-7/apim/prod-weu",
        "request-1",
        decode_usage(event()).data,
    )


def test_http_refuses_a_source_that_grows_too_long() -> None:
    """Accepted must mean decodable: with the caller in front the source may pass its limit."""
    with pytest.raises(EventRejected) as caught:
        decode_http(ONE, event(source="s" * 512), NOW, caller="app-7")
    assert caught.value.param == "source"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/plain", b"{}"), ("", b"{}"), (MANY, b"{}"), (MANY, b"[1,"), (MANY, b"[" * 100_000), (MANY, b"\xff")],
)
def test_http_refuses_what_is_no_cloudevent(content_type: str, body: bytes) -> None:
    """Another content type or a batch that is no array fails as a whole."""
    with pytest.raises(InvalidRequest):
        decode_http(content_type, body, NOW)
