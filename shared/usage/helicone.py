"""Helicone's webhook, mapped to a usage event: numbers and names only, message texts are never decoded.

Helicone posts `request_id`, `user_id`, `model`, `provider`, `metadata` (cost, promptTokens, completionTokens,
latencyMs) and both bodies, cut at 10 KB, and signs the whole with HMAC-SHA-256 in `helicone-signature`. Its own cost is
left aside: the price book rates every call alike. It tells no time of the call, so the time it was first heard of
stands in.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from shared.config.model import Tenant
from shared.errors import NotAuthenticated
from shared.usage.build import partition_key, usage_event_bytes
from shared.usage.event_fields import Identifier, Label
from shared.usage.events import Milliseconds, TokenCount, decode_event
from shared.usage.rejected import EventRejected
from shared.usage.tokens import count_tokens

SIGNATURE_HEADER = "helicone-signature"
_SOURCE = "helicone"
_PROVIDERS = {"azure": "azure-openai", "azure_openai": "azure-openai"}
_LONGEST_CALL_MS = 3_600_000


class Publisher(Protocol):
    """What the webhook needs of the hub."""

    async def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None: ...


class FirstHeardStore(Protocol):
    """What the webhook needs to remember."""

    async def time(self, source: str, id: str, now_utc: datetime) -> datetime: ...  # noqa: A002


class _Metadata(msgspec.Struct, rename="camel"):
    prompt_tokens: TokenCount | None = None
    completion_tokens: TokenCount | None = None
    latency_ms: Milliseconds | None = None


class HeliconeCall(msgspec.Struct):
    """What is read of a webhook. Unknown fields are skipped."""

    request_id: Identifier
    model: Label | None = None
    provider: Label | None = None
    user_id: str | None = None
    metadata: _Metadata | None = None
    response_body: msgspec.Raw = msgspec.Raw(b"null")


class _Response(msgspec.Struct):
    """The two members of a model's answer that are numbers or names."""

    usage: dict[str, Any] | None = None
    model: Label | None = None


_CALL = msgspec.json.Decoder(HeliconeCall)
_RESPONSE = msgspec.json.Decoder(_Response)
_TEXT = msgspec.json.Decoder(str)


class HeliconeWebhook:
    """Takes webhooks and puts usage events on the hub."""

    def __init__(self, publisher: Publisher, first_heard: FirstHeardStore, secret: str | None) -> None:
        """`secret` is the webhook's HMAC key; None trusts the caller's role alone."""
        self._publisher = publisher
        self._first_heard = first_heard
        self._secret = secret

    async def take(
        self,
        body: bytes,
        signature: str | None,
        tenant: Tenant,
        scopes: Mapping[str, str],
        source_prefix: str | None,
        now_utc: datetime,
    ) -> None:
        """Publish the webhook's call. Taking the same one again publishes the same bytes, which the ledger drops.

        The user that Helicone's client named is a scope only where the tenant lets clients assert users.

        Raises NotAuthenticated for a wrong signature, EventRejected for what cannot be billed.
        """
        if self._secret is not None and not is_signed(body, signature, self._secret):
            raise NotAuthenticated(f"{SIGNATURE_HEADER} does not match the body", code="signature_invalid")
        call = read_call(body)
        if call.user_id and "user" in tenant.client_asserted_scopes:
            scopes = {"user": call.user_id, **scopes}
        data = usage_data(call, tenant.id, scopes)
        source = _SOURCE if source_prefix is None else f"{source_prefix}/{_SOURCE}"
        heard_utc = await self._first_heard.time(source, call.request_id, now_utc)
        event = usage_event_bytes(source, call.request_id, began_utc(call, heard_utc), data)
        decode_event(event, now_utc)
        count_tokens(data["usage"], data["provider"])
        await self._publisher.publish([(partition_key(source, call.request_id), event)])


def is_signed(body: bytes, signature: str | None, secret: str) -> bool:
    """Whether `signature` is Helicone's for exactly these bytes."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), (signature or "").strip().lower().encode())


def read_call(body: bytes) -> HeliconeCall:
    """The webhook's call. Raises EventRejected `invalid_json` or `invalid_event` naming the field."""
    try:
        return _CALL.decode(body)
    except msgspec.ValidationError as error:
        raise EventRejected(f"the webhook does not have Helicone's shape: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventRejected(f"not valid JSON: {error}", code="invalid_json") from None


def began_utc(call: HeliconeCall, heard_utc: datetime) -> datetime:
    """When the call began: its latency before it was first heard of."""
    latency_ms = (call.metadata.latency_ms if call.metadata else None) or 0
    return heard_utc - timedelta(milliseconds=min(latency_ms, _LONGEST_CALL_MS))


def usage_data(call: HeliconeCall, tenant: str, scopes: Mapping[str, str]) -> dict[str, Any]:
    """The `data` of the usage event. Raises EventRejected when the webhook names no model."""
    response = _response(call.response_body)
    model = call.model or response.model
    if not model:
        raise EventRejected("model: required, but missing; switch `include data` on for the webhook", param="model")
    provider = (call.provider or "").lower()
    return {
        "tenant": tenant,
        "scopes": dict(scopes),
        "provider": _PROVIDERS.get(provider, provider),
        "operation": "chat",
        "requested_model": model,
        "model": model,
        "status": 200,
        "usage": response.usage if response.usage is not None else _counted(call.metadata),
        "latency_ms": call.metadata.latency_ms if call.metadata else None,
    }


def _counted(metadata: _Metadata | None) -> dict[str, int] | None:
    """Helicone's own counts in OpenAI's spelling; they do not tell cached tokens apart."""
    if metadata is None or metadata.prompt_tokens is None:
        return None
    return {"prompt_tokens": metadata.prompt_tokens, "completion_tokens": metadata.completion_tokens or 0}


def _response(body: msgspec.Raw) -> _Response:
    """The provider's usage object out of the answer, an object or its text; nothing when the text was cut."""
    try:
        raw = bytes(body)
        return _RESPONSE.decode(_TEXT.decode(raw) if raw.startswith(b'"') else raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Response()
