"""Every name that code, policies and host.json expect in Azure, read out of them."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from shared import bootstrap
from shared.errors import ConfigInvalid
from shared.ledger.tables import TABLES, connect_tables
from shared.settings import Settings

_NAMED_VALUE = re.compile(r"\{\{([\w-]+)\}\}")
_SETTING = re.compile(r"%(\w+)%")

# What the built-in gateway reads and the function app does not.
GATEWAY_ALONE = (
    "GATEWAY_PORT",
    "GATEWAY_NAME",
    "SHUTDOWN_GRACE_SECONDS",
    "SHUTDOWN_FLUSH_SECONDS",
    "SPOOL_DIR",
    "SPOOL_MAX_BYTES",
    "GATEWAY_KEYS",
    "ENTRA_ISSUER",
    "ENTRA_AUDIENCE",
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_API_KEY",
    "MODEL_URL",
)
# Settings that shared/settings.py reads and a deployment leaves at their defaults, with the reason.
LEFT_ALONE = {
    "TOLLKEEPER_ENV": "production is the default, and development is refused on Azure",
    "WEBSITE_AUTH_ENABLED": "set by the platform where its authentication is on",
    "WEBSITE_INSTANCE_ID": "set by the platform",
    "CONTAINER_APP_NAME": "set by Container Apps",
    "EventHubs": "a connection string; in Azure an identity takes its place",
    "LlmLogs": "a connection string; in Azure an identity takes its place",
    "LEDGER_STORAGE": "a connection string; in Azure an identity takes its place",
    "CONFIG_DIR": "a folder; in Azure CONFIG_URL takes its place",
    "LEDGER_TABLE_PREFIX": "the default is what the templates name the tables by",
    "REDIS_CLUSTER": "the Enterprise clustering policy gives one address",
    "HELICONE_WEBHOOK_SECRET": "for those who use Helicone; `secret_settings` adds it",
    "MAIL_FROM": "for those who send mail; `settings` adds it",
    "COMMUNICATION_ENDPOINT": "for those who send mail through Azure; `settings` adds it",
    "SMTP_URL": "for those who send mail by a server of theirs; `secret_settings` adds it",
    "PSEUDONYM_KEY": "for those whose scopes name people by address; `secret_settings` adds it",
    "AZURE_MONITOR_CALLS": "for those who pay for a span of every call; `settings` adds it",
    **dict.fromkeys(
        (
            *(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "LOGS_", "METRICS_")),
            *(f"OTEL_{signal}_EXPORTER" for signal in ("TRACES", "LOGS", "METRICS")),
            "TELEMETRY_PEOPLE",
        ),
        "for those with an OpenTelemetry receiver; `settings` and `secret_settings` add them",
    ),
    "CONFIG_POLL_SECONDS": "tuning",
    "REDIS_TIMEOUT_SECONDS": "tuning",
    "STREAM_WAIT_MINUTES": "tuning",
    "HOLD_TTL_SECONDS": "tuning",
    "HOLD_BUCKET_SECONDS": "tuning",
    "DEFAULT_OUTPUT_TOKENS": "tuning",
    "MAX_CHECK_BODY_BYTES": "tuning",
    "MAX_USAGE_BODY_BYTES": "tuning",
    **dict.fromkeys(GATEWAY_ALONE, "of the built-in gateway, which has settings of its own"),
}
# What the Functions host reads of a connection that has an identity.
_CONNECTION = ("credential", "clientId")
_HOST_STORAGE = ("AzureWebJobsStorage__accountName", *(f"AzureWebJobsStorage__{part}" for part in _CONNECTION))
_TELEMETRY = (
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
)  # read by the host, and by the exporter of shared/telemetry.py
_SIGN_IN = "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID"  # read by the platform's authentication, instead of a secret


@dataclass
class HubTrigger:
    function: str
    hub: str  # name of the app setting that holds the hub's name
    consumer_group: str  # the same for the consumer group
    connection: str  # prefix of the app settings of the connection


@dataclass
class CodeNames:
    tables: set[str]
    containers: set[str]
    app_settings: set[str]
    functions: set[str]
    triggers: list[HubTrigger]
    fragments: set[str]
    named_values: set[str]
    backend_value: str  # named value that holds the backend's id
    logger_value: str  # named value that holds the logger's id
    route_prefix: str


class _Recorder(dict[str, str]):
    """An environment that remembers what it was asked for."""

    asked: set[str]

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def known_settings() -> set[str]:
    """Every environment variable that shared/settings.py reads, in production or in development."""
    asked: set[str] = set()
    for environment in ("production", "development"):
        recorder = _Recorder(TOLLKEEPER_ENV=environment)
        recorder.asked = asked
        with suppress(ConfigInvalid):  # much is missing; what was asked for is what counts
            Settings.from_env(recorder)
    return asked


def code_names(root: Path, functions: list[Any]) -> CodeNames:
    """The names, with policies and host.json read below `root`, and the functions that the app registers."""
    triggers = [
        HubTrigger(
            function.get_function_name(),
            _setting(trigger["eventHubName"]),
            _setting(trigger["consumerGroup"]),
            trigger["connection"],
        )
        for function in functions
        if (trigger := function.get_trigger().get_dict_repr())["type"] == "eventHubTrigger"
    ]
    settings = known_settings() - set(LEFT_ALONE)
    for trigger in triggers:
        settings |= {trigger.hub, trigger.consumer_group, f"{trigger.connection}__fullyQualifiedNamespace"}
        settings |= {f"{trigger.connection}__{part}" for part in _CONNECTION}
    policies = _policies(root / "apim-policies")
    documents = [ElementTree.fromstring(text) for text in policies.values()]
    named_values = {name for text in policies.values() for name in _NAMED_VALUE.findall(text)}
    included = {e.attrib["fragment-id"] for document in documents for e in document.iter("include-fragment")}
    assert included == {name for name in policies if not name.endswith("-policy")}, "a fragment that nothing includes"
    assert named_values == {v["name"] for v in yaml.safe_load((root / "apim-policies/named-values.yaml").read_text())}
    return CodeNames(
        tables={f"{Settings().table_prefix}{table}" for table in TABLES},
        containers=_containers(),
        app_settings=settings | set(_HOST_STORAGE) | set(_TELEMETRY) | {_SIGN_IN},
        functions={function.get_function_name() for function in functions},
        triggers=triggers,
        fragments=included,
        named_values=named_values,
        backend_value=_attribute(documents, "set-backend-service", "backend-id"),
        logger_value=_attribute(documents, "log-to-eventhub", "logger-id"),
        route_prefix=yaml.safe_load((root / "host.json").read_text())["extensions"]["http"]["routePrefix"],
    )


def _containers() -> set[str]:
    """Those that the code opens; the configuration's stands in CONFIG_URL."""
    development = Settings(storage_connection="AccountName=a;AccountKey=a2V5;EndpointSuffix=core.windows.net")
    dead_letters = connect_tables(development).bodies.container_name
    return {dead_letters, bootstrap._STATEMENTS_CONTAINER, bootstrap._EXPORT_CONTAINER}


def _setting(expression: str) -> str:
    match = _SETTING.fullmatch(expression)
    assert match, f"{expression} is no app setting: a name in code would be the same in every deployment"
    return str(match[1])


def _policies(folder: Path) -> dict[str, str]:
    """XML of every fragment and every section of the API's policy, by name."""
    files = [*folder.glob("*-policy.xml"), *folder.glob("fragments/*.xml")]
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def _attribute(documents: list[ElementTree.Element], element: str, attribute: str) -> str:
    """The one named value that stands in an attribute of an element, wherever the policies use it."""
    found = {e.attrib[attribute] for document in documents for e in document.iter(element)}
    names = {name for text in found for name in _NAMED_VALUE.findall(text)}
    assert len(names) == len(found) == 1, f"{element} {attribute} is {found}"
    name: str = names.pop()
    return name
