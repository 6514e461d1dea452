"""Where the parts are and how they are tuned: the only module of the product that reads environment variables.

Everything a tenant or a team may decide lives in the configuration files instead (shared/config). Problems are all
reported at once, and each names the variable and what would be right.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from shared.errors import ConfigInvalid

DEVELOPMENT_TOKEN_KEY = "development-only-reservation-key"  # noqa: S105 - refused in production, see _token_keys
MIN_TOKEN_KEY_CHARS = 32
_HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,255}"
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_SECRET_FIELDS = (
    "redis_url",  # may carry a password
    "eventhub_connection",
    "llm_logs_connection",
    "storage_connection",
    "telemetry_connection",
    "token_keys",
    "gateway_keys",
    "upstream_key",
    "model_keys",
    "pseudonym_key",
    "helicone_secret",
    "alert_targets",  # a webhook's address is its password
    "smtp_url",
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The process's settings. `from_env` validates; the constructor is for tests, which state what they need."""

    environment: Literal["development", "production"] = "production"
    auth_enabled: bool = False  # the platform (Easy Auth) validates callers before the app sees them

    public_url: str | None = None  # where people open the app, when that is not the address it answers on

    config_location: str = "config"  # a directory, or the https address of a blob container
    config_poll_seconds: int = 15

    redis_url: str = "redis://127.0.0.1:6379"
    redis_entra_id: bool = False  # sign in with tokens of the managed identity
    redis_cluster: bool = False
    redis_timeout_seconds: float = 1.0  # counts from the question, so a busy worker must have room in it

    eventhub_connection: str | None = None
    eventhub_namespace: str | None = None  # used with managed identity when there is no connection string
    usage_hub: str = "usage"
    consumer_group: str = "$Default"
    llm_logs_connection: str | None = None  # a namespace of its own, because what writes there needs a key
    llm_logs_namespace: str | None = None
    llm_logs_hub: str = "llm-logs"
    llm_logs_consumer_group: str = "$Default"
    stream_wait_minutes: int = 30  # after which a stream without its tokens counts as unmeasured

    storage_connection: str | None = None
    tables_endpoint: str | None = None  # used with managed identity when there is no connection string
    blobs_endpoint: str | None = None
    managed_identity_client_id: str | None = None  # None: the system-assigned identity
    table_prefix: str = "tollkeeper"
    ledger_retention_days: int = 0  # 0 keeps everything

    token_keys: tuple[str, ...] = (DEVELOPMENT_TOKEN_KEY,)  # the first signs, all verify: rotation without an outage
    hold_ttl_seconds: int = 900
    hold_bucket_seconds: int = 30
    default_output_tokens: int = 500

    max_check_body_bytes: int = 64 * 1024
    max_usage_body_bytes: int = 1024 * 1024

    telemetry_connection: str | None = None  # Application Insights; None: logs go to the platform only
    otlp_signals: frozenset[str] = frozenset()  # of traces, metrics, logs: those with an OTLP/HTTP endpoint
    azure_monitor_calls: bool = False  # a span of every call to Application Insights too
    telemetry_people: bool = False  # user and session keys in spans

    gateway_port: int = 8080
    gateway_name: str = "local"  # the end of its events' CloudEvents source
    spool_directory: str | None = None  # where events wait that the hub does not take; None: in memory only
    spool_max_bytes: int = 256 * 1024 * 1024
    shutdown_grace_seconds: int = 10  # that open calls get to end by themselves
    shutdown_flush_seconds: int = 20  # that the hub gets after it to take what is left
    gateway_keys: Mapping[str, str] = msgspec.field(default_factory=dict)  # sha256 hex of a key -> subscription
    entra_issuer: str | None = None  # whose tokens the gateway takes beside keys; None: no tokens
    entra_audience: str | None = None
    upstream_url: str | None = None
    upstream_key: str | None = None
    local_model_url: str | None = None  # of the simulated model, in development
    model_keys: Mapping[str, str] = msgspec.field(default_factory=dict)  # ..._API_KEY: what endpoints name as `key`

    alert_targets: Mapping[str, str] = msgspec.field(default_factory=dict)  # ALERT_...: addresses and signing secrets
    mail_from: str | None = None
    smtp_url: str | None = None  # smtps:// or smtp:// (STARTTLS), with user and password
    communication_endpoint: str | None = None  # Azure Communication Services; goes before SMTP
    pseudonym_key: str | None = None  # secret under which e-mail addresses in scopes become hashes; None: they stay
    helicone_secret: str | None = None  # HMAC key of the Helicone webhook; None trusts the caller's role alone

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Settings from environment variables (default: this process's).

        Raises ConfigInvalid with one line per problem, each starting with the variable's name.
        """
        return _build(_Reader(os.environ if env is None else env))

    @classmethod
    def for_operator(cls, env: Mapping[str, str] | None = None) -> Settings:
        """As `from_env`, for commands outside the app: nothing is required, and who is signed in to Azure acts."""
        return cls.from_env({**(os.environ if env is None else env), "TOLLKEEPER_ENV": "development"})

    @classmethod
    def for_gateway(cls, env: Mapping[str, str] | None = None) -> Settings:
        """As `from_env`, for the built-in gateway, which reaches neither the ledger's storage nor the LLM log."""
        return _build(_Reader(os.environ if env is None else env), is_gateway=True)

    @property
    def usage_host(self) -> str:
        """Host name of the namespace with the usage hub; empty when none is set."""
        return _namespace_host(self.eventhub_connection, self.eventhub_namespace)

    @property
    def llm_logs_host(self) -> str:
        """Host name of the namespace with the LLM log hub; empty when none is set."""
        return _namespace_host(self.llm_logs_connection, self.llm_logs_namespace)

    def is_llm_log_stream(self, stream: str) -> bool:
        """Whether `namespace/hub/partition` is a stream of the LLM log hub.

        The namespace decides only between hubs of one name: a letter may be older than the hub's present namespace.
        """
        namespace, _, rest = stream.lower().partition("/")  # names have no letter case
        log_hub = self.llm_logs_hub.lower()
        is_by_name = rest.partition("/")[0] == log_hub
        return is_by_name and (self.usage_hub.lower() != log_hub or namespace == self.llm_logs_host)

    def require_platform_auth(self) -> None:
        """Refuse to serve unprotected: outside development the platform must validate callers.

        Raises ConfigInvalid. The app trusts the principal header, which anyone could forge if the platform did not
        strip and set it.
        """
        if self.environment == "production" and not self.auth_enabled:
            raise ConfigInvalid(
                "WEBSITE_AUTH_ENABLED: is not true: switch the function app's authentication (Entra ID) on; "
                "on a laptop set TOLLKEEPER_ENV=development"
            )

    def __repr__(self) -> str:
        """Without secrets, because settings end up in logs and tracebacks."""
        shown = (f"{f}={'***' if f in _SECRET_FIELDS else getattr(self, f)!r}" for f in self.__struct_fields__)
        return f"Settings({', '.join(shown)})"


def _namespace_host(connection: str | None, namespace: str | None) -> str:
    """As the platform names it in a stream, in lower case: `name.servicebus.windows.net`."""
    endpoint = re.search(r"Endpoint\s*=\s*sb://([^/;\s]+)", connection or "", re.IGNORECASE)
    return (endpoint.group(1) if endpoint else namespace or "").lower()


class _Reader:
    """Reads typed variables and collects every problem instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        """The stripped value; an empty one counts as absent, as deployment templates often leave it so."""
        value = self._env.get(name, "").strip() or None
        if value is not None and value.startswith("@Microsoft.KeyVault("):  # the platform's text, known to everybody
            unresolved = f"{name}: its Key Vault reference is not resolved: check the identity's role and the network"
            if unresolved not in self.problems:
                self.problems.append(unresolved)
        return value

    def flag(self, name: str) -> bool:
        value = (self.text(name) or "false").lower()
        if value not in _TRUE + _FALSE:
            self.problems.append(f"{name}: {value!r} is neither true nor false")
        return value in _TRUE

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,12}", value) and low <= int(value) <= high:
            return int(value)
        self.problems.append(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
        return default

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        value = self.text(name)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value) and low <= float(value) <= high:
            return float(value)
        self.problems.append(f"{name}: expected seconds from {low} to {high}, such as {default}, got {value!r}")
        return default

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        """An address with one of the schemes. The value is not repeated in the problem: it may hold a password."""
        value = self.text(name)
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme in schemes and (parts.netloc or parts.scheme == "unix"):
            return value.rstrip("/")
        self.problems.append(f"{name}: expected an address starting with {' or '.join(s + '://' for s in schemes)}")
        return None

    def all_of(self, prefix: str) -> dict[str, str]:
        """Every variable of the prefix that has a value, by name."""
        return self._optional(name for name in self._env if name.startswith(prefix))

    def ending_in(self, suffix: str) -> dict[str, str]:
        """Every variable of the suffix that has a value, by name."""
        return self._optional(name for name in self._env if name.endswith(suffix))

    def _optional(self, names: Iterable[str]) -> dict[str, str]:
        """An unresolved Key Vault reference is no value, and no problem either: nobody's bill may wait for an address
        of notices, nor for the key of one provider.
        """
        named = {name: self._env.get(name, "").strip() for name in sorted(names)}
        return {name: value for name, value in named.items() if value and not value.startswith("@Microsoft.KeyVault(")}

    def pattern(self, name: str, default: str, pattern: str, meaning: str) -> str:
        value = self.text(name) or default
        if re.fullmatch(pattern, value):
            return value
        self.problems.append(f"{name}: expected {meaning}, got {value!r}")
        return default


def _build(read: _Reader, *, is_gateway: bool = False) -> Settings:
    development = _environment(read) == "development"
    settings = Settings(
        environment="development" if development else "production",
        auth_enabled=read.flag("WEBSITE_AUTH_ENABLED"),
        public_url=read.url("PUBLIC_URL", ("https", "http")),
        config_location=_config_location(read),
        config_poll_seconds=read.integer("CONFIG_POLL_SECONDS", 15, 1, 25),
        redis_url=read.url("REDIS_URL", ("redis", "rediss", "unix")) or "redis://127.0.0.1:6379",
        redis_entra_id=read.flag("REDIS_ENTRA_ID"),
        redis_cluster=read.flag("REDIS_CLUSTER"),
        redis_timeout_seconds=read.seconds("REDIS_TIMEOUT_SECONDS", 1.0, 0.01, 30),
        eventhub_connection=read.text("EventHubs"),
        eventhub_namespace=read.text("EventHubs__fullyQualifiedNamespace"),
        usage_hub=read.pattern("USAGE_HUB", "usage", _HUB_NAME, "the name of an event hub"),
        consumer_group=read.text("USAGE_CONSUMER_GROUP") or "$Default",
        llm_logs_connection=read.text("LlmLogs"),
        llm_logs_namespace=read.text("LlmLogs__fullyQualifiedNamespace"),
        llm_logs_hub=read.pattern("LLM_LOGS_HUB", "llm-logs", _HUB_NAME, "the name of an event hub"),
        llm_logs_consumer_group=read.text("LLM_LOGS_CONSUMER_GROUP") or "$Default",
        stream_wait_minutes=read.integer("STREAM_WAIT_MINUTES", 30, 1, 1_440),
        storage_connection=read.text("LEDGER_STORAGE"),
        tables_endpoint=read.url("LEDGER_TABLES_ENDPOINT", ("https", "http")),
        blobs_endpoint=read.url("LEDGER_BLOBS_ENDPOINT", ("https", "http")),
        managed_identity_client_id=read.text("AZURE_CLIENT_ID"),
        table_prefix=read.pattern(
            "LEDGER_TABLE_PREFIX", "tollkeeper", r"[A-Za-z][A-Za-z0-9]{0,30}", "up to 31 letters and digits"
        ),
        ledger_retention_days=read.integer("LEDGER_RETENTION_DAYS", 0, 0, 36_500),
        token_keys=_token_keys(read, development=development),
        hold_ttl_seconds=read.integer("HOLD_TTL_SECONDS", 900, 10, 86_400),
        hold_bucket_seconds=read.integer("HOLD_BUCKET_SECONDS", 30, 1, 3_600),
        default_output_tokens=read.integer("DEFAULT_OUTPUT_TOKENS", 500, 1, 1_000_000),
        max_check_body_bytes=read.integer("MAX_CHECK_BODY_BYTES", 64 * 1024, 1024, 16 * 1024 * 1024),
        max_usage_body_bytes=read.integer("MAX_USAGE_BODY_BYTES", 1024 * 1024, 1024, 64 * 1024 * 1024),
        telemetry_connection=read.text("APPLICATIONINSIGHTS_CONNECTION_STRING"),
        otlp_signals=_otlp_signals(read),
        azure_monitor_calls=read.flag("AZURE_MONITOR_CALLS"),
        telemetry_people=read.flag("TELEMETRY_PEOPLE"),
        gateway_port=read.integer("GATEWAY_PORT", 8080, 1, 65_535),
        gateway_name=read.pattern("GATEWAY_NAME", "local", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a short name"),
        spool_directory=read.text("SPOOL_DIR"),
        spool_max_bytes=read.integer("SPOOL_MAX_BYTES", 256 * 1024 * 1024, 64 * 1024, 999_999_999_999),
        shutdown_grace_seconds=read.integer("SHUTDOWN_GRACE_SECONDS", 10, 0, 3_600),
        shutdown_flush_seconds=read.integer("SHUTDOWN_FLUSH_SECONDS", 20, 0, 600),
        gateway_keys=_gateway_keys(read),
        entra_issuer=read.url("ENTRA_ISSUER", ("https", "http")),
        entra_audience=read.text("ENTRA_AUDIENCE"),
        upstream_url=read.url("AZURE_OPENAI_ENDPOINT", ("https", "http")),
        upstream_key=read.text("AZURE_OPENAI_API_KEY"),
        local_model_url=read.url("MODEL_URL", ("https", "http")),
        pseudonym_key=_pseudonym_key(read),
        helicone_secret=read.text("HELICONE_WEBHOOK_SECRET"),
        alert_targets=read.all_of("ALERT_"),
        model_keys=read.ending_in("_API_KEY"),
        mail_from=read.text("MAIL_FROM"),
        smtp_url=read.url("SMTP_URL", ("smtps", "smtp")),
        communication_endpoint=read.url("COMMUNICATION_ENDPOINT", ("https", "http")),
    )
    _check_together(read, settings, is_gateway=is_gateway)
    if read.problems:
        raise ConfigInvalid("\n".join(read.problems))
    return settings


def _otlp_signals(read: _Reader) -> frozenset[str]:
    """The signals that an endpoint is named for. The exporters read the variables themselves; a wrong value stops
    nothing here, for nobody's bill may wait for telemetry.
    """
    everywhere = read.text("OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoints = {
        "traces": read.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        "metrics": read.text("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        "logs": read.text("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
    }
    off = {
        "traces": read.text("OTEL_TRACES_EXPORTER") == "none",
        "metrics": read.text("OTEL_METRICS_EXPORTER") == "none",
        "logs": read.text("OTEL_LOGS_EXPORTER") == "none",
    }
    return frozenset(signal for signal, endpoint in endpoints.items() if (endpoint or everywhere) and not off[signal])


def _environment(read: _Reader) -> str:
    value = read.text("TOLLKEEPER_ENV") or "production"
    if value not in ("development", "production"):
        read.problems.append(f"TOLLKEEPER_ENV: expected development or production, got {value!r}")
    if value == "development" and (read.text("WEBSITE_INSTANCE_ID") or read.text("CONTAINER_APP_NAME")):  # set by Azure
        read.problems.append("TOLLKEEPER_ENV: is development on Azure, where every caller would be an admin; remove it")
    return value


def _config_location(read: _Reader) -> str:
    directory, address = read.text("CONFIG_DIR"), read.url("CONFIG_URL", ("https", "http"))
    if directory and address:
        read.problems.append(
            "CONFIG_DIR: is set together with CONFIG_URL: set one of them, they name different sources"
        )
    return address or directory or "config"


def _token_keys(read: _Reader, *, development: bool) -> tuple[str, ...]:
    """Reservation signing keys. Values never appear in a problem."""
    keys = tuple(key.strip() for key in (read.text("RESERVATION_KEYS") or "").split(",") if key.strip())
    if not keys and development:
        return (DEVELOPMENT_TOKEN_KEY,)
    if not keys:
        read.problems.append("RESERVATION_KEYS: is required: one or more secrets separated by commas, the first signs")
    elif any(len(key) < MIN_TOKEN_KEY_CHARS for key in keys):
        read.problems.append(f"RESERVATION_KEYS: every key needs at least {MIN_TOKEN_KEY_CHARS} characters")
    elif DEVELOPMENT_TOKEN_KEY in keys and not development:
        read.problems.append("RESERVATION_KEYS: holds the published development key; generate one of your own")
    return keys


def _pseudonym_key(read: _Reader) -> str | None:
    key = read.text("PSEUDONYM_KEY")
    if key is not None and len(key) < MIN_TOKEN_KEY_CHARS:
        read.problems.append(
            f"PSEUDONYM_KEY: needs at least {MIN_TOKEN_KEY_CHARS} characters, or addresses can be guessed"
        )
    return key


def _gateway_keys(read: _Reader) -> dict[str, str]:
    """{sha256 hex of the key: subscription}: the gateway never holds the keys themselves."""
    text = read.text("GATEWAY_KEYS")
    if text is None:
        return {}
    try:
        keys = json.loads(text)
    except ValueError:
        keys = None
    good = isinstance(keys, dict) and all(
        re.fullmatch(r"[0-9a-fA-F]{64}", digest) and isinstance(subscription, str) and subscription
        for digest, subscription in keys.items()
    )
    if not good:
        read.problems.append('GATEWAY_KEYS: expected JSON such as {"<sha256 hex of the key>": "search-prod"}')
        return {}
    return {digest.lower(): subscription for digest, subscription in keys.items()}


def _check_together(read: _Reader, settings: Settings, *, is_gateway: bool) -> None:
    """What no single variable can tell: required combinations."""
    if settings.hold_bucket_seconds > settings.hold_ttl_seconds:
        read.problems.append("HOLD_BUCKET_SECONDS: is longer than HOLD_TTL_SECONDS: holds would outlive their time")
    if settings.llm_logs_hub.lower() == settings.usage_hub.lower() and settings.usage_host == settings.llm_logs_host:
        read.problems.append(
            "LLM_LOGS_HUB: is USAGE_HUB in the same namespace: log records would be taken for usage events"
        )
    if settings.redis_entra_id:
        _check_entra_address(read, settings.redis_url)
    if (settings.entra_issuer is None) != (settings.entra_audience is None):
        read.problems.append("ENTRA_ISSUER: goes with ENTRA_AUDIENCE: set both, or neither to take keys only")
    if (settings.entra_issuer or "").startswith("http://") and settings.environment != "development":
        read.problems.append("ENTRA_ISSUER: must start with https:// outside development: its keys decide who may call")
    if settings.environment == "development":
        return
    if settings.local_model_url is not None:
        read.problems.append(
            "MODEL_URL: is the simulated model's, which is for development: remove it, "
            "and name the models' addresses as endpoints in models.yaml or in AZURE_OPENAI_ENDPOINT"
        )
    if read.text("REDIS_URL") is None:
        read.problems.append("REDIS_URL: is required, such as rediss://name.redis.azure.net:10000")
    read.problems += [
        f"{name}__fullyQualifiedNamespace: is required, such as name.servicebus.windows.net "
        f"(or a connection string in {name})"
        for name in (("EventHubs",) if is_gateway else ("EventHubs", "LlmLogs"))
        if not (read.text(name) or read.text(f"{name}__fullyQualifiedNamespace"))
    ]
    if not settings.storage_connection and not is_gateway:
        read.problems += [
            f"{name}: is required, such as https://name.{service}.core.windows.net (or LEDGER_STORAGE)"
            for name, service in (("LEDGER_TABLES_ENDPOINT", "table"), ("LEDGER_BLOBS_ENDPOINT", "blob"))
            if read.text(name) is None
        ]


def _check_entra_address(read: _Reader, redis_url: str) -> None:
    """A token opens Redis to whoever holds it, so it may go to nobody but the server of this name."""
    url = urlsplit(redis_url)
    if url.scheme != "rediss":
        read.problems.append("REDIS_URL: must start with rediss:// while REDIS_ENTRA_ID is true: tokens need TLS")
    if url.username or url.password:
        read.problems.append(
            "REDIS_URL: holds a user or password while REDIS_ENTRA_ID is true: remove it, or set REDIS_ENTRA_ID=false"
        )
    if any(option.startswith("ssl_") and not option.startswith("ssl_ca_") for option in parse_qs(url.query)):
        read.problems.append("REDIS_URL: changes how TLS is checked while REDIS_ENTRA_ID is true: remove that")
