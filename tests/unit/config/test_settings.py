"""Settings: environment variables become typed values, and every problem names its variable."""

from __future__ import annotations

import pytest

from shared.errors import ConfigInvalid
from shared.settings import DEVELOPMENT_TOKEN_KEY, Settings

PRODUCTION = {
    "REDIS_URL": "rediss://cache.example:10000",
    "EventHubs__fullyQualifiedNamespace": "hub.servicebus.windows.net",
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
        ("LLM_LOGS_HUB", "Usage"),  # the hub of usage events
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


def test_two_config_sources_are_refused() -> None:
    """A directory and a container together would leave open which one rules."""
    assert "CONFIG_URL" in problems_of({**PRODUCTION, "CONFIG_DIR": "config", "CONFIG_URL": "https://x/config"})[0]


def test_secrets_stay_out_of_problems_and_repr() -> None:
    """Neither a refused address nor a printed settings object may leak a secret."""
    env = {**PRODUCTION, "LEDGER_STORAGE": "AccountKey=hunter2", "AZURE_OPENAI_API_KEY": "hunter2"}
    assert "hunter2" not in repr(Settings.from_env(env))
    assert "a" * 32 not in repr(Settings.from_env(env))
    assert "hunter2" not in "\n".join(problems_of({**PRODUCTION, "REDIS_URL": "http://:hunter2@cache"}))


def test_serving_without_platform_authentication_is_refused_outside_development() -> None:
    """The principal header can be trusted only where the platform sets it."""
    with pytest.raises(ConfigInvalid, match="WEBSITE_AUTH_ENABLED"):
        Settings.from_env(PRODUCTION).require_platform_auth()
    Settings.from_env({**PRODUCTION, "WEBSITE_AUTH_ENABLED": "True"}).require_platform_auth()
    Settings.from_env({"TOLLKEEPER_ENV": "development"}).require_platform_auth()
