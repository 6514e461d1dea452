"""The signing keys of a token issuer, read from its OpenID configuration and remembered.

A call whose key is known never waits for the network: keys are renewed in the background. Only a key that nobody knows
is asked for at once, and so seldom that invented key ids cannot turn callers into a load on the issuer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from shared.errors import TollkeeperError

log = logging.getLogger("tollkeeper.gateway")

RENEW_SECONDS = 3_600.0  # Entra ID adds a key days before it signs with it, but may withdraw one at any time
MOST_AGE_SECONDS = 24 * 3_600.0  # keys of an issuer that was away longer are believed no more
LEAST_SECONDS_BETWEEN = 30.0  # two requests, whoever asks for whatever key
RETRY_AFTER_SECONDS = 2
_TIMEOUT = httpx.Timeout(5.0)
_MOST_BYTES = 1024 * 1024
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class KeysUnavailable(TollkeeperError):
    """The issuer's keys cannot be read: no fault of the caller, who would go and fetch another token."""

    code, http_status, kind = "identity_unavailable", 503, "server_error"


class IssuerKeys:
    """The keys of one issuer by their id, as objects that PyJWT verifies with."""

    def __init__(
        self,
        issuer: str,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`issuer` is what stands in `iss`; its configuration is below it. `transport` and `now` are for tests."""
        self._issuer = issuer
        self._now = now
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, transport=transport)
        self._keys: Mapping[str, Any] = {}
        self._read_at = self._asked_at = float("-inf")  # monotonic seconds
        self._has_failed = False
        self._asking: asyncio.Task[None] | None = None

    def warm_up(self) -> None:
        """Begin to read the keys, so that the first call finds them. Needs a running event loop."""
        self._ask()

    async def key(self, key_id: str) -> Any | None:
        """The key of this id; None when the issuer has none. Raises KeysUnavailable when nobody can tell."""
        now = self._now()
        if now - self._read_at > MOST_AGE_SECONDS:
            self._keys = {}
        elif now - self._read_at > RENEW_SECONDS:
            self._ask()
        found = self._keys.get(key_id)
        if found is not None:
            return found
        asking = self._ask()
        if asking is not None:
            await asyncio.shield(asking)  # a caller that leaves must not take the keys away from the others
        found = self._keys.get(key_id)
        if found is None and self._has_failed:
            raise KeysUnavailable(
                "tokens cannot be checked at the moment; try again shortly", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        return found

    async def close(self) -> None:
        """Close the connections."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._client.aclose()

    def _ask(self) -> asyncio.Task[None] | None:
        """The request under way, begun now if there may be one."""
        if self._asking is not None and not self._asking.done():
            return self._asking
        now = self._now()
        # After a failure a little sooner: without keys every caller with a token waits for the next try.
        pause = RETRY_AFTER_SECONDS if self._has_failed else LEAST_SECONDS_BETWEEN
        if now - self._asked_at < pause:
            return None
        self._asked_at = now
        self._asking = asyncio.create_task(self._read(), name="issuer-keys")
        return self._asking

    async def _read(self) -> None:
        try:
            configuration = await self._get(f"{self._issuer}/.well-known/openid-configuration")
            self._keys = _signing_keys(await self._get(_address_of_keys(configuration, self._issuer)))
            self._read_at, self._has_failed = self._now(), False
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            self._has_failed = True
            log.warning("the token issuer's keys cannot be read: %s", f"{type(error).__name__} {error}"[:200])

    async def _get(self, url: str) -> dict[str, Any]:
        """A JSON object. Raises httpx.HTTPError, ValueError."""
        answer = await self._client.get(url)
        answer.raise_for_status()
        if len(answer.content) > _MOST_BYTES:
            raise ValueError("the answer is too large")
        found: dict[str, Any] = msgspec.json.decode(answer.content, type=dict)  # its errors are ValueErrors
        return found


def _address_of_keys(configuration: Mapping[str, Any], issuer: str) -> str:
    """Where the issuer lists its keys, as long as nobody on the way can answer for it. Raises ValueError."""
    if configuration.get("issuer") != issuer:
        raise ValueError("the OpenID configuration is of another issuer")
    url = configuration.get("jwks_uri")
    parts = urlsplit(url if isinstance(url, str) else "")
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return parts.geturl()
    raise ValueError("jwks_uri: expected an https address")


def _signing_keys(key_set: Mapping[str, Any]) -> dict[str, Any]:
    """The RSA keys that sign, by id. Raises ValueError when there is none: an empty answer must not take all away."""
    import jwt

    keys: dict[str, Any] = {}
    listed = key_set.get("keys")
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("kty") != "RSA" or each.get("use", "sig") != "sig":
            continue
        try:
            keys[str(each["kid"])] = jwt.PyJWK(each, "RS256").key
        except (KeyError, jwt.PyJWTError):
            continue  # one that cannot be used makes none of the others worse
    if not keys:
        raise ValueError("the issuer lists no signing key")
    return keys
