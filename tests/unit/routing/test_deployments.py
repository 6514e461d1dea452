"""Names of models: what callers, events and routes mean by them."""

from __future__ import annotations

import pytest

from shared.budgets.request import CheckRequest, canonical
from shared.config.model import Model
from shared.routing.deployments import Deployments, Served

MODELS = {
    "gpt-4o": Model("gpt-4o", deployments=("gpt-4o-weu", "gpt-4o-swc")),
    "gpt-4o-mini": Model("gpt-4o-mini"),
    "gpt-4.1": Model("gpt-4.1", deployments=("first", "gpt-4.1", "shared")),
    "claude": Model("claude", provider="anthropic", deployments=("shared", "gpt-4o-mini")),
}
KNOWN = Deployments(MODELS)


@pytest.mark.parametrize(
    ("name", "provider", "expected"),
    [
        ("gpt-4o", "", Served("gpt-4o", "azure-openai", "gpt-4o-weu")),
        ("gpt-4o-swc", "", Served("gpt-4o", "azure-openai", "gpt-4o-swc")),
        ("gpt-4o-mini", "", Served("gpt-4o-mini", "azure-openai", "gpt-4o-mini")),
        ("gpt-4.1", "", Served("gpt-4.1", "azure-openai", "gpt-4.1")),
        ("shared", "", Served("gpt-4.1", "azure-openai", "shared")),
        ("shared", "azure", Served("gpt-4.1", "azure-openai", "shared")),
        ("shared", "Anthropic", Served("claude", "anthropic", "shared")),
        ("gpt-4o-mini", "anthropic", Served("claude", "anthropic", "gpt-4o-mini")),
        ("GPT-4o-WEU", "", Served("gpt-4o", "azure-openai", "gpt-4o-weu")),
        ("gpt-4o-weu", "openai", None),
        ("unheard-of", "", None),
    ],
)
def test_what_a_name_means(name: str, provider: str, expected: Served | None) -> None:
    """Model ids first, then deployments in the order of the file, always of the stated provider, in any case."""
    assert KNOWN.named(name, provider) == expected


def test_the_order_of_the_file_decides_between_providers() -> None:
    """The same configuration read the other way round answers the other one: always the first, never a random one."""
    turned = Deployments(dict(reversed(MODELS.items())))
    assert turned.named("shared") == Served("claude", "anthropic", "shared")


def test_a_model_is_served_by_its_first_deployment() -> None:
    """After a downgrade nobody named a deployment; a model that lists none is deployed under its own id."""
    assert KNOWN.serving("gpt-4o").deployment == "gpt-4o-weu"
    assert KNOWN.serving("gpt-4o-mini").deployment == "gpt-4o-mini"
    assert KNOWN.serving("unheard-of") == Served("unheard-of", "azure-openai", "unheard-of")


def test_an_unknown_name_stays_as_it_is() -> None:
    """With the provider and the deployment its gateway stated, or the usual ones."""
    plain = canonical(CheckRequest(model="new", tenant="t"), KNOWN)
    assert (plain.model, plain.provider, plain.deployment) == ("new", "azure-openai", "new")
    stated = canonical(CheckRequest(model="new", tenant="t", provider="bedrock", deployment="d"), KNOWN)
    assert (stated.model, stated.provider, stated.deployment) == ("new", "bedrock", "d")


def test_a_stated_deployment_is_spelled_as_config_spells_it() -> None:
    """A price of one deployment holds however its caller writes the name; an unlisted one stays as it is."""
    for stated, spelled in (("GPT-4O-swc", "gpt-4o-swc"), ("Unlisted", "Unlisted"), ("", "gpt-4o-weu")):
        asked = CheckRequest(model="gpt-4o", tenant="t", deployment=stated)
        assert canonical(asked, KNOWN).deployment == spelled


def test_the_callers_own_request_is_not_changed() -> None:
    """Asked twice, the same object means the same."""
    asked = CheckRequest(model="gpt-4o-swc", tenant="t")
    assert canonical(asked, KNOWN).model == "gpt-4o"
    assert asked.model == "gpt-4o-swc"
