"""Messages of the LLM log hub: what the gateway's diagnostic setting says each call used.

Of a message only ids, numbers and flags are ever decoded. Message texts, should a diagnostic setting send them, are
skipped as raw bytes; what is refused is kept without them, so that no prompt gets into a table or a log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from msgspec import Raw

from shared.usage.rejected import EventRejected

LLM_LOGS, GATEWAY_LOGS = "gatewayllmlogs", "gatewaylogs"  # names of categories come in any letter case
CLIENT_ABORT = "clientconnectionfailure"
MAX_LOGGED_TOKENS = 10**8  # of one call; more is a broken counter, and would be billed

Members = Mapping[str, Raw]  # of an object, by name in small letters
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_RECORDS = msgspec.json.Decoder(list[Raw])
_WHOLE = re.compile(r"[0-9]{1,12}(\.0+)?")
_TOKEN_FIELDS = ("promptTokens", "completionTokens", "totalTokens")
_NULL = b"null"
_SHOWN_CHARS = 64
_SHOWN = re.compile(r"[A-Za-z0-9.:_/+-]*")
_CORRELATION = re.compile(r"[!-~]{1,200}")  # no spaces: a sentence is no id, and must not be stored as one


class LogRecord(NamedTuple):
    """What one record says of one call. Token counts are None where it does not say, as on most of a call's records."""

    correlation_id: str  # in small letters: GUIDs come in either case
    sequence: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    streamed: bool | None = None  # None: the record does not say
    aborted: bool = False  # a gateway log's word that the client went away

    @property
    def says_something(self) -> bool:
        """Whether the record is worth keeping."""
        return self.aborted or self.prompt_tokens is not None or self.completion_tokens is not None


class Refused(NamedTuple):
    """A record, or a whole message, that cannot be read: why, and what may be kept of it."""

    reason: EventRejected
    kept: bytes  # JSON without any text that was not asked for; a message again, so that it can be replayed


class DecodedLog(NamedTuple):
    """What a message held."""

    records: list[LogRecord]
    refused: list[Refused]
    ignored: int  # records of other categories, and those that carry no tokens


def decode_log(body: bytes) -> DecodedLog:
    """The records of a message. One that cannot be read never costs the others; nothing raises."""
    try:
        raw_records = _records_of(body)
    except EventRejected as reason:
        return DecodedLog([], [Refused(reason, _without_content(body))], 0)
    records: list[LogRecord] = []
    refused: list[Refused] = []
    ignored = 0
    for index, raw in enumerate(raw_records):
        path = f"records[{index}]"
        members: Members = {}
        try:
            members = _members(raw, path)
            record = _decode_record(members, path)
        except EventRejected as reason:
            refused.append(Refused(reason, _kept(members)))
            continue
        if record is None or not record.says_something:
            ignored += 1
        else:
            records.append(record)
    return DecodedLog(records, refused, ignored)


def log_bytes(record: LogRecord) -> bytes:
    """A record as a message again, numbers only."""
    properties = {
        "promptTokens": record.prompt_tokens,
        "completionTokens": record.completion_tokens,
        "isStreamCompletion": record.streamed,
        "sequenceNumber": record.sequence,
    }
    known = {name: value for name, value in properties.items() if value is not None}
    written = {"category": "GatewayLlmLogs", "correlationId": record.correlation_id, "properties": known}
    return msgspec.json.encode({"records": [written]})


def _records_of(body: bytes) -> list[Raw]:
    try:
        message = _MEMBERS.decode(body)
        records = next((value for name, value in message.items() if name.lower() == "records"), None)
        if records is None:
            raise EventRejected("records: required, but missing", code="invalid_record", param="records")
        return _RECORDS.decode(records)
    except msgspec.ValidationError:
        problem = "records: expected an object with a list of records"
        raise EventRejected(problem, code="invalid_record", param="records") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not the decoder's own words: they may quote the text.
        raise EventRejected("not valid JSON", code="invalid_json") from None


def _members(raw: Raw, path: str) -> Members:
    try:
        return {name.lower(): value for name, value in _MEMBERS.decode(raw).items()}
    except msgspec.ValidationError:
        raise EventRejected(f"{path}: expected an object", code="invalid_record", param=path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EventRejected(f"{path}: not valid JSON", code="invalid_json", param=path) from None


def _decode_record(members: Members, path: str) -> LogRecord | None:
    """The record; None for one of another category."""
    category = (_text(members, "category") or "").lower()
    if category not in (LLM_LOGS, GATEWAY_LOGS):
        return None
    if "properties" not in members:
        if category == GATEWAY_LOGS:
            return None
        where = f"{path}.properties"
        raise EventRejected(f"{where}: required, but missing", code="invalid_record", param=where)
    properties = _members(members["properties"], f"{path}.properties")
    if category == GATEWAY_LOGS:
        if not _shows_abort(properties, path):
            return None
        return LogRecord(_correlation_id(members, properties, path), aborted=True)
    where = f"{path}.properties"
    prompt, completion, total = (_tokens(properties, name, where) for name in _TOKEN_FIELDS)
    prompt, completion = _completed(prompt, completion, total, where)
    return LogRecord(
        _correlation_id(members, properties, path),
        _whole(properties, "sequenceNumber", where) or 0,
        prompt,
        completion,
        _flag(properties, "isStreamCompletion"),
    )


def _correlation_id(members: Members, properties: Members, path: str) -> str:
    found = _text(members, "correlationid") or _text(properties, "correlationid")
    if not found or not _CORRELATION.fullmatch(found):
        where = f"{path}.correlationId"
        raise EventRejected(f"{where}: expected the id of the call", code="correlation_missing", param=where)
    return found.lower()


def _tokens(properties: Members, name: str, path: str) -> int | None:
    """A token count; None when it is absent, and when it is 0: rows that carry no count are written with zeros."""
    return _whole(properties, name, path) or None


def _completed(
    prompt: int | None, completion: int | None, total: int | None, path: str
) -> tuple[int | None, int | None]:
    """Prompt and completion, one from the total where the row has only the other."""
    if total is None:
        return prompt, completion
    if (prompt or 0) + (completion or 0) > total:
        where = f"{path}.totalTokens"
        message = f"{where}: {total} is less than its parts, {prompt or 0} and {completion or 0}"
        raise EventRejected(message, code="usage_unreadable", param=where)
    if prompt is not None and completion is None:
        return prompt, total - prompt or None
    if completion is not None and prompt is None:
        return total - completion or None, completion
    return prompt, completion


def _whole(properties: Members, name: str, path: str) -> int | None:
    """A whole number, written as one, as 812.0 or as a text; None when it is absent."""
    raw = properties.get(name.lower())
    if raw is None or bytes(raw).strip() in (_NULL, b'""'):
        return None
    shown = bytes(raw).strip(b'" \r\n\t').decode("ascii", "replace")
    if _WHOLE.fullmatch(shown):
        value = int(shown.partition(".")[0])
        if value <= MAX_LOGGED_TOKENS:
            return value
    where = f"{path}.{name}"
    message = f"{where}: expected a whole number from 0 to {MAX_LOGGED_TOKENS}"
    raise EventRejected(message, code="usage_unreadable", param=where)


def _flag(properties: Members, name: str) -> bool | None:
    raw = properties.get(name.lower())
    return {b"true": True, b"false": False}.get(b"" if raw is None else bytes(raw).strip(b'" \r\n\t').lower())


def _text(members: Members, name: str) -> str | None:
    raw = members.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _shows_abort(properties: Members, path: str) -> bool:
    """Whether the gateway says that the client went away: in the last error or among the errors."""
    reasons = [_text(properties, "lasterrorreason")]
    if "lasterror" in properties and bytes(properties["lasterror"]) != _NULL:
        reasons.append(_text(_members(properties["lasterror"], f"{path}.properties.lastError"), "reason"))
    return any((reason or "").lower() == CLIENT_ABORT for reason in reasons)


def _kept(members: Members) -> bytes:
    """A refused record as a message again: its id, its category and its numbers, nothing else."""
    kept: dict[str, object] = {}
    for name, written in (("category", "category"), ("time", "time"), ("correlationid", "correlationId")):
        value = _text(members, name)
        if value and len(value) <= _SHOWN_CHARS and _SHOWN.fullmatch(value):
            kept[written] = value
    try:
        properties = _members(members["properties"], "properties") if "properties" in members else {}
    except EventRejected:
        properties = {}
    numbers: dict[str, object] = {}
    for name in (*_TOKEN_FIELDS, "sequenceNumber"):
        shown = bytes(properties.get(name.lower(), Raw(b""))).strip(b'" ').decode("ascii", "replace")
        if re.fullmatch(r"-?[0-9.eE+]{1,40}", shown):
            numbers[name] = shown
    if (streamed := _flag(properties, "isStreamCompletion")) is not None:
        numbers["isStreamCompletion"] = streamed
    return msgspec.json.encode({"records": [{**kept, "properties": numbers}]})


def _without_content(body: bytes) -> bytes:
    """What identifies a message that cannot be read at all: nobody can tell where in it a prompt stands."""
    digest = blake2b(body, digest_size=16).hexdigest()
    return msgspec.json.encode({"unreadable": {"bytes": len(body), "blake2b": digest}})
