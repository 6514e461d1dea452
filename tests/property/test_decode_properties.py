"""Decoding holds for input nobody thought of: it raises one type of error, and what is valid comes back whole."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.usage.build import grant_event_bytes, usage_event_bytes
from shared.usage.events import GrantEvent, UsageEvent, decode_event, decode_http
from shared.usage.rejected import EventRejected
from shared.usage.tokens import PRICED_KINDS, count_tokens

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)

labels = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=128)
scope_types = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
scope_keys = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=60)
tenants = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
counts = st.integers(0, 10**12)
instants = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2026, 11, 20),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
usage_objects = st.dictionaries(
    st.sampled_from(
        ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "prompt_tokens_details"]
    )
    | st.sampled_from(["cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "service_tier"]),
    counts
    | json_values
    | st.dictionaries(
        st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "ephemeral_1h_input_tokens"]),
        counts | json_values,
    ),
)
usage_data = st.fixed_dictionaries(
    {"tenant": tenants, "scopes": st.dictionaries(scope_types, scope_keys, max_size=4), "model": labels},
    optional={
        "requested_model": labels,
        "provider": labels,
        "operation": labels,
        "deployment": labels,
        "region": labels,
        "decision": labels,
        "processing_tier": labels,
        "streamed": st.booleans(),
        "status": st.integers(0, 999),
        "usage": st.none() | usage_objects,
        "reservation": st.none() | labels,
        "input_tokens_estimate": st.none() | counts,
        "max_output_tokens": st.none() | counts,
        "latency_ms": st.none() | counts,
        "attempt": st.integers(1, 1000),
    },
)


def decode_or_reject(body: bytes) -> UsageEvent | GrantEvent | None:
    """The event, or None when it is refused in the one allowed way."""
    try:
        return decode_event(body, NOW)
    except EventRejected:
        return None


@given(st.binary(max_size=400))
@settings(max_examples=500)
def test_arbitrary_bytes_raise_nothing_but_a_rejection(body: bytes) -> None:
    """Whatever the hub delivers becomes an event or a dead letter, never a crash that costs its batch."""
    decode_or_reject(body)


@given(st.dictionaries(st.sampled_from(["specversion", "type", "source", "id", "time", "data", "x"]), json_values))
def test_arbitrary_json_raises_nothing_but_a_rejection(event: dict[str, Any]) -> None:
    """Well-formed JSON of any shape is judged, not tripped over."""
    decode_or_reject(json.dumps(event).encode())


@given(usage_data, st.data())
def test_one_broken_field_raises_nothing_but_a_rejection(data: dict[str, Any], draw: st.DataObject) -> None:
    """A valid event with one field replaced by anything is an event or a rejection."""
    broken = {**data, draw.draw(st.sampled_from(sorted(data))): draw.draw(json_values)}
    decode_or_reject(usage_event_bytes("apim", "id", NOW, broken))


@given(usage_data, st.data())
def test_damaged_bytes_raise_nothing_but_a_rejection(data: dict[str, Any], draw: st.DataObject) -> None:
    """Bytes cut, replaced or inserted on the way are an event or a rejection."""
    body = usage_event_bytes("apim", "id", NOW, data)
    start = draw.draw(st.integers(0, len(body)))
    end = draw.draw(st.integers(start, min(len(body), start + 8)))
    decode_or_reject(body[:start] + draw.draw(st.binary(max_size=4)) + body[end:])


@given(labels, labels, instants, usage_data)
def test_a_valid_event_round_trips(source: str, id_: str, time: datetime, data: dict[str, Any]) -> None:
    """Every field of a valid event comes back as sent, the instant exactly and in UTC."""
    event = decode_event(usage_event_bytes(source, id_, time, data), NOW)
    assert isinstance(event, UsageEvent)
    assert (event.source, event.id, event.time_utc) == (source, id_, time)
    assert event.time_utc.utcoffset() == timedelta(0)
    for name, value in data.items():
        assert getattr(event.data, name) == value
    assert list(event.data.scopes) == sorted(event.data.scopes)


@given(labels, instants, tenants, st.integers(-(10**18), 10**18), labels)
def test_a_grant_round_trips(id_: str, time: datetime, tenant: str, amount_nano_usd: int, text: str) -> None:
    """A grant's amount comes back to the nano-dollar."""
    body = grant_event_bytes(
        "admin", id_, time, tenant=tenant, cell=text, amount_nano_usd=amount_nano_usd, who=text, why=text
    )
    event = decode_event(body, NOW)
    assert isinstance(event, GrantEvent)
    assert event.data.amount_nano_usd == amount_nano_usd
    assert (event.data.tenant, event.data.cell, event.data.who, event.data.why) == (tenant, text, text, text)


@given(st.sampled_from(["application/cloudevents+json", "application/cloudevents-batch+json"]), st.binary(max_size=200))
def test_an_arbitrary_post_is_answered(content_type: str, body: bytes) -> None:
    """A POST of anything is refused as a whole, or every event in it is accepted or refused with its index."""
    with contextlib.suppress(EventRejected, InvalidRequest):
        accepted, rejected = decode_http(content_type, body, NOW)
        assert len(accepted) + len(rejected) == len(json.loads(body))


@given(st.lists(usage_data | json_values, max_size=5))
def test_what_the_door_accepts_the_hub_can_decode(datas: list[Any]) -> None:
    """Accepted means billable: no accepted event is rejected later, with or without the caller's name in front."""
    body = b"[" + b",".join(usage_event_bytes("s", str(i), NOW, data) for i, data in enumerate(datas)) + b"]"
    for caller in (None, "app-7"):
        accepted, rejected = decode_http("application/cloudevents-batch+json", body, NOW, caller)
        assert len(accepted) + len(rejected) == len(datas)
        for event in accepted:
            decode_event(event, NOW)


@given(usage_objects | st.dictionaries(st.text(), json_values), st.sampled_from(["openai", "anthropic", ""]))
def test_any_usage_object_is_counted_or_refused(usage: dict[str, Any], provider: str) -> None:
    """Counts are positive integers of known kinds; or the object is refused in the one allowed way."""
    try:
        tokens = count_tokens(usage, provider)
    except EventRejected:
        return
    assert tokens is None or all(type(count) is int and count > 0 for count in tokens.values())
    assert set(tokens or ()) <= {*PRICED_KINDS, "reasoning"}


@given(st.integers(0, 10**11), st.integers(0, 10**11), st.data())
def test_the_priced_kinds_partition_input_and_output(total_in: int, total_out: int, draw: st.DataObject) -> None:
    """Whatever the details say, the priced tokens sum to input plus output: none twice, none lost."""
    cached = draw.draw(st.integers(0, total_in))
    audio = draw.draw(st.integers(0, total_in - cached))
    reasoning = draw.draw(st.integers(0, total_out))
    audio_out = draw.draw(st.integers(0, total_out))
    usage = {
        "prompt_tokens": total_in,
        "completion_tokens": total_out,
        "total_tokens": total_in + total_out,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": audio_out},
    }
    tokens = count_tokens(usage, "openai")
    assert tokens is not None
    assert sum(tokens.get(kind, 0) for kind in PRICED_KINDS) == total_in + total_out
