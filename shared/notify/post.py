"""Posting to addresses that are secrets: no redirect is followed, nothing of the address reaches a log or an error.

aiohttp, because it logs no address and nobody instruments it; what the gateway uses would write every address to its
log and into traces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

from shared.notify.message import clean

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 2_000
LEAST_SECRET_CHARS = 8  # shorter parts of an address are words such as `services`, not secrets


class DeliveryFailed(Exception):
    """A route did not take a message. The text is safe to store; `outage` says that others would fare alike."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None, outage: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.outage = outage


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow_http: bool,
    accepted: tuple[int, ...] = (),
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Post JSON. Raises DeliveryFailed unless the answer is 2xx or one of `accepted`."""
    import aiohttp

    split = urlsplit(url)
    if not split.hostname or split.scheme not in (("https", "http") if allow_http else ("https",)):
        raise DeliveryFailed("the address does not start with https://")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout_seconds), trust_env=False) as session,
            session.post(
                url, data=body, headers={"Content-Type": "application/json", **headers}, allow_redirects=False
            ) as answer,
        ):
            if 200 <= answer.status < 300 or answer.status in accepted:
                return
            status, wait = answer.status, _seconds(answer.headers.get("Retry-After"))
            said = await answer.content.read(MAX_ANSWER_BYTES)
    except TimeoutError:
        raise DeliveryFailed(f"no answer within {timeout_seconds:g} seconds", outage=True) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:  # its text may hold the address
        raise DeliveryFailed(f"the connection failed ({type(error).__name__})", outage=True) from None
    if 300 <= status < 400:
        raise DeliveryFailed(f"HTTP {status}: redirects are not followed; set the final address")
    reason = clean(f"HTTP {status} {_without_address(said.decode('utf-8', 'replace'), url)}", 200)
    raise DeliveryFailed(reason, retry_after_seconds=wait, outage=status in (408, 429) or status >= 500)


def _without_address(said: str, url: str) -> str:
    """What a receiver said, without the address and its secret parts: many name the path they do not know."""
    split = urlsplit(url)
    parts = [url, split.path, split.query, *split.path.split("/"), *re.split("[&=]", split.query), split.password or ""]
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) >= LEAST_SECRET_CHARS:
            said = said.replace(part, "***")
    return said


def _seconds(retry_after: str | None) -> float | None:
    """Seconds to wait, of a number or a date; None when there is none that can be read."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
