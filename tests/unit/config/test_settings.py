"""Settings: environment variables become typed values, and every problem names its variable."""

from __future__ import annotations

import pytest

from shared.errors import ConfigInvalid
from shared.settings import DEVELOPMENT_TOKEN_KEY, Settings

PRODUCTION = {
    "REDIS_URL": "rediss://cache.example:10000",
    "EventHubs__fullyQualifiedNamespace": "usage.servicebus.windows.net",
    "LlmLogs__fullyQualifiedNamespace": "logs.servicebus.windows.net",
    "LEDGER_TABLES_ENDPOINT": "https://ledger.table.core.windows.net/",
    "LEDGER_BLOBS_ENDPOINT": "https://ledger.blob.core.windows.net",
    "RESERVATION_KEYS": f"{'a' * 32}, {'b' * 32}",
}


def problems_of(env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigInvalid) as refused:
        Settings.from_env(env)
    return refused.value.message.splitlines()


def test_development_needs_nothing() -> None:
    """A laptop starts with no variable but the mode."""
    settings = Settings.from_env({"TOLLKEEPER_ENV": "development"})
    assert settings.config_location == "config"
    assert settings.token_keys == (DEVELOPMENT_TOKEN_KEY,)


def test_production_reads_its_variables() -> None:
    """The first reservation key signs, addresses lose their trailing slash."""
    settings = Settings.from_env(PRODUCTION)
    assert settings.environment == "production"
    assert settings.token_keys == ("a" * 32, "b" * 32)
    assert settings.tables_endpoint == "https://ledger.table.core.windows.net"


def test_production_names_every_missing_variable_at_once() -> None:
    """Nobody should restart five times to learn five names."""
    named = {line.split(":")[0] for line in problems_of({})}
    assert named == set(PRODUCTION)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOLLKEEPER_ENV", "prod"),
        ("REDIS_URL", "cache.example:6379"),
        ("REDIS_CLUSTER", "maybe"),
        ("REDIS_TIMEOUT_SECONDS", "fast"),
        ("REDIS_TIMEOUT_SECONDS", "0"),
        ("HOLD_TTL_SECONDS", "-1"),
        ("HOLD_BUCKET_SECONDS", "3000"),
        ("CONFIG_POLL_SECONDS", "60"),
        ("LEDGER_RETENTION_DAYS", "1.5"),
        ("LEDGER_TABLE_PREFIX", "toll-keeper"),
        ("USAGE_HUB", "a/b"),
        ("LLM_LOGS_HUB", "a/b"),
        ("STREAM_WAIT_MINUTES", "0"),
        ("RESERVATION_KEYS", "short"),
        ("RESERVATION_KEYS", DEVELOPMENT_TOKEN_KEY),
        ("GATEWAY_KEYS", "{not json"),
        ("GATEWAY_KEYS", '{"abc": "search-prod"}'),
        ("CONFIG_URL", "ftp://x/y"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    """Each refused value is reported under the name of its variable."""
    assert any(line.startswith(f"{name}:") for line in problems_of({**PRODUCTION, name: value}))


@pytest.mark.parametrize(
    "namespace",
    [
        {"LlmLogs__fullyQualifiedNamespace": "Usage.servicebus.windows.net"},
        {"LlmLogs": "Endpoint=sb://usage.servicebus.windows.net/;SharedAccessKeyName=x;SharedAccessKey=y"},
    ],
)
def test_one_hub_for_usage_and_logs_is_refused(namespace: dict[str, str]) -> None:
    """Log records would be taken for usage events. Two hubs of one name in two namespaces are two hubs."""
    same_name = {**PRODUCTION, "LLM_LOGS_HUB": "Usage"}
    assert Settings.from_env(same_name).llm_logs_hub == "Usage"
    [problem] = problems_of({**same_name, **namespace})
    assert problem.startswith("LLM_LOGS_HUB:")


@pytest.mark.parametrize(
    ("hub", "stream", "of_logs"),
    [
        ("llm-logs", "logs.servicebus.windows.net/LLM-Logs/0", True),
        ("llm-logs", "usage.servicebus.windows.net/llm-logs/0", True),  # where the hub was before
        ("llm-logs", "usage.servicebus.windows.net/usage/0", False),
        ("usage", "LOGS.servicebus.windows.net/usage/0", True),
        ("usage", "usage.servicebus.windows.net/usage/0", False),
        ("usage", "elsewhere", False),
    ],
)
def test_streams_of_the_log_hub_are_told_by_its_name_and_then_by_its_namespace(
    hub: str, stream: str, of_logs: bool
) -> None:
    """A dead letter goes back to the hub it came from."""
    assert Settings.from_env({**PRODUCTION, "LLM_LOGS_HUB": hub}).is_llm_log_stream(stream) is of_logs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://cache.example:10000", "rediss://"),
        ("rediss://:hunter2@cache.example:10000", "password"),
        ("rediss://someone@cache.example:10000", "user"),
        ("rediss://cache.example:10000?ssl_cert_reqs=none", "TLS"),
        ("rediss://cache.example:10000?ssl_check_hostname=false", "TLS"),
    ],
)
def test_tokens_for_redis_go_to_nobody_but_the_named_server(url: str, says: str) -> None:
    """Not over plain text, not beside a password, not to a server that need not prove its name."""
    [problem] = problems_of({**PRODUCTION, "REDIS_ENTRA_ID": "true", "REDIS_URL": url})
    assert problem.startswith("REDIS_URL:")
    assert says in problem
    assert "hunter2" not in problem
    Settings.from_env({**PRODUCTION, "REDIS_URL": url})  # all of it is a choice without tokens


def test_redis_may_be_signed_in_to_with_tokens() -> None:
    """Also with an authority of one's own."""
    url = "rediss://cache.example:10000?ssl_ca_certs=/etc/ca.pem"
    settings = Settings.from_env({**PRODUCTION, "REDIS_ENTRA_ID": "true", "REDIS_URL": url})
    assert settings.redis_entra_id
    assert settings.redis_url == url


@pytest.mark.parametrize("name", ["RESERVATION_KEYS", "HELICONE_WEBHOOK_SECRET"])
def test_a_key_vault_reference_is_no_secret(name: str) -> None:
    """Where it cannot be resolved the platform leaves its text, which is long enough for a key and easily guessed."""
    reference = "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/reservation-keys)"
    [problem] = problems_of({**PRODUCTION, name: reference})
    assert problem.startswith(f"{name}: its Key Vault reference is not resolved")


def test_two_config_sources_are_refused() -> None:
    """A directory and a container together would leave open which one rules."""
    assert "CONFIG_URL" in problems_of({**PRODUCTION, "CONFIG_DIR": "config", "CONFIG_URL": "https://x/config"})[0]


def test_secrets_stay_out_of_problems_and_repr() -> None:
    """Neither a refused address nor a printed settings object may leak a secret."""
    secrets = dict.fromkeys(("LEDGER_STORAGE", "LlmLogs", "AZURE_OPENAI_API_KEY"), "Key=hunter2")
    env = {**PRODUCTION, **secrets}
    assert "hunter2" not in repr(Settings.from_env(env))
    assert "a" * 32 not in repr(Settings.from_env(env))
    assert "hunter2" not in "\n".join(problems_of({**PRODUCTION, "REDIS_URL": "http://:hunter2@cache"}))


def test_serving_without_platform_authentication_is_refused_outside_development() -> None:
    """The principal header can be trusted only where the platform sets it."""
    with pytest.raises(ConfigInvalid, match="WEBSITE_AUTH_ENABLED"):
        Settings.from_env(PRODUCTION).require_platform_auth()
    Settings.from_env({**PRODUCTION, "WEBSITE_AUTH_ENABLED": "True"}).require_platform_auth()
    Settings.from_env({"TOLLKEEPER_ENV": "development"}).require_platform_auth()


def test_the_gateway_asks_for_no_store_that_it_has_no_right_to() -> None:
    """It checks, calls and reports: neither the ledger's storage nor the LLM log is among its settings."""
    needed = ("REDIS_URL", "EventHubs__fullyQualifiedNamespace", "RESERVATION_KEYS")
    Settings.for_gateway({name: PRODUCTION[name] for name in needed})
    with pytest.raises(ConfigInvalid) as refused:
        Settings.for_gateway({})
    assert {line.split(":")[0] for line in refused.value.message.splitlines()} == set(needed)


def test_the_simulated_model_is_refused_outside_development() -> None:
    """Left behind in a deployment it would take every call of a model without an endpoint, and any caller's knobs."""
    address = {"MODEL_URL": "http://127.0.0.1:9000"}
    [problem] = problems_of({**PRODUCTION, **address})
    assert problem.startswith("MODEL_URL:")
    assert "models.yaml" in problem
    assert Settings.from_env({"TOLLKEEPER_ENV": "development", **address}).local_model_url == address["MODEL_URL"]


@pytest.mark.parametrize("platform", ["WEBSITE_INSTANCE_ID", "CONTAINER_APP_NAME"])
def test_development_is_refused_on_azure(platform: str) -> None:
    """There every caller would be an admin: each platform of Azure is known by a variable that it alone sets."""
    [problem] = problems_of({"TOLLKEEPER_ENV": "development", platform: "x"})
    assert problem.startswith("TOLLKEEPER_ENV:")


def test_addresses_of_notices_are_collected_and_never_shown() -> None:
    """By prefix; one that Key Vault has not given yet stops no start; a webhook's address is as good as a password."""
    variables = {
        "ALERT_SLACK": "https://hooks.slack.example/T0/B0/hunter2",
        "ALERT_MAIL": " ",
        "ALERT_LATER": "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/x)",
        "SMTP_URL": "smtps://me:hunter3@mail.example:465",
    }
    settings = Settings.from_env({**PRODUCTION, **variables})
    assert settings.alert_targets == {"ALERT_SLACK": "https://hooks.slack.example/T0/B0/hunter2"}
    assert "hunter" not in repr(settings)


@pytest.mark.parametrize(
    ("variables", "signals"),
    [
        ({}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, {"traces", "metrics", "logs"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_METRICS_EXPORTER": "none"}, {"traces", "logs"}),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://loki/otlp/v1/logs"}, {"logs"}),
    ],
)
def test_signals_go_where_an_endpoint_is_named(variables: dict[str, str], signals: set[str]) -> None:
    """Telemetry starts by the standard variables alone, and only for what they name."""
    assert Settings.from_env({**PRODUCTION, **variables}).otlp_signals == signals
