"""Who a call is billed to: the identity that the gateway validated, resolved to a tenant and billing scopes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shared.config.model import Config, Team
from shared.errors import Forbidden, InvalidRequest
from shared.scopes import validate_scope_key

MAX_GROUPS = 1000
MAX_SHOWN = 80  # characters of a claim in a message; quoted, so that a line break in one forges no line of a log
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SINGLE = ("subscription", "product", "app", "oid")
_TEAM_FIELD = {"subscription": "subscriptions", "product": "products", "app": "apps", "oid": "users"}
_SCOPE_TYPE = {"subscription": "subscription", "product": "product", "app": "app", "oid": "user"}


def normal_id(text: str) -> str:
    """An identifier as it is compared: GUIDs in lower case, because Entra ID and people write them either way."""
    return text.lower() if _GUID.fullmatch(text) else text


def validate_identity(identity: Mapping[str, Any], param: str = "identity") -> None:
    """InvalidRequest naming the claim unless the identity is well-formed, whether or not somebody is behind it."""
    for name in _SINGLE:
        _claim(identity, name, param)
    _groups(identity, param)


def resolve_identity(config: Config, identity: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """(tenant, scopes) of a validated identity with any of `subscription`, `product`, `app`, `oid`, `groups`.

    Everything that matches a team must agree on one. Raises InvalidRequest for a malformed identity, Forbidden
    `identity_unknown` when no team lists any of it, `identity_ambiguous` when several teams do.
    """
    claims = {name: _claim(identity, name) for name in _SINGLE}
    owners = _owners_of(config)
    pairs = [(_TEAM_FIELD[name], value) for name, value in claims.items() if value is not None]
    pairs += [("groups", group) for group in _groups(identity)]
    matches = {owners[pair].id: owners[pair] for pair in pairs if pair in owners}
    if not matches:
        stated = ", ".join(f"{kind} {value[:MAX_SHOWN]!r}" for kind, value in pairs[:5]) or "nothing"
        raise Forbidden(f"no team lists this identity ({stated})", code="identity_unknown", param="identity")
    if len(matches) > 1:
        raise Forbidden(
            f"this identity belongs to several teams: {', '.join(sorted(matches)[:5])}",
            code="identity_ambiguous",
            param="identity",
        )
    (team,) = matches.values()
    scopes = {_SCOPE_TYPE[name]: value for name, value in claims.items() if value is not None}
    if team.org is not None:
        scopes["org"] = team.org
    return team.tenant, {"team": team.id, **scopes}


def _claim(identity: Mapping[str, Any], name: str, param: str = "identity") -> str | None:
    value = identity.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"{param}.{name}: expected text", param=f"{param}.{name}")
    return normal_id(validate_scope_key(value, f"{param}.{name}"))


def _groups(identity: Mapping[str, Any], param: str = "identity") -> list[str]:
    groups = identity.get("groups") or []
    if not isinstance(groups, list) or len(groups) > MAX_GROUPS or not all(isinstance(g, str) for g in groups):
        expected = f"expected a list of up to {MAX_GROUPS} texts"
        raise InvalidRequest(f"{param}.groups: {expected}", param=f"{param}.groups")
    return [normal_id(group) for group in groups]


Owners = dict[tuple[str, str], Team]


class _Cache:
    """The team of every listed identity of the newest configuration: a check must not walk all teams.

    One tuple, so that a reader on another thread never pairs one configuration with the owners of another.
    """

    built: tuple[Config | None, Owners] = (None, {})


def _owners_of(config: Config) -> Owners:
    built_for, owners = _Cache.built
    if built_for is not config:
        kinds = ("subscriptions", "products", "apps", "users", "groups")
        owners = {(kind, key): team for team in config.teams.values() for kind in kinds for key in getattr(team, kind)}
        _Cache.built = (config, owners)
    return owners
