"""A billed call as the attributes of a GenAI span: usage, cost, names. No text, no person unless asked for. Pure."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from shared.ledger.row import LedgerRow
from shared.money import decimal_from_nano
from shared.scopes import ORGANISATIONAL
from shared.telemetry import names

Attribute = str | int | float | bool | list[str]
Attributes = dict[str, Attribute]

_INPUT = ("input", "cached_input", "cache_write", "cache_write_1h", "input_audio", "input_image")
_OUTPUT = ("output", "output_audio", "output_image")
_CACHE_WRITES = ("cache_write", "cache_write_1h")
_NANO = 10**9


def span_name(row: LedgerRow) -> str:
    """As the convention names it: operation and model."""
    return f"{_operation(row)} {row.requested_model or row.model}"


def span_ids(row: LedgerRow) -> tuple[int, int]:
    """Trace and span id, from the call's identity: whoever has the ledger row finds the trace, and a call that is told
    twice is one span where the receiver keeps one per id.
    """
    digest = blake2b(f"{row.source}|{row.call_id or row.id}".encode(), digest_size=24).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1


def span_times(row: LedgerRow) -> tuple[int, int]:
    """Start and end in nanoseconds: admission, and as much later as the call took."""
    start = int(row.time_utc.timestamp() * 1_000_000) * 1000
    return start, start + (row.latency_ms or 0) * 1_000_000


def call_attributes(row: LedgerRow, *, with_people: bool) -> Attributes:
    """Everything the span says. `with_people` adds user, session and other keys that may name a person."""
    tokens = row.tokens
    prompt, completion = _sum(tokens, _INPUT), _sum(tokens, _OUTPUT)
    embedding = row.operation == "embeddings"
    attributes: Attributes = {
        names.OPERATION: _operation(row),
        names.PROVIDER: names.PROVIDERS.get(row.provider, row.provider),
        names.REQUEST_MODEL: row.requested_model,
        names.RESPONSE_MODEL: row.model,
        names.REQUEST_STREAM: row.streamed,
        names.INPUT_TOKENS: prompt,
        names.OUTPUT_TOKENS: completion,
        names.STATUS_CODE: row.status,
        names.TENANT: row.tenant,
        names.DECISION: row.decision,
        names.DEPLOYMENT: row.deployment,
        names.REGION: row.region,
        names.EVENT_SOURCE: row.source,
        names.EVENT_ID: row.id,
        names.PRICING_STATUS: row.pricing_status,
        names.MEASURED: row.measured,
        names.OI_KIND: "EMBEDDING" if embedding else "LLM",
        names.OI_EMBEDDING_MODEL if embedding else names.OI_MODEL: row.model,
        names.OI_PROVIDER: row.provider.removesuffix("-openai"),
        names.OI_PROMPT_TOKENS: prompt,
        names.OI_COMPLETION_TOKENS: completion,
        names.OI_TOTAL_TOKENS: prompt + completion,
        names.LF_TYPE: "embedding" if embedding else "generation",
        names.LF_MODEL: row.model,
        names.LF_USAGE: _json(
            {names.LF_KINDS[kind]: count for kind, count in tokens.items() if kind in names.LF_KINDS}
        ),
    }
    _add_details(attributes, row)
    if row.cost_nano_usd is not None:
        _add_cost(attributes, row, row.cost_nano_usd)
    _add_scopes(attributes, row, with_people=with_people)
    return attributes


def _operation(row: LedgerRow) -> str:
    return names.OPERATIONS.get(row.operation, row.operation) or "chat"


def _add_details(attributes: Attributes, row: LedgerRow) -> None:
    """What only some calls have."""
    cached, written = row.tokens.get("cached_input", 0), _sum(row.tokens, _CACHE_WRITES)
    reasoning = row.tokens.get("reasoning", 0)
    if cached:
        attributes[names.CACHE_READ_TOKENS] = attributes[names.OI_CACHE_READ_TOKENS] = cached
    if written:
        attributes[names.CACHE_WRITE_TOKENS] = attributes[names.OI_CACHE_WRITE_TOKENS] = written
    if reasoning:
        attributes[names.REASONING_TOKENS] = attributes[names.OI_REASONING_TOKENS] = reasoning
    if row.processing_tier:
        attributes[names.SERVICE_TIER] = row.processing_tier
    if row.price_id:
        attributes[names.PRICE] = row.price_id
    if not 0 < row.status < 400:
        attributes[names.ERROR_TYPE] = str(row.status)


def _add_cost(attributes: Attributes, row: LedgerRow, cost: int) -> None:
    lines = row.lines_nano_usd
    prompt, completion = _sum(lines, _INPUT), _sum(lines, _OUTPUT)
    attributes |= {
        names.COST_NANO_USD: cost,
        names.COST_USD: decimal_from_nano(cost),
        names.OI_PROMPT_COST: prompt / _NANO,
        names.OI_COMPLETION_COST: completion / _NANO,
        names.OI_TOTAL_COST: cost / _NANO,
    }
    details = {names.LF_KINDS[kind]: amount for kind, amount in lines.items() if kind in names.LF_KINDS}
    amounts = {kind: msgspec.Raw(decimal_from_nano(amount).encode()) for kind, amount in details.items()}
    attributes[names.LF_COST] = _json({**amounts, "total": msgspec.Raw(decimal_from_nano(cost).encode())})


def _add_scopes(attributes: Attributes, row: LedgerRow, *, with_people: bool) -> None:
    tags = [f"tenant:{row.tenant}"]
    for kind, key in sorted(row.scopes.items()):
        if kind in ORGANISATIONAL:
            attributes[names.SCOPE_PREFIX + kind] = key
            tags.append(f"{kind}:{key}")
        elif with_people:
            attributes[names.SCOPE_PREFIX + kind] = key
    attributes[names.LF_TAGS] = tags
    if with_people:
        if user := row.scopes.get("user"):
            attributes[names.USER] = user
        if session := row.scopes.get("session"):
            attributes[names.SESSION] = attributes[names.CONVERSATION] = session


def _sum(counts: dict[str, int], kinds: tuple[str, ...]) -> int:
    return sum(counts.get(kind, 0) for kind in kinds)


def _json(content: dict[str, int] | dict[str, msgspec.Raw]) -> str:
    return msgspec.json.encode(content).decode()
