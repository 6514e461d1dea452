"""Identity to billing scopes: all validated claims must agree on one team."""

from __future__ import annotations

import msgspec
import pytest

from shared.config.identity import resolve_identity
from shared.config.model import Config, Team, Tenant
from shared.errors import Forbidden, InvalidRequest

APP = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
CONFIG = Config(
    version="v",
    tenants={"default": Tenant(id="default"), "contoso": Tenant(id="contoso")},
    teams={
        "search": Team(id="search", tenant="contoso", subscriptions=frozenset({"search-prod"}), apps=frozenset({APP})),
        "support": Team(
            id="support",
            tenant="default",
            groups=frozenset({"g-1"}),
            users=frozenset({"ada"}),
            products=frozenset({"p"}),
        ),
    },
    budgets=(),
    models={},
)


def test_a_subscription_resolves_to_team_and_tenant() -> None:
    """Every claim present becomes a scope beside the team; empty ones do not."""
    tenant, scopes = resolve_identity(
        CONFIG, {"subscription": "search-prod", "oid": "u-1", "product": "", "app": None, "other": 1}
    )
    assert tenant == "contoso"
    assert scopes == {"team": "search", "subscription": "search-prod", "user": "u-1"}


@pytest.mark.parametrize("identity", [{"groups": ["g-0", "g-1"]}, {"oid": "ada"}, {"product": "p"}])
def test_group_user_and_product_resolve_too(identity: dict[str, object]) -> None:
    """Any listed kind of identity leads to its team; groups themselves are no scope."""
    tenant, scopes = resolve_identity(CONFIG, identity)
    assert (tenant, scopes["team"]) == ("default", "support")
    assert "groups" not in scopes


def test_the_organisation_of_a_team_is_a_scope_of_its_calls() -> None:
    """Teams of one `org` share its budgets; a caller can neither leave it out nor choose another."""
    team = Team(id="ads", tenant="default", org="retail", subscriptions=frozenset({"ads-prod"}))
    config = msgspec.structs.replace(CONFIG, teams={"ads": team})
    _, scopes = resolve_identity(config, {"subscription": "ads-prod", "org": "wholesale"})
    assert scopes == {"team": "ads", "org": "retail", "subscription": "ads-prod"}


def test_an_upper_case_guid_is_the_same_app() -> None:
    """One app has one counter however its id is spelled."""
    _, scopes = resolve_identity(CONFIG, {"app": APP.upper()})
    assert scopes == {"team": "search", "app": APP}


def test_claims_of_two_teams_are_refused() -> None:
    """Guessing would bill one team for the other's call."""
    with pytest.raises(Forbidden) as refused:
        resolve_identity(CONFIG, {"subscription": "search-prod", "groups": ["g-1"]})
    assert refused.value.code == "identity_ambiguous"


@pytest.mark.parametrize("identity", [{}, {"subscription": "nobody"}, {"app": "search-prod"}])
def test_an_unlisted_identity_is_refused(identity: dict[str, object]) -> None:
    """No team, no spending; an id counts only as the kind it is listed under."""
    with pytest.raises(Forbidden) as refused:
        resolve_identity(CONFIG, identity)
    assert refused.value.code == "identity_unknown"


@pytest.mark.parametrize(
    ("identity", "param"),
    [
        ({"oid": 7}, "identity.oid"),
        ({"app": "a\nb"}, "identity.app"),
        ({"subscription": "x" * 257}, "identity.subscription"),
        ({"groups": "g-1"}, "identity.groups"),
        ({"groups": [1]}, "identity.groups"),
        ({"groups": ["g"] * 1001}, "identity.groups"),
    ],
)
def test_a_malformed_identity_names_its_field(identity: dict[str, object], param: str) -> None:
    """Wrong types and hostile texts are the caller's mistake, named."""
    with pytest.raises(InvalidRequest) as refused:
        resolve_identity(CONFIG, identity)
    assert refused.value.param == param
