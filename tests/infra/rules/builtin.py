"""The built-in gateway: what it is told, where its secrets come from, how it is probed, stopped and reached."""

from __future__ import annotations

import re

from shared.errors import ConfigInvalid
from shared.settings import Settings
from tests.infra.code_names import CodeNames, known_settings
from tests.infra.rules.common import CONTAINER_APPS, IDENTITIES, NAMESPACES, REGISTRIES, VAULTS, of_identity, same
from tests.support.arm import Deployment, Item
from tests.support.dockerfile import read_dockerfile

# What it is given in Azure, of all that it reads.
_GIVEN = {
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "AZURE_CLIENT_ID",
    "AZURE_OPENAI_ENDPOINT",
    "CONFIG_URL",
    "ENTRA_AUDIENCE",
    "ENTRA_ISSUER",
    "EventHubs__fullyQualifiedNamespace",
    "GATEWAY_KEYS",
    "GATEWAY_NAME",
    "GATEWAY_PORT",
    "REDIS_ENTRA_ID",
    "REDIS_URL",
    "RESERVATION_KEYS",
    "SHUTDOWN_FLUSH_SECONDS",
    "SHUTDOWN_GRACE_SECONDS",
    "SPOOL_DIR",
    "USAGE_HUB",
}
_BY_THE_EXPORTER = {"APPLICATIONINSIGHTS_AUTHENTICATION_STRING"}
_SECRET = re.compile(r"«([^»]+)#properties\.vaultUri»/secrets/([\w-]+)")
_TO_SPARE_SECONDS = 15  # to start stopping, and for the connections to close


def builtin(found: Deployment, code: CodeNames) -> list[str]:
    """All of it."""
    app = found.one(CONTAINER_APPS)
    settings: dict[str, str] = app.properties["settings"]
    problems = same("setting of the built-in gateway", set(settings), _GIVEN | _BY_THE_EXPORTER)
    problems += [f"{name} is no setting that the code reads" for name in sorted(_GIVEN - known_settings())]
    problems += _are_sound(settings) + _secrets(found, app, settings) + _runs(app, settings)
    own = of_identity(found, "builtin", "clientId")
    telemetry = settings.get("APPLICATIONINSIGHTS_AUTHENTICATION_STRING")
    if settings.get("AZURE_CLIENT_ID") != own or telemetry != f"Authorization=AAD;ClientId={own}":
        problems.append("the built-in gateway is told of another identity than its own")
    hub = f"{settings.get('EventHubs__fullyQualifiedNamespace', '').partition('.')[0]}/{settings.get('USAGE_HUB')}"
    hubs = {item.name for item in found.of(f"{NAMESPACES}/eventhubs")}
    return problems + ([] if hub in hubs and "-usage-" in hub else [f"the built-in gateway writes to {hub}"])


def _are_sound(settings: dict[str, str]) -> list[str]:
    """What the code itself says to them, once Azure has filled in its addresses and secrets."""
    filled = {name: re.sub("«[^»]*»", "https://name.example", value) for name, value in settings.items()}
    filled |= {"RESERVATION_KEYS": 64 * "k", "GATEWAY_KEYS": f'{{"{64 * "0"}": "search-prod"}}'}
    filled["REDIS_URL"] = re.sub("«[^»]*»", "name.redis.azure.net", settings.get("REDIS_URL", ""))
    try:
        Settings.for_gateway(filled)
    except ConfigInvalid as problem:
        return str(problem).splitlines()
    return []


def _secrets(found: Deployment, app: Item, settings: dict[str, str]) -> list[str]:
    """Each comes from the vault by the app's own identity, which may read it and no other."""
    identity, vault = found.one(IDENTITIES, "-builtin-").reference, found.one(VAULTS).reference.strip("«»")
    named = {value.removeprefix("secret ") for value in settings.values() if value.startswith("secret ")}
    problems = same("secret of the built-in gateway", set(app.properties["secrets"]), named)
    for name, (address, by) in app.properties["secrets"].items():
        match = _SECRET.fullmatch(address)
        if match is None or (match[1], match[2]) != (vault, name):
            problems.append(f"secret {name} is {address}, expected the vault's of that name")
        problems += [] if by == identity else [f"secret {name} is read by {by}"]
    written = [name for name in settings if name.endswith(("_KEY", "_KEYS")) and "secret " not in settings[name]]
    return problems + [f"{name} stands in the settings themselves" for name in written]


def _runs(app: Item, settings: dict[str, str]) -> list[str]:
    """Image, disk, probes, port and the time to stop in."""
    image, properties = read_dockerfile()[-1], app.properties
    problems = []
    spool = settings.get("SPOOL_DIR")
    if properties["mounts"] != {spool: "EmptyDir"} or spool not in image.command("VOLUME"):
        problems.append(f"the spool is {spool}, mounted are {properties['mounts']}")
    ports = {str(probe[1]) for probe in properties["probes"].values()}
    ports |= {settings.get("GATEWAY_PORT", ""), str(properties["properties.configuration.ingress.targetPort"])}
    if ports != {image.one("EXPOSE")}:
        problems.append(f"the built-in gateway is looked for at ports {sorted(ports)}")
    if {probe[0] for probe in properties["probes"].values()} != {"/health"}:
        problems.append("a probe asks something else than /health")
    if properties["properties.configuration.ingress.allowInsecure"] is not False:
        problems.append("the built-in gateway takes calls without TLS")
    grace = properties["properties.template.terminationGracePeriodSeconds"]
    stops = (settings.get(f"SHUTDOWN_{part}_SECONDS", 0) for part in ("GRACE", "FLUSH"))
    needed = sum(map(int, stops)) + _TO_SPARE_SECONDS
    if not needed <= grace <= 600:
        problems.append(f"the built-in gateway is killed after {grace} s, and needs {needed} s to stop")
    identity = properties["identity.userAssignedIdentities"]
    pulls = properties["registries"]
    server, _, name = str(properties["container"][1]).rpartition("/")
    if not name.startswith("tollkeeper-gateway:") or f"«{REGISTRIES}:" not in server:
        problems.append(f"the image {server}/{name} is not the one that is built here")
    if pulls != {server: identity[0]}:
        problems.append(f"the image is pulled by {pulls}")
    calls, processor = properties["scale rules"]
    if int(calls) < 1 or processor[0] != "cpu":
        problems.append(f"the built-in gateway grows by {[calls, processor]}, expected by calls and by processor")
    if properties["properties.template.scale.minReplicas"] < 2:
        problems.append("a call waits for a start, or a zone takes the only replica with it")
    return problems
