"""Which endpoint serves a deployment."""

from __future__ import annotations

from shared.config.loader import load_config
from shared.routing.endpoints import Endpoints, default_endpoint

TENANTS = b"tenants: [{id: default}]"
LISTED = """
endpoints:
  - {id: azure-weu, provider: azure-openai, url: https://weu.openai.azure.com}
  - {id: azure-swc, provider: azure-openai, url: https://swc.openai.azure.com, key: SWC_API_KEY}
  - {id: openai, provider: openai, key: OPENAI_API_KEY}
models:
  - {id: gpt-4o, deployments: [gpt-4o-weu, {name: gpt-4o-swc, endpoint: azure-swc}]}
  - {id: gpt-5.4, provider: openai}
  - {id: llama, provider: ollama}
"""
DEFAULT = default_endpoint("https://old.openai.azure.com", None)


def endpoints(models: str, default=DEFAULT) -> Endpoints:
    return Endpoints(load_config({"tenants.yaml": TENANTS, "models.yaml": models.encode()}), default)


def url(found) -> str | None:
    return found.url if found else None


def test_a_deployment_goes_where_it_says_and_else_to_the_first_of_its_provider() -> None:
    """Two regions of one provider: the plain name is the first's, the other names its own."""
    found = endpoints(LISTED)
    assert url(found.of("azure-openai", "gpt-4o-weu")) == "https://weu.openai.azure.com"
    assert url(found.of("azure-openai", "gpt-4o-swc")) == "https://swc.openai.azure.com"
    assert url(found.of("azure", "gpt-4o-swc")) == "https://swc.openai.azure.com"  # another name of the provider
    assert url(found.of("openai", "gpt-5.4")) == "https://api.openai.com/v1"


def test_a_provider_without_an_endpoint_is_served_by_none() -> None:
    """A prompt must not go to some other provider because its own is not listed."""
    assert endpoints(LISTED).of("ollama", "llama") is None


def test_without_endpoints_the_settings_own_serves_every_model() -> None:
    """As before there was a list: AZURE_OPENAI_ENDPOINT, or the laptop's model, for whatever config names."""
    found = endpoints("models: [{id: gpt-4o}, {id: llama, provider: ollama}]")
    assert url(found.of("ollama", "llama")) == url(found.of("azure-openai", "gpt-4o")) == "https://old.openai.azure.com"


def test_beside_listed_endpoints_the_settings_own_serves_its_provider() -> None:
    """Adding OpenAI to a configuration does not cut Azure off."""
    found = endpoints("endpoints: [{id: openai, provider: openai, key: OPENAI_API_KEY}]\nmodels: [{id: gpt-4o}]")
    assert url(found.of("azure-openai", "gpt-4o")) == "https://old.openai.azure.com"
    assert found.of("ollama", "llama") is None


def test_without_any_endpoint_nothing_is_served() -> None:
    """Neither config nor settings name one."""
    assert default_endpoint(None, None) is None
    assert endpoints("models: [{id: gpt-4o}]", None).of("azure-openai", "gpt-4o") is None
