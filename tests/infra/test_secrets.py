"""No secret in state that an identity could replace, and no key in any app setting, named value or output."""

from __future__ import annotations

from tests.infra.leaks import ADDRESSES, HARMLESS, leaks
from tests.infra.rules.common import app_settings
from tests.support.arm import Deployment
from tests.support.known_plan import KnownPlan


def test_no_secret_leaves_its_resource(plan: KnownPlan) -> None:
    """What a provider computes as sensitive is in no other resource and no output, and nobody wrote a key down."""
    assert leaks(plan) == []


def test_exceptions_are_in_use(plan: KnownPlan) -> None:
    """Every exception is of a type that is planned."""
    kinds = {found.type for found in plan.resources.values()}
    assert {name.partition("#")[0] for name in (*HARMLESS, *ADDRESSES)} <= kinds


def test_no_app_setting_is_a_key(terraform_items: Deployment, bicep_items: Deployment) -> None:
    """By name: no setting ends like a key; the one that holds keys refers to Key Vault."""
    for found in (terraform_items, bicep_items):
        settings = app_settings(found)
        assert [name for name in settings if name.lower().endswith(("_key", "_secret", "password", "connection"))] == []
        assert settings["RESERVATION_KEYS"].startswith("@Microsoft.KeyVault(")
        assert all("list" not in value for value in settings.values()), "a key that Azure lists"
