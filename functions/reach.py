"""How far a reader sees: the whole tenant, or what is provably their own teams'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from functions.auth import CHARGEBACK_ADMIN, Principal
from shared.budgets.request import known_tenant
from shared.config.model import Config, Team
from shared.errors import Forbidden


class Reach(msgspec.Struct, frozen=True):
    """What one principal may read in one tenant."""

    tenant: str
    tenant_wide: bool
    teams: frozenset[str] = frozenset()
    scopes: Mapping[str, frozenset[str]] = msgspec.field(default_factory=dict)  # scope type -> keys, own teams' only

    def covers(self, scope_type: str, scope_key: str) -> bool:
        """Whether the scope belongs to what the principal may read."""
        return self.tenant_wide or scope_key in self.scopes.get(scope_type, frozenset())

    def covers_id(self, scope: str) -> bool:
        """`covers` for a scope as answers spell it, `type:key`."""
        scope_type, _, scope_key = scope.partition(":")
        return self.covers(scope_type, scope_key)

    def require(self, scope_type: str, scope_key: str) -> None:
        """Forbidden `scope_not_allowed` unless the scope is covered."""
        if not self.covers(scope_type, scope_key):
            raise Forbidden(
                f"{scope_type}:{scope_key} is not of your teams in tenant {self.tenant!r}", code="scope_not_allowed"
            )


def reach(principal: Principal, config: Config, tenant: str) -> Reach:
    """The reach of a principal with Chargeback.Read or Chargeback.Admin in `tenant`.

    Admins and the tenant's finance people (by object id of the person or of a group) see all of it; everyone else
    their own teams: those whose file names the person, one of their groups or their app. Raises InvalidRequest for
    what is no tenant id and Forbidden: `tenant_unknown` or, for a reader of no team there, `scope_not_allowed`.
    """
    found = known_tenant(config, tenant)
    me = principal.groups | {principal.oid} if principal.oid else principal.groups
    if principal.has_any((CHARGEBACK_ADMIN,)) or me & found.finance:
        return Reach(tenant, tenant_wide=True)
    own = [team for team in config.teams.values() if team.tenant == tenant and _is_member(principal, team)]
    if not own:
        raise Forbidden(f"you are a member of no team in tenant {tenant!r}", code="scope_not_allowed")
    return Reach(tenant, tenant_wide=False, teams=frozenset(team.id for team in own), scopes=_scopes(principal, own))


def reaches(principal: Principal, config: Config) -> list[Reach]:
    """The principal's reach in every tenant where they have one, by tenant."""
    found = []
    for tenant in sorted(config.tenants):
        try:
            found.append(reach(principal, config, tenant))
        except Forbidden:
            continue  # reader of no team there
    return found


def _is_member(principal: Principal, team: Team) -> bool:
    return principal.oid in team.users or principal.app_id in team.apps or not principal.groups.isdisjoint(team.groups)


def _scopes(principal: Principal, teams: Iterable[Team]) -> dict[str, frozenset[str]]:
    """The scopes that only the teams' own calls carry. Of users, a reader sees themselves alone: a person may call for
    several teams, so another's counter is not the team's to see."""
    teams = tuple(teams)
    return {
        "team": frozenset(team.id for team in teams),
        "app": frozenset[str]().union(*(team.apps for team in teams)),
        "subscription": frozenset[str]().union(*(team.subscriptions for team in teams)),
        "product": frozenset[str]().union(*(team.products for team in teams)),
        "user": frozenset({principal.oid} if principal.oid else ()),
    }
