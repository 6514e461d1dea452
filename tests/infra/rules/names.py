"""Names: what code, policies and host.json name is declared, and what is declared is named."""

from __future__ import annotations

import re

from scripts.azure.verify.hubs import CONSUMER_GROUP
from shared.errors import ConfigInvalid
from shared.settings import Settings
from tests.infra.code_names import CodeNames
from tests.infra.rules.common import (
    APIM,
    CONTAINERS,
    DIAGNOSTICS,
    EXPORTS,
    IDENTITIES,
    NAMESPACES,
    SITES,
    STORAGE,
    VAULTS,
    app_settings,
    named_values,
    of_identity,
    same,
)
from tests.support.arm import Deployment
from tests.support.azurerm import read

_BUS = ".servicebus.windows.net"
_REDIS_URL = re.compile(r"rediss://«Microsoft\.Cache/redisEnterprise:[^»]*#properties\.hostName»:10000")
_SECRET = re.compile(r"@Microsoft\.KeyVault\(SecretUri=«([^»]+)#properties\.vaultUri»/secrets/([\w-]+)/\)")
_SECTIONS = ("inbound", "backend", "outbound", "on-error")


def policies(found: Deployment, code: CodeNames) -> list[str]:
    """Fragments, named values, the backend and the logger that the policies name."""
    values = named_values(found)
    problems = same("fragment", found.names(f"{APIM}/policyFragments"), code.fragments)
    problems += same("named value", set(values), code.named_values)
    loggers = [i for i in found.of(f"{APIM}/loggers") if i.properties["properties.loggerType"] == "azureEventHub"]
    problems += same("logger", {item.last_name for item in loggers}, {values.get(code.logger_value, "")})
    policy = found.one(f"{APIM}/apis/policies").properties["policy"]
    problems += [f"the API's policy lacks <{section}>" for section in _SECTIONS if f"<{section}>" not in policy]
    return problems + _backends(found, values.get(code.backend_value, ""))


def _backends(found: Deployment, named: str) -> list[str]:
    """The one that the policies name, and the members of its pool."""
    backends = {item.reference: item for item in found.of(f"{APIM}/backends")}
    pools = [item for item in backends.values() if item.properties.get("properties.type") == "Pool"]
    members = {service["id"] for pool in pools for service in pool.properties["properties.pool.services"]}
    alone = {item.last_name for reference, item in backends.items() if reference not in members}
    problems = same("backend", alone, {named})
    problems += [f"the pool names the backend {member}, which is not declared" for member in members - set(backends)]
    urls = {item.name: str(item.properties["properties.url"]) for item in backends.values() if item not in pools}
    sound = re.compile("https://.+/openai")
    return problems + [
        f"{name}: {url} is no https address up to /openai" for name, url in urls.items() if not sound.fullmatch(url)
    ]


def hubs(found: Deployment, code: CodeNames) -> list[str]:
    """Hubs and consumer groups of the triggers, the logger and the diagnostic setting."""
    settings = app_settings(found)
    wanted: dict[str, set[str]] = {}
    for trigger in code.triggers:
        namespace = settings.get(f"{trigger.connection}__fullyQualifiedNamespace", "").removesuffix(_BUS)
        hub = f"{namespace}/{settings.get(trigger.hub)}"
        wanted[hub] = {f"{hub}/{settings.get(trigger.consumer_group)}", f"{hub}/{CONSUMER_GROUP}"}
    problems = same("hub", {item.name for item in found.of(f"{NAMESPACES}/eventhubs")}, set(wanted))
    groups = {item.name for item in found.of(f"{NAMESPACES}/eventhubs/consumergroups")}
    problems += same("consumer group", groups, set().union(*wanted.values()))
    return problems + [
        f"{who} write to {hub}, which no trigger reads" for who, hub in _writers(found) if hub not in wanted
    ]


def _writers(found: Deployment) -> list[tuple[str, str]]:
    """Who writes to which hub: the policies' logger, and the gateway's diagnostic setting."""
    writers = []
    for logger in found.of(f"{APIM}/loggers"):
        to = logger.properties["properties.credentials"]
        if to["endpointAddress"]:
            writers.append((f"policies, by {logger.name},", f"{to['endpointAddress'].removesuffix(_BUS)}/{to['name']}"))
    rules = {item.reference: item.name.partition("/")[0] for item in found.of(f"{NAMESPACES}/authorizationRules")}
    for setting in found.of(DIAGNOSTICS):
        if hub := setting.properties["properties.eventHubName"]:
            rule = setting.properties["properties.eventHubAuthorizationRuleId"]
            writers.append(("diagnostics", f"{rules.get(rule)}/{hub}"))
    return writers


def stores(found: Deployment, code: CodeNames) -> list[str]:
    """Tables and containers."""
    tables = {item.last_name for item in found.of(f"{STORAGE}/tableServices/tables")}
    capture = "properties.captureDescription.destination.properties.blobContainer"
    package = read(found.one(SITES).body, "properties.functionAppConfig.deployment.storage.value")
    addresses = [
        app_settings(found).get("CONFIG_URL", ""),
        str(package),
        *(str(read(export.body, "properties.deliveryInfo.destination.container")) for export in found.of(EXPORTS)),
        *(str(hub.properties[capture]) for hub in found.of(f"{NAMESPACES}/eventhubs") if hub.properties[capture]),
    ]
    named = code.containers | {address.rpartition("/")[2] for address in addresses}
    return same("table", tables, code.tables) + same("container", found.names(CONTAINERS), named)


def functions(found: Deployment, code: CodeNames) -> list[str]:
    """App settings, and what else the site says about functions."""
    site, settings = found.one(SITES), app_settings(found)
    problems = same("app setting", set(settings), code.app_settings) + _are_sound(settings)
    scale = read(site.body, "properties.functionAppConfig.scaleAndConcurrency")
    ready = {group["name"].removeprefix("function:") for group in scale["alwaysReady"]}
    problems += [f"{name} is always ready, and no function" for name in ready - {"http"} - code.functions]
    problems += [] if "http" in ready else ["no instance is always ready for the budget check"]
    if scale["triggers"]["http"]["perInstanceConcurrency"] < 2:
        problems.append("perInstanceConcurrency: an instance for each call, which is Python's default")
    if read(site.body, "properties.functionAppConfig.runtime") != {"name": "python", "version": "3.12"}:
        problems.append("the runtime is not Python 3.12")
    secret = _SECRET.fullmatch(settings.get("RESERVATION_KEYS", ""))
    vault = found.one(VAULTS).reference.strip("«»")
    if secret is None or secret[1] != vault or secret[2] not in found.names(f"{VAULTS}/secrets"):
        problems.append(f"RESERVATION_KEYS is {settings.get('RESERVATION_KEYS')}, which names no declared secret")
    if read(site.body, "properties.keyVaultReferenceIdentity") != found.one(IDENTITIES, "-functions-").reference:
        problems.append("keyVaultReferenceIdentity is not the identity that may read the secret")
    clients = {name: value for name, value in settings.items() if name.lower().endswith(("__clientid", "client_id"))}
    own = of_identity(found, "functions", "clientId")
    return problems + [
        f"app setting {name} is {value}, another identity" for name, value in clients.items() if value != own
    ]


def _are_sound(settings: dict[str, str]) -> list[str]:
    """What the code itself says to the settings, once Azure has filled in its addresses."""
    filled = {name: re.sub("«[^»]*»", "https://name.example", value) for name, value in settings.items()}
    filled["RESERVATION_KEYS"] = 64 * "k"
    filled["REDIS_URL"] = re.sub("«[^»]*»", "name.redis.azure.net", settings.get("REDIS_URL", ""))
    problems = []
    try:
        Settings.from_env({**filled, "WEBSITE_AUTH_ENABLED": "true"})
    except ConfigInvalid as problem:
        problems += str(problem).splitlines()
    if not _REDIS_URL.fullmatch(settings.get("REDIS_URL", "")):
        problems.append(f"REDIS_URL is {settings.get('REDIS_URL')}, expected rediss://<host>:10000")
    return problems


def sign_in(found: Deployment, code: CodeNames) -> list[str]:
    """Easy Auth: who is turned away, what is open to everybody, and that the gateway asks in its own name."""
    auth = found.one(f"{SITES}/config", "authsettingsV2").body["properties"]
    values, rules = named_values(found), auth["globalValidation"]
    problems = []
    if not (auth["platform"]["enabled"] and rules["requireAuthentication"]):
        problems.append("the platform lets callers in who have no token")
    if rules["unauthenticatedClientAction"] != "Return401":
        problems.append("callers without a token get something else than 401")
    open_paths = {f"/{code.route_prefix}/dashboard", f"/{code.route_prefix}/health"}
    problems += [f"excluded path {path} is too wide" for path in set(rules.get("excludedPaths", [])) - open_paths]
    provider = auth["identityProviders"]["azureActiveDirectory"]
    if app_settings(found).get(provider["registration"].get("clientSecretSettingName")) != of_identity(
        found, "functions", "clientId"
    ):
        problems.append("people are not signed in as the functions' identity")
    audiences = provider["validation"]["allowedAudiences"]
    if values.get("tk-service-audience") not in audiences:
        problems.append(f"tk-service-audience {values.get('tk-service-audience')} is none of the audiences {audiences}")
    if not values.get("tk-service-url", "").endswith(f".azurewebsites.net/{code.route_prefix}"):
        problems.append(f"tk-service-url {values.get('tk-service-url')} does not end in the route prefix of host.json")
    if values.get("tk-identity-client-id") != of_identity(found, "gateway", "clientId"):
        problems.append("tk-identity-client-id is not the gateway's identity")
    return problems
