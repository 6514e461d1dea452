"""Who is calling, by key or token, and the scopes a client may name itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidRequest, NotAuthenticated
from shared.scopes import SCOPE_TYPE, validate_scopes

if TYPE_CHECKING:
    from gateway.tokens import EntraTokens
    from shared.settings import Settings

SCOPE_HEADER_PREFIX = "x-budget-scope-"
_DOTS_OF_A_TOKEN = 2


class Authenticator:
    """Finds out who calls, by the credentials that API Management takes too, in the same order."""

    def __init__(self, subscriptions_by_digest: Mapping[str, str], tokens: EntraTokens | None = None) -> None:
        """`subscriptions_by_digest` has the sha256 (hex) of every key; `tokens` is None where no issuer is trusted."""
        self._subscriptions = subscriptions_by_digest
        self._tokens = tokens

    async def identity(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """The caller as a budget check takes it: `{"subscription": ...}` of a key, or the claims of a token.

        The key comes as `api-key`, or as a Bearer token, as OpenAI clients send theirs; `api-key` decides when both are
        there, so that a wrong key is never overruled by a token. Raises NotAuthenticated, or KeysUnavailable for a
        token that nobody can check. Keys are compared by their sha256, so neither memory nor settings hold one, and how
        long a look-up takes says nothing about how much of a key was right.
        """
        key, bearer = headers.get("api-key", "").strip(), _bearer(headers.get("authorization", ""))
        given = key or bearer
        if not given:
            raise _not_accepted(f"send the team's key as header api-key, or {self._bearers} as Authorization: Bearer")
        subscription = self._subscriptions.get(hashlib.sha256(given.encode()).hexdigest())
        if subscription is not None:
            return {"subscription": subscription}
        if self._tokens is not None and not key and given.count(".") == _DOTS_OF_A_TOKEN:
            return await self._tokens.identity(given)
        raise _not_accepted("this key is not known here; ask the platform team for your team's key")

    def start(self) -> None:
        """Read what tokens are checked with, in the background. Needs a running event loop."""
        if self._tokens is not None:
            self._tokens.start()

    async def close(self) -> None:
        """Close the connections."""
        if self._tokens is not None:
            await self._tokens.close()

    @property
    def _bearers(self) -> str:
        return "it" if self._tokens is None else "it or an Entra ID token"


def authenticator(settings: Settings) -> Authenticator:
    """What the settings trust: keys, and tokens when they name an issuer."""
    if settings.entra_issuer is None or settings.entra_audience is None:
        return Authenticator(settings.gateway_keys)
    from gateway.tokens import EntraTokens

    return Authenticator(settings.gateway_keys, EntraTokens(settings.entra_issuer, settings.entra_audience))


def asserted_scopes(headers: Mapping[str, str]) -> dict[str, str]:
    """Scopes from `x-budget-scope-<type>` headers. Whether the tenant lets clients name these types is checked later.

    An empty value names nothing: LibreChat sends its header empty while a conversation has no id yet, and a client may
    leave it out as well. Raises InvalidRequest for a type or key that no scope can have.
    """
    scopes: dict[str, str] = {}
    for name, value in headers.items():
        if not name.lower().startswith(SCOPE_HEADER_PREFIX):
            continue
        kind = name.lower().removeprefix(SCOPE_HEADER_PREFIX)
        if not SCOPE_TYPE.fullmatch(kind) or kind in scopes:
            raise InvalidRequest(f"{name[:60]}: expected one header per scope type, such as session", param=name[:60])
        if key := value.strip():
            scopes[kind] = _utf8(key)
    return validate_scopes(scopes, "x-budget-scope")


def _utf8(value: str) -> str:
    """Header bytes reach us read as Latin-1; clients mean UTF-8. What is not UTF-8 stays as it was read."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _not_accepted(message: str) -> NotAuthenticated:
    """The code is OpenAI's own for a wrong key, and that of the policies of API Management."""
    return NotAuthenticated(message, code="invalid_api_key")
