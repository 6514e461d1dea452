"""Who calls: the principal that the platform's authentication (Easy Auth, Entra ID) validated, and its roles.

The app checks no token itself. The platform strips the principal header from whatever a client sends and sets its own,
which is why the header is believed only where that authentication is known to be on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import msgspec

from shared.errors import Forbidden, NotAuthenticated
from shared.settings import Settings

PRINCIPAL_HEADER = "x-ms-client-principal"

Role = Literal["Budget.Check", "Usage.Write", "Chargeback.Read", "Chargeback.Admin"]
BUDGET_CHECK: Role = "Budget.Check"
USAGE_WRITE: Role = "Usage.Write"
CHARGEBACK_READ: Role = "Chargeback.Read"
CHARGEBACK_ADMIN: Role = "Chargeback.Admin"
ALL_ROLES: frozenset[Role] = frozenset({BUDGET_CHECK, USAGE_WRITE, CHARGEBACK_READ, CHARGEBACK_ADMIN})

ENTRA = "aad"  # what the platform calls Entra ID
_SCHEMAS = "http://schemas."
_OBJECT_ID = ("oid", f"{_SCHEMAS}microsoft.com/identity/claims/objectidentifier")
_ROLE = ("roles", "role", f"{_SCHEMAS}microsoft.com/ws/2008/06/identity/claims/role")
_GROUP = ("groups", f"{_SCHEMAS}xmlsoap.org/claims/Group")
_APP_ID = ("azp", "appid")  # tokens of version 2 and 1
_NAME = ("name", "preferred_username")
_DELEGATED = ("scp", f"{_SCHEMAS}microsoft.com/identity/claims/scope")


class Principal(msgspec.Struct, frozen=True):
    """The authenticated caller."""

    roles: frozenset[str] = frozenset()
    oid: str | None = None  # Entra object id of the user or the service principal
    groups: frozenset[str] = frozenset()  # object ids; Entra leaves them out of tokens of people in very many groups
    app_id: str | None = None  # of an app that calls as itself
    name: str | None = None  # shown to the person themselves, kept nowhere

    def has_any(self, roles: Iterable[str]) -> bool:
        """Whether one of the roles was assigned."""
        return not self.roles.isdisjoint(roles)

    def identity(self) -> str:
        """The stable id that usage sources and corrections are bound to.

        Raises NotAuthenticated when the principal names none, because then nothing could be attributed to anyone.
        """
        identity = self.oid or self.app_id
        if identity is None:
            raise NotAuthenticated("the principal carries neither an object id (oid) nor an application id (azp)")
        return identity


LOCAL_DEVELOPER = Principal(roles=ALL_ROLES, oid="local-developer")


class _Claim(msgspec.Struct):
    typ: str
    val: str


class _Header(msgspec.Struct):
    claims: list[_Claim]
    auth_typ: str = ENTRA


_HEADER_DECODER = msgspec.json.Decoder(_Header)


def authenticate(header: str | None, settings: Settings) -> Principal:
    """The caller behind a request whose principal header is `header`.

    In development, where the host binds loopback only, a request without the header is the local developer with every
    role, and one with the header is exactly that principal, so that a test can be anyone. Raises NotAuthenticated.
    """
    if header is None:
        if settings.environment == "development":
            return LOCAL_DEVELOPER
        raise NotAuthenticated("sign in with Microsoft Entra ID: the request carries no validated identity")
    if settings.environment != "development" and not settings.auth_enabled:
        raise NotAuthenticated("the platform's authentication is off, so the principal header proves nothing")
    return _decode_principal(header)


def require_role(principal: Principal, roles: Iterable[Role]) -> None:
    """Forbidden `role_required` unless the principal has one of the roles."""
    if not principal.has_any(roles):
        wanted = " or ".join(sorted(roles))
        raise Forbidden(f"the caller lacks the app role {wanted}", code="role_required")


@lru_cache(maxsize=1024)
def _decode_principal(header: str) -> Principal:
    """The principal in the header's base64 JSON. Cached: one gateway sends the same header with every check."""
    try:
        found = _HEADER_DECODER.decode(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotAuthenticated(f"{PRINCIPAL_HEADER} is not the platform's base64 JSON of claims") from None
    if found.auth_typ != ENTRA:
        # Another provider's claims may be chosen by the user, so a role among them proves nothing.
        raise NotAuthenticated(f"callers sign in with Microsoft Entra ID, not {found.auth_typ[:40]!r}")
    # In a person's token the app id says only through which app they signed in: all its users share it, and it makes
    # nobody a member of the team that owns the app.
    is_app = not _values(found, _DELEGATED)
    return Principal(
        roles=_values(found, _ROLE),
        oid=_value(found, _OBJECT_ID),
        groups=_values(found, _GROUP),
        app_id=_value(found, _APP_ID) if is_app else None,
        name=_value(found, _NAME),
    )


def _values(header: _Header, names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(claim.val for claim in header.claims if claim.typ in names and claim.val)


def _value(header: _Header, names: tuple[str, ...]) -> str | None:
    return next((claim.val for claim in header.claims if claim.typ in names and claim.val), None)
