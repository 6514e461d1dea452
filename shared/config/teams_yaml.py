"""teams/*.yaml: one file per team, saying who it is and what it may spend."""

from __future__ import annotations

from shared.config.budgets_yaml import BUDGET_FIELDS, read_budget
from shared.config.draft import Draft
from shared.config.fields import Section
from shared.config.identity import normal_id
from shared.config.model import Team
from shared.config.yaml_lines import Value
from shared.errors import InvalidRequest
from shared.scopes import validate_scope_key

TEAM_FIELDS = ("team", "tenant", "org", "cost_centre", "owner", "identities", "allowed_models", "budgets")
IDENTITY_KINDS = ("apps", "groups", "users", "subscriptions", "products")


def read_team(document: Value, draft: Draft) -> None:
    """Add one team file to the draft."""
    section = Section(document, TEAM_FIELDS, draft.problems)
    team = section.text("team", required=True)
    tenant = draft.tenant_of(section, "default") or "default"
    if team is None:
        return
    _check_id(section, team, draft)
    org = section.text("org")
    if org is not None:
        _check_key(section, "org", org)
    identities = section.section("identities", IDENTITY_KINDS)
    claimed = {kind: _claim(identities, kind, team, draft) for kind in IDENTITY_KINDS} if identities else {}
    draft.teams[team] = Team(
        id=team,
        tenant=tenant,
        org=org,
        cost_centre=section.text("cost_centre"),
        owner=section.text("owner"),
        allowed_models=section.texts("allowed_models"),
        **claimed,
    )
    for entry in section.sections("budgets", BUDGET_FIELDS):
        read_budget(entry, draft, team=team, team_tenant=tenant)


def _check_id(section: Section, team: str, draft: Draft) -> None:
    if team in draft.teams:
        section.problem("team", f"{team!r} has a file already; team ids are unique across tenants")
    _check_key(section, "team", team)


def _check_key(section: Section, field: str, key: str) -> None:
    if "*" in key:
        section.problem(field, "has no '*': budgets use it for every key")
    try:
        validate_scope_key(key, field)
    except InvalidRequest as error:
        section.problem(field, error.message.removeprefix(f"{field}: "))


def _claim(identities: Section, kind: str, team: str, draft: Draft) -> frozenset[str]:
    """The team's identities of one kind. One that two teams claim could bill either, so it is refused."""
    ids = [normal_id(text) for text in identities.texts(kind)]
    for identity in ids:
        other = draft.identities.setdefault((kind, identity), team)
        if other != team:
            identities.problem(kind, f"{identity!r} is claimed by team {other!r} already")
    return frozenset(ids)
