"""Events as they go onto the hub, and where on the hub they go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from shared.money import decimal_from_nano
from shared.usage.correcting_events import CORRECTION_TYPE, RE_RATE_TYPE, re_rate_id
from shared.usage.events import GRANT_TYPE, TRUE_UP_SUFFIX, TRUE_UP_TYPE, USAGE_TYPE
from shared.usage.refusal_events import REFUSAL_TYPE

Publish = Callable[[Sequence[tuple[str, bytes]]], Awaitable[None]]
"""Puts (partition key, event) pairs onto the hub; sending all again after an error is safe."""

_ENCODER = msgspec.json.Encoder()


class _Identity(msgspec.Struct):
    source: str
    id: str


_IDENTITY_DECODER = msgspec.json.Decoder(_Identity)


def usage_event_bytes(source: str, id: str, time_utc: datetime, data: dict[str, Any]) -> bytes:  # noqa: A002
    """A usage event as it goes onto the hub. Equal arguments give equal bytes, which a retry must repeat."""
    return _event_bytes(USAGE_TYPE, source, id, time_utc, data)


def grant_event_bytes(
    source: str,
    id: str,  # noqa: A002
    time_utc: datetime,
    *,
    tenant: str,
    cell: str,
    amount_nano_usd: int,
    who: str,
    why: str,
) -> bytes:
    """A grant event as it goes onto the hub. The amount is added to the cell's spend: negative gives room back."""
    amount = decimal_from_nano(amount_nano_usd)
    data = {"tenant": tenant, "cell": cell, "amount": amount, "who": who, "why": why}
    return _event_bytes(GRANT_TYPE, source, id, time_utc, data)


def true_up_event_bytes(
    source: str,
    accrual_id: str,
    time_utc: datetime,
    *,
    tenant: str,
    prompt_tokens: int,
    completion_tokens: int,
    processing_tier: str = "",
    max_output_tokens: int | None = None,
) -> bytes:
    """The true-up of an accrual as it goes onto the hub; `time_utc` is the accrual's. Equal arguments, equal bytes."""
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    data: dict[str, Any] = {"tenant": tenant, "accrual": accrual_id, "usage": usage}
    if processing_tier:
        data["processing_tier"] = processing_tier
    if max_output_tokens is not None:
        data["max_output_tokens"] = max_output_tokens
    return _event_bytes(TRUE_UP_TYPE, source, accrual_id + TRUE_UP_SUFFIX, time_utc, data)


def re_rate_event_bytes(
    source: str,
    call_id: str,
    time_utc: datetime,
    *,
    tenant: str,
    run: str,
    config_version: str,
    who: str,
    why: str,
) -> bytes:
    """A re-rate of the call that stands in the ledger under this identity; `run`: 12 hex digits that name this one.

    Its partition key is the call's.
    """
    data = {
        "tenant": tenant,
        "call": call_id,
        "run": run,
        "config_version": config_version,
        "who": who,
        "why": why,
    }
    return _event_bytes(RE_RATE_TYPE, source, re_rate_id(call_id, run), time_utc, data)


def correction_event_bytes(
    source: str,
    id: str,  # noqa: A002
    time_utc: datetime,
    *,
    tenant: str,
    amount_nano_usd: int,
    who: str,
    why: str,
    scopes: Mapping[str, str] | None = None,
    provider: str = "",
    deployment: str = "",
    region: str = "",
) -> bytes:
    """An amount on the bill that no call explains, signed, in nano-USD; `why` stands on the statement.

    `time_utc` is the day it is about, at most now; a month that is closed hands it to the open one. The id makes it
    idempotent: another amount under the same id is refused. Budgets do not count it.
    """
    data: dict[str, Any] = {
        "tenant": tenant,
        "amount": decimal_from_nano(amount_nano_usd),
        "who": who,
        "why": why,
        "scopes": dict(scopes or {}),
    }
    data |= {
        name: text for name, text in (("provider", provider), ("deployment", deployment), ("region", region)) if text
    }
    return _event_bytes(CORRECTION_TYPE, source, id, time_utc, data)


def refusal_event_bytes(
    source: str,
    id: str,  # noqa: A002
    time_utc: datetime,
    *,
    tenant: str,
    scopes: Mapping[str, str],
    requested_model: str,
    reason: str,
    status: int,
    calls: int,
    estimate_nano_usd: int,
    provider: str = "",
    operation: str = "",
    region: str = "",
) -> bytes:
    """So many calls that a budget refused, and what they were expected to cost together, in nano-USD."""
    data: dict[str, Any] = {
        "tenant": tenant,
        "scopes": dict(scopes),
        "requested_model": requested_model,
        "reason": reason,
        "status": status,
        "calls": calls,
        "estimate": decimal_from_nano(estimate_nano_usd),
    }
    data |= {
        name: text for name, text in (("provider", provider), ("operation", operation), ("region", region)) if text
    }
    return _event_bytes(REFUSAL_TYPE, source, id, time_utc, data)


def _event_bytes(type_: str, source: str, id_: str, time_utc: datetime, data: dict[str, Any]) -> bytes:
    time = time_utc.astimezone(UTC)
    return _ENCODER.encode(
        {"specversion": "1.0", "type": type_, "source": source, "id": id_, "time": time, "data": data}
    )


def partition_key(source: str, id: str) -> str:  # noqa: A002
    """The hub partition key of an identity: a retry lands in its first try's partition.

    A true-up passes its accrual's, a re-rate its call's. There are 16 keys: a message to the hub holds events of one
    key, so with a key per event each would be a round trip of its own (8 times slower).
    """
    return blake2b(f"{source}\n{id}".encode(), digest_size=8).hexdigest()[0]


def partition_key_of(event: bytes) -> str:
    """`partition_key` of an event that was accepted."""
    identity = _IDENTITY_DECODER.decode(event)
    return partition_key(identity.source, identity.id)
