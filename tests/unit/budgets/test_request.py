"""Whose call it is: stated by a trusted gateway, or resolved from validated identity."""

from __future__ import annotations

import msgspec
import pytest

from shared.budgets.request import CheckRequest, resolve_caller
from shared.config.model import Config, Team, Tenant
from shared.errors import Forbidden, InvalidRequest

TENANT = Tenant("acme", client_asserted_scopes=frozenset({"session", "task"}))
TEAM = Team("search", "acme", subscriptions=frozenset({"search-prod"}))
CONFIG = Config("v1", {"acme": TENANT}, {"search": TEAM}, (), {})
IDENTITY = {"subscription": "search-prod", "oid": "0f0e"}


def resolve(**fields):
    return resolve_caller(CheckRequest(model="big", **fields), CONFIG)


def test_a_gateway_may_state_tenant_and_scopes():
    """What a trusted caller says is taken, sorted by type."""
    assert resolve(tenant="acme", scopes={"user": "a", "team": "t"}) == (TENANT, {"team": "t", "user": "a"})


def test_identity_is_resolved_to_tenant_and_billing_scopes():
    """The subscription says which team; the person and the subscription are charged as well."""
    tenant, scopes = resolve(identity=IDENTITY)
    assert tenant is TENANT
    assert scopes == {"subscription": "search-prod", "team": "search", "user": "0f0e"}


def test_a_listed_type_may_be_asserted_by_the_client():
    """A session that the client names stands beside what identity says."""
    _, scopes = resolve(identity=IDENTITY, scopes={"session": "s-1"})
    assert scopes["session"] == "s-1"
    assert scopes["team"] == "search"


@pytest.mark.parametrize("scope_type", ["team", "user", "tenant", "model", "org", "anything"])
def test_any_other_type_is_refused(scope_type):
    """Otherwise a header could put one team's spend on another team's budget."""
    with pytest.raises(Forbidden) as raised:
        resolve(identity=IDENTITY, scopes={scope_type: "victim"})
    assert (raised.value.code, raised.value.param) == ("scope_not_allowed", f"scopes.{scope_type}")


def test_a_tenant_beside_an_identity_changes_nothing():
    """Identity decides; a stated tenant cannot move the bill."""
    tenant, _ = resolve(identity=IDENTITY, tenant="somebody-else")
    assert tenant is TENANT


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "tenant"),
        ({"scopes": {"team": "t"}}, "tenant"),
        ({"tenant": "acme"}, "scopes"),
        ({"tenant": "acme", "scopes": {"team": ""}}, "scopes.team"),
        ({"tenant": "acme", "scopes": {"team": "a\nb"}}, "scopes.team"),
        ({"tenant": "acme", "scopes": {"Team": "a"}}, "scopes"),
        ({"tenant": "acme", "scopes": {"team": "x" * 257}}, "scopes.team"),
        ({"tenant": "{acme}", "scopes": {"team": "t"}}, "tenant"),
    ],
)
def test_what_is_missing_or_malformed_is_named(fields, param):
    """400 with the field, so that the caller can fix it."""
    with pytest.raises(InvalidRequest) as raised:
        resolve(**fields)
    assert raised.value.param == param


@pytest.mark.parametrize("param", ["model", "operation", "provider", "deployment", "region"])
def test_names_that_no_event_may_carry_are_refused(param):
    """Such a call would be served, and its event a dead letter: never billed, its hold kept to the end of its time."""
    with pytest.raises(InvalidRequest) as raised:
        resolve_caller(CheckRequest(**{"model": "big", "identity": IDENTITY, param: "a\r\nb"}), CONFIG)
    assert raised.value.param == param


def test_an_unknown_tenant_is_refused():
    """A tenant that is not listed has no budgets: letting it pass would be free."""
    with pytest.raises(Forbidden) as raised:
        resolve(tenant="stranger", scopes={"team": "t"})
    assert raised.value.code == "tenant_unknown"


def test_a_team_of_a_tenant_that_is_gone_is_refused():
    """The team file is still there, its tenant is not."""
    orphaned = Config("v2", {}, {"search": TEAM}, (), {})
    with pytest.raises(Forbidden) as raised:
        resolve_caller(CheckRequest(model="big", identity=IDENTITY), orphaned)
    assert raised.value.code == "tenant_unknown"


def test_an_unknown_identity_is_refused():
    """Nobody lists it, so nobody pays for it."""
    with pytest.raises(Forbidden) as raised:
        resolve(identity={"oid": "stranger"})
    assert raised.value.code == "identity_unknown"


@pytest.mark.parametrize(
    "body",
    [
        b'{"tenant": "acme"}',
        b'{"model": ""}',
        b'{"model": "m", "input_tokens": -1}',
        b'{"model": "m", "max_output_tokens": 10000000000}',
        b'{"model": "m", "input_tokens": 1.5}',
        b'{"model": "m", "tools": "web"}',
        b'{"model": "m", "scopes": {"team": 1}}',
    ],
)
def test_malformed_bodies_do_not_decode(body):
    """Counts are whole and bounded, names are text."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=CheckRequest)
