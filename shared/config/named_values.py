"""What API Management must know of the configuration by itself: it counts when the function app does not answer.

A named value is text that the gateway puts into the policies: at most 4,096 characters, never empty. So each tells only
what differs from the safe default: on, and closed. A caller whom no map names is checked, and refused while it cannot
be; one whom the maps forgot is never served for nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from shared.config.model import Config, Team
from shared.errors import ConfigInvalid
from shared.routing.deployments import Deployments

MAX_CHARACTERS = 4096
NONE = "-"  # a named value cannot be empty
DEFAULT_ENFORCEMENT, DEFAULT_FAIL_MODE = "on", "closed"

# How the policies spell a kind of identity, so that a subscription cannot pass for a product of the same name.
_KINDS = (("s", "subscriptions"), ("p", "products"), ("a", "apps"), ("u", "users"), ("g", "groups"))

_SHORTEN_CALLERS = (
    "let the teams of these tenants list products or groups instead of single subscriptions, apps and users, or give "
    "fewer tenants a mode of their own"
)
_SHORTEN_DEPLOYMENTS = "name deployments after their models: a model whose deployment has its id needs no entry"


def generated_named_values(config: Config) -> dict[str, str]:
    """Every generated named value by name. Raises ConfigInvalid for one that API Management would not store."""
    enforcement = {t.id: t.enforcement for t in config.tenants.values() if t.enforcement != DEFAULT_ENFORCEMENT}
    fail_modes = {t.id: t.fail_mode for t in config.tenants.values() if t.fail_mode != DEFAULT_FAIL_MODE}
    scope_types = {t.id: "+".join(sorted(t.client_asserted_scopes)) or NONE for t in config.tenants.values()}
    usual = max(Counter(scope_types.values()).items(), key=lambda counted: (counted[1], counted[0]))[0]
    unusual = {tenant: types for tenant, types in scope_types.items() if types != usual}
    return {
        "tk-enforcement": DEFAULT_ENFORCEMENT,
        "tk-enforcement-by-caller": _listed(
            "tk-enforcement-by-caller", _callers(config.teams.values(), enforcement), _SHORTEN_CALLERS
        ),
        "tk-fail-mode": DEFAULT_FAIL_MODE,
        "tk-fail-mode-by-caller": _listed(
            "tk-fail-mode-by-caller", _callers(config.teams.values(), fail_modes), _SHORTEN_CALLERS
        ),
        "tk-asserted-scopes": _listed("tk-asserted-scopes", [usual], "list fewer client_asserted_scopes"),
        "tk-asserted-scopes-by-caller": _listed(
            "tk-asserted-scopes-by-caller", _callers(config.teams.values(), unusual), _SHORTEN_CALLERS
        ),
        "tk-deployments": _listed("tk-deployments", _deployments(config), _SHORTEN_DEPLOYMENTS),
    }


def named_values_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the files that the generated named values are made from, a line of name and SHA-256 for each.

    Terraform makes the same from the same files, and refuses values that were made from others.
    """
    made_from = sorted(name for name in files if name in ("models.yaml", "tenants.yaml") or name.startswith("teams/"))
    lines = (f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in made_from)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _callers(teams: Iterable[Team], modes: Mapping[str, str]) -> list[str]:
    """`s:search-prod=open` for every identity of the teams whose tenant has a mode here."""
    return sorted(
        f"{letter}:{quote(identity.lower(), safe='')}={modes[team.tenant]}"
        for team in teams
        if team.tenant in modes
        for letter, field in _KINDS
        for identity in getattr(team, field)
    )


def _deployments(config: Config) -> list[str]:
    """`gpt-4o=gpt-4o-weu` for every model that no deployment of its own name serves."""
    serving = Deployments(config.models).serving
    pairs = sorted((model, serving(model).deployment) for model in config.models)
    return [f"{quote(model, safe='')}={quote(name, safe='')}" for model, name in pairs if model != name]


def _listed(name: str, entries: list[str], remedy: str) -> str:
    text = ",".join(entries) or NONE
    if len(text) > MAX_CHARACTERS:
        raise ConfigInvalid(
            f"{name}: {len(entries)} entries take {len(text)} characters; a named value of API Management has at most "
            f"{MAX_CHARACTERS:,}: {remedy}"
        )
    return text
