"""models.yaml `endpoints`: addresses that can work, or a problem that names line and field and repeats no secret."""

from __future__ import annotations

import pytest

from shared.config.loader import load_config
from shared.config.model import Config, Endpoint
from shared.errors import ConfigInvalid
from shared.settings import Settings

TENANTS = b"tenants: [{id: default}]"


def loaded(models: str) -> Config:
    return load_config({"tenants.yaml": TENANTS, "models.yaml": models.encode()})


def endpoint(text: str) -> Endpoint:
    (found,) = loaded(f"endpoints:\n  - {text}\nmodels: []\n").endpoints.values()
    return found


@pytest.mark.parametrize(
    ("provider", "api", "url"),
    [
        ("openai", "openai", "https://api.openai.com/v1"),
        ("anthropic", "anthropic", "https://api.anthropic.com"),
        ("openrouter", "openrouter", "https://openrouter.ai/api/v1"),
    ],
)
def test_well_known_addresses_are_built_in(provider: str, api: str, url: str) -> None:
    """A provider with one public address needs no more than its key's name."""
    found = endpoint(f"{{id: x, provider: {provider}, key: X_API_KEY}}")
    assert (found.api, found.url, found.key) == (api, url, "X_API_KEY")


def test_other_providers_speak_openais_api_at_their_own_address() -> None:
    """Ollama, vLLM and whoever else is compatible: keyless on this machine, times as they need them."""
    found = endpoint(
        "{id: o, provider: ollama, url: 'http://127.0.0.1:1/v1/', "
        "timeout_seconds: 30, stall_seconds: 5, stream_options: off}"
    )
    assert (found.api, found.url, found.key) == ("openai", "http://127.0.0.1:1/v1", None)
    assert (found.timeout_seconds, found.stall_seconds, found.stream_options) == (30, 5, False)


def test_azure_by_any_of_its_names_speaks_azures_api() -> None:
    """The price book's aliases of a provider are one provider here too; no key means Entra ID."""
    found = endpoint("{id: w, provider: azure, url: https://w.openai.azure.com, region: westeurope, data_zone: eu}")
    assert (found.api, found.key, found.region, found.data_zone) == ("azure-openai", None, "westeurope", "eu")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{provider: openai, key: A_API_KEY}", "endpoints[0].id: is required"),
        ("{id: 'a b', provider: openai, key: A_API_KEY}", "endpoints[0].id: expected letters"),
        ("{id: a}", "endpoints[0].provider: is required"),
        ("{id: a, provider: mistral}", "endpoints[0].url: is required: no address is built in for 'mistral'"),
        ("{id: a, provider: openai}", "endpoints[0].key: is required for openai: an app setting such as OPENAI_API"),
        ("{id: a, provider: openai, key: OPENAI}", "endpoints[0].key: expected the name of an app setting that ends"),
        ("{id: a, provider: x, url: x.example}", "endpoints[0].url: expected an address such as https://"),
        ("{id: a, provider: x, url: 'https://[x'}", "endpoints[0].url: expected an address such as https://"),
        ("{id: a, provider: x, url: 'https://x:y'}", "endpoints[0].url: expected an address such as https://"),
        ("{id: a, provider: x, url: 'ftp://x'}", "endpoints[0].url: expected an address such as https://"),
        ("{id: a, provider: x, url: 'http://10.0.0.5/v1'}", "endpoints[0].url: must start with https://; http:// is"),
        (
            "{id: a, provider: azure, url: 'http://x', private: true}",
            "endpoints[0].url: must start with https://",
        ),
        ("{id: a, provider: x, url: 'https://x', api: grpc}", "endpoints[0].api: 'grpc' is none of azure-openai, op"),
        (
            "{id: a, provider: x, url: 'https://x', timeout_seconds: 0}",
            "endpoints[0].timeout_seconds: expected",
        ),
        ("{id: a, provider: x, url: 'https://x', adress: y}", "endpoints[0].adress: unknown field"),
    ],
)
def test_problem_names_line_and_field(text: str, problem: str) -> None:
    """Each says what would be right."""
    with pytest.raises(ConfigInvalid) as refused:
        endpoint(text)
    assert f"config/models.yaml:2: {problem}" in refused.value.message


@pytest.mark.parametrize("text", ["url: 'https://me:hunter2@x/v1'", "url: 'https://x/v1?key=hunter2'", "key: hunter2"])
def test_secret_in_the_wrong_place_is_not_repeated(text: str) -> None:
    """Somebody pastes a key: the problem that says so ends up in logs and terminals."""
    with pytest.raises(ConfigInvalid) as refused:
        endpoint(f"{{id: a, provider: openai, {text}}}")
    assert "hunter2" not in refused.value.message


def test_http_on_a_private_network_is_taken_when_somebody_says_so() -> None:
    """vLLM inside a cluster."""
    assert endpoint("{id: a, provider: vllm, url: 'http://vllm.models.svc:8000/v1', private: true}").url


def test_an_endpoint_is_listed_once() -> None:
    """Two of one id: nobody could say which of them a deployment means."""
    with pytest.raises(ConfigInvalid, match=r"models.yaml:3: endpoints\[1\].id: endpoint 'a' is listed twice"):
        loaded("endpoints:\n  - {id: a, provider: x, url: 'https://x'}\n  - {id: a, provider: y, url: 'https://y'}\n")


ENDPOINTS = "endpoints: [{id: weu, provider: azure, url: https://w}, {id: openai, provider: openai, key: O_API_KEY}]\n"


def test_deployments_may_name_their_endpoint() -> None:
    """Plain names and named places side by side, in their order."""
    models = loaded(ENDPOINTS + "models: [{id: gpt-4o, deployments: [a, {name: b, endpoint: weu}]}]").models
    assert models["gpt-4o"].deployments == ("a", "b")
    assert models["gpt-4o"].places == {"b": "weu"}


@pytest.mark.parametrize(
    ("deployments", "problem"),
    [
        ("[{name: b, endpoint: wue}]", "deployments[0].endpoint: endpoint 'wue' is not listed in models.yaml; did you"),
        ("[{name: b, endpoint: openai}]", "deployments[0].endpoint: 'openai' is of provider openai, but the model's"),
        ("[{name: b}]", "deployments[0].endpoint: is required"),
        ("[{endpoint: weu}]", "deployments[0].name: is required"),
        ("[b, {name: b, endpoint: weu}]", "deployments[1]: 'b' is listed twice"),
        ("[[b]]", "deployments[0]: expected text, got a list"),
    ],
)
def test_problem_of_a_deployment_names_its_place(deployments: str, problem: str) -> None:
    """A deployment that cannot be served as written is no deployment."""
    with pytest.raises(ConfigInvalid) as refused:
        loaded(ENDPOINTS + f"models: [{{id: gpt-4o, deployments: {deployments}}}]")
    assert f"config/models.yaml:2: models[0].{problem}" in refused.value.message


def test_a_missing_endpoint_is_told_even_when_none_is_listed() -> None:
    """A deployment that names one in a file without any."""
    with pytest.raises(ConfigInvalid, match=r"endpoint 'weu' is not listed in models\.yaml"):
        loaded("models: [{id: gpt-4o, deployments: [{name: b, endpoint: weu}]}]")


def test_keys_of_endpoints_are_settings_and_never_shown() -> None:
    """Every variable that ends in _API_KEY; what Key Vault has not resolved is none."""
    settings = Settings.from_env(
        {
            "TOLLKEEPER_ENV": "development",
            "OPENAI_API_KEY": "sk-hunter2",
            "ANTHROPIC_API_KEY": "@Microsoft.KeyVault(SecretUri=https://v/secrets/k)",
            "EMPTY_API_KEY": " ",
        }
    )
    assert settings.model_keys == {"OPENAI_API_KEY": "sk-hunter2"}
    assert "hunter2" not in repr(settings)
