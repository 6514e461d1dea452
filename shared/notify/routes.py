"""Which destinations a notice goes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shared.config.model import AlertRoute
from shared.notify.notice import Notice


def destinations(notice: Notice, routes: Iterable[AlertRoute]) -> dict[str, AlertRoute]:
    """The routes that want the notice, one for each destination: two routes to one channel send it once."""
    wanted: dict[str, AlertRoute] = {}
    for route in routes:
        if _wants(route, notice):
            wanted.setdefault(destination(route), route)
    return wanted


def destination(route: AlertRoute) -> str:
    """What names a destination in a notice's progress. It holds through edits of what the route wants."""
    return f"{route.channel}:{route.target}"


def _wants(route: AlertRoute, notice: Notice) -> bool:
    if "*" not in route.kinds and notice.kind not in route.kinds:
        return False
    if route.tenants and notice.tenant not in route.tenants:  # what is of no tenant is not for a tenant's eyes
        return False
    return not route.scopes or any(_covers(pattern, scope) for pattern in route.scopes for scope in _scopes(notice))


def _scopes(notice: Notice) -> tuple[str, ...]:
    """What the notice is about: its scope, and the team when it names one beside."""
    scope, team = notice.payload.get("scope"), notice.payload.get("team")
    return tuple(str(each) for each in (scope, f"team:{team}" if team else None) if each)


def _covers(pattern: str, scope: str) -> bool:
    """`team:search` covers itself, `team:*` every team; no pattern covers a notice without a scope."""
    return scope == pattern or (pattern.endswith(":*") and scope.startswith(pattern[:-1]))
