"""Whose call an unchecked event reports, and on which model: the rules of the check, applied to what is known."""

from __future__ import annotations

from typing import Any

import pytest

from shared.budgets.request import CheckRequest, resolve_caller
from shared.budgets.snapshot import Snapshot
from shared.config.model import Config, Model, Team, Tenant
from shared.errors import Forbidden
from shared.ledger.attribution import attribute
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.usage.events import UsageData
from shared.usage.rejected import EventRejected

CONFIG = Config(
    "v1",
    {"acme": Tenant("acme", client_asserted_scopes=frozenset({"session"}))},
    {
        "search": Team("search", "acme", subscriptions=frozenset({"search-prod"}), groups=frozenset({"g-1"})),
        "ads": Team("ads", "acme", groups=frozenset({"g-2"})),
        "orphans": Team("orphans", "gone", subscriptions=frozenset({"orphaned"})),
    },
    (),
    {
        "big": Model("big", deployments=("big-weu", "shared")),
        "small": Model("small", deployments=("small",)),
        "other": Model("other", provider="anthropic", deployments=("shared",)),
    },
)
_PRICER = Pricer(PriceBook([]), CONFIG)
SNAPSHOT = Snapshot(CONFIG, _PRICER, Router(CONFIG, _PRICER))
SEARCH = {"subscription": "search-prod", "oid": "0f0e"}


def attributed(**fields: Any) -> UsageData:
    """The data of an event on model big unless said otherwise, attributed."""
    data = UsageData(**{"model": "big", "requested_model": "big", "scopes": {}, **fields})
    attribute(data, SNAPSHOT)
    return data


def test_an_identity_is_billed_as_the_check_would_have_billed_it() -> None:
    """Tenant and scopes are those of a check of the same identity, client-asserted scopes included."""
    data = attributed(identity=SEARCH, scopes={"session": "s-1"})
    checked = CheckRequest(model="big", identity=SEARCH, scopes={"session": "s-1"})
    tenant, scopes = resolve_caller(checked, CONFIG)
    assert (data.tenant, data.scopes) == (tenant.id, scopes)
    assert data.scopes == {"session": "s-1", "subscription": "search-prod", "team": "search", "user": "0f0e"}


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"identity": {"oid": "stranger"}}, "identity_unknown", "data.identity"),
        ({"identity": {}}, "identity_unknown", "data.identity"),
        ({"identity": {"groups": ["g-1", "g-2"]}}, "identity_ambiguous", "data.identity"),
        ({"identity": SEARCH, "scopes": {"team": "ads"}}, "scope_not_allowed", "data.scopes.team"),
        ({"identity": SEARCH, "scopes": {"user": "victim"}}, "scope_not_allowed", "data.scopes.user"),
        ({"identity": {"subscription": "orphaned"}}, "tenant_unknown", "data.tenant"),
    ],
)
def test_what_a_check_refuses_no_event_gets_either(fields: dict[str, Any], code: str, param: str) -> None:
    """The same code as the check, so that one page explains both; nothing is billed to a guess."""
    with pytest.raises(EventRejected) as raised:
        attributed(**fields)
    assert (raised.value.code, raised.value.param) == (code, param)
    assert raised.value.message.startswith(f"{param}: ")
    with pytest.raises(Forbidden) as refused:
        resolve_caller(CheckRequest(model="big", **fields), CONFIG)
    assert refused.value.code == code


def test_a_stated_tenant_is_left_as_it_is() -> None:
    """A checked call carries what the check answered; whether the tenant exists is asked when it is billed."""
    data = attributed(tenant="acme", scopes={"team": "anything"})
    assert (data.tenant, data.scopes) == ("acme", {"team": "anything"})


def test_claims_cannot_forge_a_line_of_a_log() -> None:
    """Groups are compared, never stored, so they may hold anything; the message quotes and cuts them."""
    with pytest.raises(EventRejected) as raised:
        attributed(identity={"groups": ["x\nERROR forged " + "y" * 5000]})
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 300


@pytest.mark.parametrize(
    ("named", "provider", "expected"),
    [
        ("big", "", ("big", "azure-openai", "")),
        ("big-weu", "", ("big", "azure-openai", "big-weu")),
        ("BIG-WEU", "", ("big", "azure-openai", "big-weu")),
        ("small", "", ("small", "azure-openai", "small")),
        ("shared", "anthropic", ("other", "anthropic", "shared")),
        ("big-weu", "anthropic", ("big-weu", "anthropic", "")),
        ("mystery", "", ("mystery", "", "")),
    ],
)
def test_deployment_names_become_their_models(named: str, provider: str, expected: tuple[str, str, str]) -> None:
    """A call that no check saw has only the caller's name; left so, it would miss the model's price and budgets."""
    data = attributed(tenant="acme", model=named, requested_model=named, provider=provider)
    assert (data.model, data.provider, data.deployment) == expected
    assert data.requested_model == data.model


def test_what_was_asked_for_is_resolved_by_itself() -> None:
    """After a downgrade both names are ids; a stated deployment and provider stay."""
    data = attributed(
        tenant="acme", model="small", requested_model="big-weu", deployment="small-swc", provider="azure-openai"
    )
    assert (data.requested_model, data.model, data.deployment) == ("big", "small", "small-swc")
    assert attributed(tenant="acme", model="mystery", deployment="BIG-weu").deployment == "big-weu"
