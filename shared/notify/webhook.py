"""A message for any receiver, signed by the Standard Webhooks scheme (standardwebhooks.com). Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

import msgspec

from shared.notify.message import Message
from shared.notify.notice import Notice

LEAST_SECRET_BYTES = 24
_PREFIX = "whsec_"


def webhook_body(notice: Notice, message: Message) -> bytes:
    """The JSON body: `type`, `timestamp`, and under `data` the figures as they are beside the message in words."""
    body: dict[str, Any] = {
        "type": f"notice.{notice.kind}",
        "timestamp": notice.added_at,
        "data": {
            "id": message.id,
            "kind": notice.kind,
            "severity": message.severity,
            "tenant": notice.tenant or None,
            "title": message.title,
            "advice": message.advice,
            "link": message.link or None,
            "payload": notice.payload,
        },
    }
    return msgspec.json.encode(body)


def signed_headers(secrets: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers. `message_id` stays the same over retries, so that receivers can drop what they had before.

    Several secrets, separated by spaces or commas, sign side by side: rotation without an outage. Raises ValueError
    when one is not `whsec_` and at least 24 bytes in base64; its text is never in the message.
    """
    webhook_id = f"msg_{message_id}"
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    digests = [hmac.digest(_key(secret), signed, "sha256") for secret in secrets.replace(",", " ").split()]
    if not digests:
        raise ValueError("the signing secret is empty")
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_PREFIX) or len(key) < LEAST_SECRET_BYTES:
        raise ValueError(f"the signing secret is not {_PREFIX} and at least {LEAST_SECRET_BYTES} bytes in base64")
    return key
