"""Who is calling: the team's subscription key, and the scopes a client may name itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from shared.errors import InvalidRequest, NotAuthenticated
from shared.scopes import SCOPE_TYPE, validate_scopes

SCOPE_HEADER_PREFIX = "x-budget-scope-"


def authenticate(headers: Mapping[str, str], subscriptions_by_digest: Mapping[str, str]) -> str:
    """The subscription whose key came as `api-key` or as a Bearer token; `api-key` decides when both are there.

    Raises NotAuthenticated. Keys are compared by their sha256, so neither memory nor settings hold one, and how long a
    look-up takes says nothing about how much of a key was right.
    """
    key = headers.get("api-key", "").strip() or _bearer(headers.get("authorization", ""))
    if not key:
        raise NotAuthenticated("send the team's key as header api-key, or as Authorization: Bearer <key>")
    subscription = subscriptions_by_digest.get(hashlib.sha256(key.encode()).hexdigest())
    if subscription is None:
        raise NotAuthenticated("this key is not known here; ask the platform team for your team's key")
    return subscription


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
