"""The events on the usage hub: CloudEvents 1.0 in structured JSON, decoded and checked before anything else sees them.

Decoding is on the path of every billed call, so the rules that typed decoding cannot express run after it, by hand,
and cost nothing for events that need no second look.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta, Struct

from shared.config.identity import validate_identity
from shared.decoding import field_and_problem
from shared.errors import InvalidRequest
from shared.money import nano_from_decimal
from shared.scopes import CONTROL_CHARACTER, validate_scopes, validate_tenant
from shared.usage.correcting_events import (
    CORRECTION_TYPE,
    RE_RATE_TYPE,
    CorrectionData,
    CorrectionEvent,
    ReRateData,
    ReRateEvent,
    check_correction,
    check_re_rate,
)
from shared.usage.event_fields import MAX_IDENTIFIER_CHARS, DerivedIdentifier, Identifier, Label, Text
from shared.usage.refusal_events import REFUSAL_TYPE, RefusalData, RefusalEvent, check_refusal
from shared.usage.rejected import EventRejected
from shared.usage.tokens import MAX_TOKENS, count_tokens

USAGE_TYPE = "tollkeeper.usage.v1"
GRANT_TYPE = "tollkeeper.grant.v1"
TRUE_UP_TYPE = "tollkeeper.true_up.v1"
TRUE_UP_SUFFIX = "/true-up"  # behind the accrual's id
MAX_EVENT_BYTES = 256 * 1024
MAX_RESERVATION = 64 * 1024  # a token names every counter it holds, and callers may choose long keys
MAX_AHEAD = timedelta(minutes=5)  # further ahead is a broken clock, and would be billed to a period not yet open

TokenCount = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Milliseconds = Annotated[int, Meta(ge=0, le=10**12)] | Annotated[float, Meta(ge=0, le=1e12)]


_NO_SCOPES: dict[str, str] = {}  # what an event has that leaves them out; it stays empty, for checked ones are a copy


class UsageData(Struct, kw_only=True):
    """What one call used, as the gateway saw it. Token numbers stay in the provider's own `usage` object."""

    tenant: str = ""  # empty while `identity` stands for it
    scopes: dict[str, str] = msgspec.field(default_factory=lambda: _NO_SCOPES)
    identity: dict[str, Any] | None = None  # of an unchecked call; `scopes` are then the client-asserted ones
    model: Label = ""  # the model that served the call; the requested one when the gateway named only that
    requested_model: Label = ""
    provider: Label = ""
    operation: Label = ""
    deployment: Label = ""
    region: Label = ""
    decision: Label = ""
    processing_tier: Label = ""
    streamed: bool = False
    aborted: bool = False  # the gateway saw the stream cut before its tokens came, so its sender knows of no more
    status: Annotated[int, Meta(ge=0, le=999)] = 200  # 0: the backend was never reached
    usage: dict[str, Any] | None = None
    reservation: Annotated[str, Meta(max_length=MAX_RESERVATION)] | None = None
    input_tokens_estimate: TokenCount | None = None
    output_tokens_estimate: TokenCount | None = None  # of a broken answer, whose `usage` then tells at most its input
    max_output_tokens: TokenCount | None = None
    latency_ms: Milliseconds | None = None
    attempt: Annotated[int, Meta(ge=1, le=1000)] = 1


class GrantData(Struct, kw_only=True):
    """A correction of one budget counter by a person. It never changes the bill."""

    tenant: str
    cell: Text  # the one counter it moves
    amount: Annotated[str, Meta(max_length=32)]  # USD, signed: what is added to the counter's spend
    who: Text
    why: Text

    @property
    def amount_nano_usd(self) -> int:
        """The amount in nano-USD; cannot fail on a decoded event."""
        return nano_from_decimal(self.amount)


class TrueUpData(Struct, kw_only=True):
    """What an accrued call really used. Everything else about the call stands in the ledger row of its accrual."""

    tenant: Label
    accrual: DerivedIdentifier  # the id under which the accrual stands in the ledger
    usage: dict[str, Any]
    processing_tier: Label = ""
    max_output_tokens: TokenCount | None = None


class UsageEvent(Struct, frozen=True):
    """A checked usage event. `content_digest` is of the bytes the hub delivered, which every retry repeats."""

    source: str
    id: str
    time_utc: datetime  # admission of the call
    data: UsageData
    content_digest: str

    @property
    def identity_id(self) -> str:
        """The id that bills: it includes the attempt, or a retry inside the gateway would go unbilled."""
        attempt = self.data.attempt
        if attempt == 1 or self.id.endswith(f"/{attempt}"):
            return self.id
        return f"{self.id}/{attempt}"

    @property
    def correlation_id(self) -> str:
        """The gateway's id of the request, without an attempt: what the LLM log names the same call by."""
        attempt = self.data.attempt
        return self.id if attempt == 1 else self.id.removesuffix(f"/{attempt}")


class GrantEvent(Struct, frozen=True):
    """A checked grant event."""

    source: str
    id: str
    time_utc: datetime
    data: GrantData
    content_digest: str

    @property
    def identity_id(self) -> str:
        """The id itself: a grant has no attempts."""
        return self.id


class TrueUpEvent(Struct, frozen=True):
    """A checked true-up event. The product itself publishes it; nobody may post one."""

    source: str
    id: str
    time_utc: datetime  # of the accrual, which leads to the ledger row
    data: TrueUpData
    content_digest: str


class _Enveloped(Struct, kw_only=True):
    specversion: Literal["1.0"]
    source: Identifier
    id: Identifier
    time: Annotated[datetime, Meta(tz=True)] | None = None


class _UsageEnvelope(_Enveloped, tag_field="type", tag=USAGE_TYPE, kw_only=True):
    data: UsageData


class _GrantEnvelope(_Enveloped, tag_field="type", tag=GRANT_TYPE, kw_only=True):
    data: GrantData


class _TrueUpEnvelope(_Enveloped, tag_field="type", tag=TRUE_UP_TYPE, kw_only=True):
    id: DerivedIdentifier
    data: TrueUpData


class _ReRateEnvelope(_Enveloped, tag_field="type", tag=RE_RATE_TYPE, kw_only=True):
    id: DerivedIdentifier
    data: ReRateData


class _CorrectionEnvelope(_Enveloped, tag_field="type", tag=CORRECTION_TYPE, kw_only=True):
    data: CorrectionData


class _RefusalEnvelope(_Enveloped, tag_field="type", tag=REFUSAL_TYPE, kw_only=True):
    data: RefusalData


Event = UsageEvent | GrantEvent | TrueUpEvent | ReRateEvent | CorrectionEvent | RefusalEvent
_OtherEnvelope = _GrantEnvelope | _TrueUpEnvelope | _ReRateEnvelope | _CorrectionEnvelope | _RefusalEnvelope
_Envelope = _UsageEnvelope | _OtherEnvelope
_DECODER: msgspec.json.Decoder[_Envelope] = msgspec.json.Decoder(_Envelope)
_BATCH_DECODER = msgspec.json.Decoder(list[msgspec.Raw])
_EVENT_TYPE = "application/cloudevents+json"
_BATCH_TYPE = "application/cloudevents-batch+json"


def decode_event(body: bytes, now_utc: datetime) -> Event:
    """The event in `body`, or EventRejected with a stable code and the JSON path of the field that is wrong.

    `now_utc` is compared with the event's time only to refuse events from the future.
    """
    if len(body) > MAX_EVENT_BYTES:
        raise EventRejected(f"the event has {len(body)} bytes; at most {MAX_EVENT_BYTES} are taken", code="too_large")
    envelope = _decode_envelope(body)
    time_utc = _checked_time(envelope.time, now_utc)
    digest = blake2b(body, digest_size=16).hexdigest()
    try:
        if isinstance(envelope, _UsageEnvelope):
            _check_usage(envelope.data)
        else:
            _check_other(envelope)
        if b"\\" in body:  # JSON can carry a control character only as an escape
            _refuse_control_characters(envelope)
    except InvalidRequest as error:
        raise EventRejected(error.message, param=error.param) from None
    if isinstance(envelope, _UsageEnvelope):
        return UsageEvent(envelope.source, envelope.id, time_utc, envelope.data, digest)
    if isinstance(envelope, _GrantEnvelope):
        return GrantEvent(envelope.source, envelope.id, time_utc, envelope.data, digest)
    if isinstance(envelope, _TrueUpEnvelope):
        return TrueUpEvent(envelope.source, envelope.id, time_utc, envelope.data, digest)
    if isinstance(envelope, _ReRateEnvelope):
        return ReRateEvent(envelope.source, envelope.id, time_utc, envelope.data, digest)
    if isinstance(envelope, _RefusalEnvelope):
        return RefusalEvent(envelope.source, envelope.id, time_utc, envelope.data, digest)
    return CorrectionEvent(envelope.source, envelope.id, time_utc, envelope.data, digest)


def _check_other(envelope: _OtherEnvelope) -> None:
    """What typed decoding cannot express. Raises InvalidRequest or EventRejected."""
    if isinstance(envelope, _GrantEnvelope):
        _check_grant(envelope.data)
    elif isinstance(envelope, _TrueUpEnvelope):
        _check_true_up(envelope)
    elif isinstance(envelope, _ReRateEnvelope):
        check_re_rate(envelope.id, envelope.data)
    elif isinstance(envelope, _RefusalEnvelope):
        check_refusal(envelope.data)
    else:
        check_correction(envelope.data)


def _decode_envelope(body: bytes) -> _Envelope:
    envelope: _Envelope
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        if b"null" not in body:
            _reject(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventRejected(f"not valid JSON: {error}", code="invalid_json") from None
    try:  # many emitters write null for what they do not know; it means the same as leaving the field out
        envelope = msgspec.convert(_without_nulls(msgspec.json.decode(body)), _Envelope)
    except msgspec.ValidationError as error:
        _reject(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventRejected(f"not valid JSON: {error}", code="invalid_json") from None
    return envelope


def _without_nulls(event: object) -> object:
    """The event without the null members of its envelope and its data; the provider's usage object stays verbatim."""
    if not isinstance(event, dict):
        return event
    present = {name: value for name, value in event.items() if value is not None}
    data = present.get("data")
    if isinstance(data, dict):
        present["data"] = {name: value for name, value in data.items() if value is not None}
    return present


def _reject(error: msgspec.ValidationError) -> NoReturn:
    path, problem = field_and_problem(error)
    if path == "type":
        known = ", ".join((USAGE_TYPE, GRANT_TYPE, TRUE_UP_TYPE, RE_RATE_TYPE, CORRECTION_TYPE, REFUSAL_TYPE))
        message = f"type: expected one of {known} ({problem})"
        raise EventRejected(message, code="type_unknown", param=path) from None
    raise EventRejected(f"{path or 'event'}: {problem}", param=path or None) from None


def _checked_time(time: datetime | None, now_utc: datetime) -> datetime:
    """The time in UTC. It fixes period, price and ledger hour, so there is no guessing one that is missing."""
    if time is None:
        message = "time: required, but missing; expected the RFC 3339 instant at which the call was admitted"
        raise EventRejected(message, code="time_missing", param="time")
    if not 2000 <= time.year <= 2100:  # before astimezone, which overflows at the ends of the calendar
        raise EventRejected(f"time: expected a year from 2000 to 2100, got {time.year}", param="time")
    time_utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    if time_utc > now_utc + MAX_AHEAD:
        message = f"time: {time_utc.isoformat()} is more than 5 minutes after {now_utc.isoformat()}; check the clock"
        raise EventRejected(message, code="time_in_future", param="time")
    return time_utc


def _check_usage(data: UsageData) -> None:
    if data.identity is None:
        _check_stated_caller(data)
    elif data.tenant:  # whichever of the two won, somebody would be billed whom the emitter did not mean
        message = "data.tenant: cannot be stated beside `data.identity`, which says whose call it is"
        raise EventRejected(message, param="data.tenant")
    else:
        validate_identity(data.identity, "data.identity")
    data.scopes = validate_scopes(data.scopes, "data.scopes")
    if not data.model:
        if not data.requested_model:
            raise EventRejected("data.model: required, but missing", param="data.model")
        data.model = data.requested_model
    elif not data.requested_model:
        data.requested_model = data.model


def _check_stated_caller(data: UsageData) -> None:
    if not data.tenant:
        raise EventRejected("data.tenant: required unless `data.identity` is given", param="data.tenant")
    validate_tenant(data.tenant, "data.tenant")
    if data.scopes is _NO_SCOPES:
        raise EventRejected("data.scopes: required unless `data.identity` is given", param="data.scopes")


def _check_grant(data: GrantData) -> None:
    validate_tenant(data.tenant, "data.tenant")
    try:
        nano_from_decimal(data.amount)
    except ValueError as error:
        raise EventRejected(f"data.amount: {error}", param="data.amount") from None


def _check_true_up(envelope: _TrueUpEnvelope) -> None:
    """Its id follows from its accrual's, or two true-ups of one accrual would both be billed."""
    validate_tenant(envelope.data.tenant, "data.tenant")
    if envelope.id != envelope.data.accrual + TRUE_UP_SUFFIX:
        raise EventRejected(f"id: expected that of the accrual with {TRUE_UP_SUFFIX!r} behind it", param="id")


def _refuse_control_characters(envelope: _Envelope) -> None:
    """Names end up in logs, CSV files and store columns, where a line break or NUL would forge or break a line."""
    for path, struct in (("", envelope), ("data.", envelope.data)):
        for name, value in msgspec.structs.asdict(struct).items():
            if isinstance(value, str) and CONTROL_CHARACTER.search(value):
                raise EventRejected(f"{path}{name}: control characters are not allowed", param=f"{path}{name}")


def decode_http(
    content_type: str, body: bytes, now_utc: datetime, caller: str | None = None
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The usage events of one POST: accepted ones as compact bytes for the hub, refused ones with the reason.

    `caller` is the authenticated client. It goes in front of each event's source, so that nobody can claim the ids of
    another emitter's calls and so suppress their bill. A refused one of a batch becomes `index, code, message, param`;
    a refused single event raises EventRejected. A batch that is no JSON array or another content type: InvalidRequest.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _EVENT_TYPE:
        return [_accept(body, now_utc, caller)], []
    if media_type != _BATCH_TYPE:
        message = f"content-type: expected {_EVENT_TYPE} or {_BATCH_TYPE}, got {media_type[:100]!r}"
        raise InvalidRequest(message, param="content-type")
    try:
        events = _BATCH_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the batch is not a JSON array of events: {error}") from None
    accepted: list[bytes] = []
    rejected: list[dict[str, Any]] = []
    for index, event in enumerate(events):
        try:
            accepted.append(_accept(bytes(event), now_utc, caller))
        except EventRejected as error:
            rejected.append({"index": index, "code": error.code, "message": error.message, "param": error.param})
    return accepted, rejected


def _accept(body: bytes, now_utc: datetime, caller: str | None) -> bytes:
    """The event as it goes onto the hub. Whoever may report usage may not give out budget, nor correct the bill."""
    event = decode_event(body, now_utc)
    if not isinstance(event, UsageEvent):
        message = f"type: expected {USAGE_TYPE!r}; what corrects budgets or the bill is published by the product itself"
        raise EventRejected(message, code="type_unknown", param="type")
    count_tokens(event.data.usage, event.data.provider)  # refused here the sender sees why, not only an operator
    if caller is not None:
        source = f"{caller}/{event.source}"
        if len(source) > MAX_IDENTIFIER_CHARS:
            message = f"source: at most {MAX_IDENTIFIER_CHARS - len(caller) - 1} characters are taken from this caller"
            raise EventRejected(message, param="source")
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        members["source"] = msgspec.Raw(msgspec.json.encode(source))
        body = msgspec.json.encode(members)
        decode_event(body, now_utc)  # the longer source may pass a limit, and accepted must mean decodable
    return msgspec.json.format(body, indent=-1)
