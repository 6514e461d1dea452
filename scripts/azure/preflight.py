"""Ask Azure, before anything is created, whether an environment can be deployed there by this caller.

    make preflight ENV=dev

One line per question: ok, warn, or FAIL with what to do. Nothing is changed. An apply finds the same faults, one at a
time and up to an hour later.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import msgspec

from scripts.azure.arm import Arm, ArmError
from scripts.azure.credential import open_credential
from scripts.azure.finding import Finding, report
from scripts.azure.terraform import Terraform, TerraformError

Json = dict[str, Any]


class Deployment(msgspec.Struct, frozen=True):
    """A model's deployment, as model_regions has it."""

    model: str
    version: str
    format: str
    sku: str
    capacity: float  # thousands of tokens per minute


class Region(msgspec.Struct, frozen=True):
    """A region with models."""

    location: str
    deployments: dict[str, Deployment]


class Wanted(msgspec.Struct, frozen=True):
    """What would be deployed, as far as Azure can be asked beforehand."""

    subscription: str
    location: str
    group: str
    names: dict[str, str]
    tags: dict[str, str]
    regions: dict[str, Region]
    zones: bool
    private: bool
    api_management: bool = True
    gateway_sku: str | None = None  # None: no API Management is created
    builtin: bool = False


EXPRESSIONS = {
    "subscription": "var.subscription_id",
    "location": "var.location",
    "group": "coalesce(var.existing_resource_group_name, local.names.resource_group)",
    "names": "local.names",
    "tags": "local.tags",
    "regions": "var.model_regions",
    "zones": "var.zone_redundant",
    "private": "var.private_network",
    "api_management": "var.api_management",
    "gateway_sku": (
        'var.api_management && var.existing_api_management == null ? split("_", var.api_management_sku)[0] : null'
    ),
    "builtin": "var.builtin_gateway != null",
}

_TYPES = (  # what is created at `location`
    ("Microsoft.Storage", "storageAccounts"),
    ("Microsoft.EventHub", "namespaces"),
    ("Microsoft.KeyVault", "vaults"),
    ("Microsoft.Cache", "redisEnterprise"),
    ("Microsoft.Web", "sites"),
    ("Microsoft.ManagedIdentity", "userAssignedIdentities"),
    ("Microsoft.OperationalInsights", "workspaces"),
    ("Microsoft.Insights", "components"),
)
_PRIVATE_TYPES = (("Microsoft.Network", "virtualNetworks"), ("Microsoft.Network", "privateEndpoints"))
_NO_LOCATION = (
    "Microsoft.AlertsManagement",
    "Microsoft.App",  # the network side of Flex Consumption, and the built-in gateway: offered wherever Flex is
    "Microsoft.ContainerRegistry",  # in every region
    "Microsoft.CostManagement",
    "Microsoft.CostManagementExports",
)
_GATEWAY_ACTION = "Microsoft.ApiManagement/service/write"
_ACTIONS = (
    "Microsoft.Resources/subscriptions/resourceGroups/write",
    "Microsoft.Web/sites/write",
    "Microsoft.Authorization/roleAssignments/write",
)


class Preflight:
    """The questions. Each yields findings, and raises ArmError where Azure does not answer it."""

    def __init__(self, arm: Arm, wanted: Wanted) -> None:
        self._arm = arm
        self._wanted = wanted
        self._subscription = f"/subscriptions/{wanted.subscription}"
        self._ours: set[str] = set()  # names of what an earlier apply created

    def run(self) -> Iterator[Finding]:
        """All of them. Without the subscription nothing else can be asked."""
        try:
            yield from self.subscription()
        except ArmError as error:
            hint = "run az login" if error.status == 401 else "check subscription_id, and az account list"
            yield Finding("FAIL", f"subscription {self._wanted.subscription}: {error}: {hint}")
            return
        questions: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
            ("permissions", self.permissions),
            ("what exists already", self.existing),
            ("resource providers", self.providers),
            ("Flex Consumption", self.flex),
            ("the gateways", self.gateway),
            ("models and quota", self.models),
            ("names", self.names),
            ("policies", self.policies),
        )
        for what, question in questions:
            try:
                yield from question()
            except ArmError as error:
                yield Finding("warn", f"{what}: cannot be asked: {error}")

    def subscription(self) -> Iterator[Finding]:
        """It is there, visible and in use."""
        found = self._arm.get(self._subscription, "2022-12-01")
        name = f"subscription {found.get('displayName')} ({self._wanted.subscription})"
        if found.get("state") == "Enabled":
            yield Finding("ok", name)
        else:
            yield Finding("FAIL", f"{name} is {found.get('state')}: enable it, or choose another")

    def permissions(self) -> Iterator[Finding]:
        """The caller may create, and may hand out roles: half of the deployment are role assignments."""
        scope = self._group or self._subscription
        path = f"{scope}/providers/Microsoft.Authorization/permissions"
        granted = list(self._arm.get_all(path, "2022-04-01"))
        needed = (*_ACTIONS, _GATEWAY_ACTION) if self._wanted.api_management else _ACTIONS
        missing = [action for action in needed if not any(_allows(role, action) for role in granted)]
        if not missing:
            yield Finding("ok", "the caller may create resources and assign roles")
        else:
            yield Finding(
                "FAIL",
                f"the caller may not {', '.join(missing)}: it needs Owner, or Contributor with Role Based Access "
                f"Control Administrator, on {scope}",
            )

    def existing(self) -> Iterator[Finding]:
        """What an earlier apply created is neither a name that is taken nor quota that is missing."""
        if self._group is None:
            yield Finding("ok", f"resource group {self._wanted.group} will be created")
            return
        resources = self._arm.get_all(f"{self._group}/resources", "2021-04-01")
        self._ours = {str(resource["name"]).lower() for resource in resources}
        yield Finding("ok", f"resource group {self._wanted.group} exists with {len(self._ours)} resources")

    def providers(self) -> Iterator[Finding]:
        """Registered, and offered in the regions."""
        wanted = self._wanted
        types = [*_TYPES, *(_PRIVATE_TYPES if wanted.private else ())]
        places = [(*kind, wanted.location) for kind in types]
        if wanted.gateway_sku:
            places.append(("Microsoft.ApiManagement", "service", wanted.location))
        places += [("Microsoft.CognitiveServices", "accounts", region.location) for region in wanted.regions.values()]
        found = {
            provider["namespace"].lower(): provider
            for provider in self._arm.get_all(f"{self._subscription}/providers", "2021-04-01")
        }
        namespaces = sorted({*(namespace for namespace, _, _ in places), *_NO_LOCATION})
        away = [n for n in namespaces if found.get(n.lower(), {}).get("registrationState") != "Registered"]
        if away:
            commands = "; ".join(f"az provider register --namespace {namespace}" for namespace in away)
            yield Finding("warn", f"not registered yet, the apply does it if the caller may: {commands}")
        else:
            yield Finding("ok", f"{len(namespaces)} resource providers are registered")
        missing = [
            f"{namespace}/{kind} in {location}"
            for namespace, kind, location in dict.fromkeys(places)
            if not _offers(found.get(namespace.lower(), {}), kind, location)
        ]
        if missing:
            yield Finding("FAIL", f"not offered: {', '.join(missing)}: choose another region")
        else:
            yield Finding("ok", f"every service is offered in {', '.join(sorted({place[2] for place in places}))}")

    def flex(self) -> Iterator[Finding]:
        """The plan of the function app is not in every region, and over zones in fewer."""
        path = f"{self._subscription}/providers/Microsoft.Web/geoRegions"
        regions = {
            _plain(region["name"]): str((region.get("properties") or {}).get("orgDomain", ""))
            for region in self._arm.get_all(path, "2024-11-01", sku="FlexConsumption")
        }
        location = self._wanted.location
        if location not in regions:
            yield Finding("FAIL", f"Flex Consumption is not offered in {location}: choose one of {_some(regions)}")
        elif self._wanted.zones and "FCZONEREDUNDANCY" not in regions[location]:
            zoned = [name for name, domains in regions.items() if "FCZONEREDUNDANCY" in domains]
            yield Finding(
                "FAIL",
                f"Flex Consumption in {location} does not spread over zones: set zone_redundant = false, or choose "
                f"one of {_some(zoned)}",
            )
        else:
            yield Finding("ok", f"Flex Consumption is offered in {location}")

    def gateway(self) -> Iterator[Finding]:
        """There is one, and the tier of API Management is offered there and to this subscription."""
        wanted = self._wanted
        if not wanted.api_management and not wanted.builtin:
            yield Finding("warn", "no gateway is asked for (api_management, builtin_gateway): calls need one elsewhere")
            return
        if not wanted.api_management:
            yield Finding("ok", "no API Management is asked for: calls come through the built-in gateway")
            return
        if wanted.gateway_sku is None:
            yield Finding("ok", "API Management exists already")
            return
        path = f"{self._subscription}/providers/Microsoft.ApiManagement/skus"
        skus = [
            sku
            for sku in self._arm.get_all(path, "2024-05-01")
            if sku.get("resourceType") == "service" and sku.get("name") == wanted.gateway_sku
        ]
        places = {_plain(place) for sku in skus for place in sku.get("locations") or []}
        refused = {
            _plain(place)
            for sku in skus
            for restriction in sku.get("restrictions") or []
            for place in (restriction.get("restrictionInfo") or {}).get("locations") or restriction.get("values") or []
        }
        tier = f"API Management {wanted.gateway_sku}"
        if wanted.location not in places:
            yield Finding("FAIL", f"{tier} is not offered in {wanted.location}: choose one of {_some(places)}")
        elif wanted.location in refused:
            yield Finding("FAIL", f"{tier} is closed to this subscription in {wanted.location}: ask Azure support")
        else:
            yield Finding("ok", f"{tier} is offered in {wanted.location}")

    def models(self) -> Iterator[Finding]:
        """Each model in the version and kind of deployment asked for, with quota left."""
        for key, region in self._wanted.regions.items():
            base = f"{self._subscription}/providers/Microsoft.CognitiveServices/locations/{region.location}"
            offered = [entry["model"] for entry in self._arm.get_all(f"{base}/models", "2025-06-01")]
            usages = {usage["name"]["value"]: usage for usage in self._arm.get_all(f"{base}/usages", "2025-06-01")}
            is_deployed = f"{self._wanted.names['models']}-{key}" in self._ours
            needs: dict[str, float] = {}
            for name, deployment in region.deployments.items():
                sku = _sku(offered, deployment)
                what = f"{deployment.model} {deployment.version} as {deployment.sku} in {region.location}"
                if sku is None:
                    yield Finding(
                        "FAIL", f"{what} is not offered (deployment {name}): {_alternatives(offered, deployment)}"
                    )
                    continue
                if _is_retiring(offered, deployment):
                    yield Finding(
                        "warn" if is_deployed else "FAIL",
                        f"{what} is being retired, so Azure makes no new deployment of it (deployment {name}): choose "
                        f"one that `az cognitiveservices model list -l {region.location}` calls GenerallyAvailable",
                    )
                else:
                    yield Finding("ok", f"{what} is offered")
                needs[sku] = needs.get(sku, 0) + deployment.capacity
            if is_deployed:
                yield Finding("ok", f"the models in {region.location} are deployed already: quota is not compared")
                continue
            yield from self._quota(region.location, needs, usages)

    def _quota(self, location: str, needs: dict[str, float], usages: dict[str, Json]) -> Iterator[Finding]:
        for name, needed in needs.items():
            usage = usages.get(name)
            if usage is None:
                yield Finding("warn", f"quota {name} in {location}: Azure does not tell it")
                continue
            left = usage["limit"] - usage["currentValue"]
            told = f"quota {name} in {location}: {needed:g} thousand tokens per minute wanted, {left:g} left"
            if needed <= left:
                yield Finding("ok", told)
            else:
                yield Finding(
                    "FAIL", f"{told}: lower the capacity, or ask for more at https://aka.ms/oai/stuquotarequest"
                )

    def names(self) -> Iterator[Finding]:
        """Names that are unique in all of Azure are free, or ours; what was deleted lately still holds its name."""
        wanted = self._wanted
        deleted = self._deleted()
        accounts = [f"{wanted.names['models']}-{key}" for key in wanted.regions]
        asked = [
            (wanted.names["host_storage"], "Microsoft.Storage", "checkNameAvailability", "2025-01-01"),
            (wanted.names["ledger_storage"], "Microsoft.Storage", "checkNameAvailability", "2025-01-01"),
            (wanted.names["usage_namespace"], "Microsoft.EventHub", "checkNameAvailability", "2024-01-01"),
            (wanted.names["llm_logs_namespace"], "Microsoft.EventHub", "checkNameAvailability", "2024-01-01"),
            (wanted.names["key_vault"], "Microsoft.KeyVault", "checkNameAvailability", "2024-11-01"),
            (wanted.names["functions"], "Microsoft.Web", "checknameavailability", "2024-11-01"),
            *((name, "Microsoft.CognitiveServices", "checkDomainAvailability", "2025-06-01") for name in accounts),
        ]
        if wanted.gateway_sku:
            asked.append((wanted.names["gateway"], "Microsoft.ApiManagement", "checkNameAvailability", "2024-05-01"))
        free = 0
        for name, namespace, action, version in asked:
            if name.lower() in self._ours:
                continue
            if name.lower() in deleted:
                yield deleted[name.lower()]
                continue
            answer = self._arm.post(
                f"{self._subscription}/providers/{namespace}/{action}", version, _name_question(namespace, name)
            )
            if answer.get("nameAvailable", answer.get("isSubdomainAvailable")):
                free += 1
            else:
                why = answer.get("message") or answer.get("reason")
                yield Finding("FAIL", f"the name {name} is taken ({why}): change `name` or `environment`")
        yield Finding("ok", f"{free} names are free, {len(asked) - free} are ours or listed here")

    def _deleted(self) -> dict[str, Finding]:
        """Soft-deleted resources by name, with what becomes of them."""
        found = {}
        for vault in self._arm.get_all(
            f"{self._subscription}/providers/Microsoft.KeyVault/deletedVaults", "2024-11-01"
        ):
            place = _plain((vault.get("properties") or {}).get("location", ""))
            if place == self._wanted.location:
                state = Finding(
                    "warn", f"key vault {vault['name']} was deleted: the apply recovers it with its secrets"
                )
            else:
                state = Finding(
                    "FAIL", f"key vault {vault['name']} was deleted in {place}: deploy there, or change `name`"
                )
            found[vault["name"].lower()] = state
        path = f"{self._subscription}/providers/Microsoft.ApiManagement/deletedservices"
        for service in self._arm.get_all(path, "2024-05-01") if self._wanted.gateway_sku else ():
            found[service["name"].lower()] = Finding(
                "warn", f"API Management {service['name']} was deleted: the apply recovers it as it was"
            )
        path = f"{self._subscription}/providers/Microsoft.CognitiveServices/deletedAccounts"
        for account in self._arm.get_all(path, "2025-06-01"):
            group = re.search(r"/resourceGroups/([^/]+)/", account["id"])
            found[account["name"].lower()] = Finding(
                "FAIL",
                f"AI account {account['name']} was deleted and holds its name and quota: az cognitiveservices account "
                f"purge --name {account['name']} --location {account.get('location')} "
                f"--resource-group {group.group(1) if group else '<group>'}",
            )
        return found

    def policies(self) -> Iterator[Finding]:
        """Azure Policy judges what is known beforehand: type, region, tags and whether it is public."""
        wanted = self._wanted
        scope = self._group or self._subscription
        denied: dict[str, list[str]] = {}
        for content, version in _contents(wanted):
            answer = self._arm.post(
                f"{scope}/providers/Microsoft.PolicyInsights/checkPolicyRestrictions",
                "2024-10-01",
                {"resourceDetails": {"resourceContent": content, "apiVersion": version}},
            )
            for judged in (answer.get("contentEvaluationResult") or {}).get("policyEvaluations") or []:
                effect = (judged.get("effectDetails") or {}).get("policyEffect") or "Deny"
                if judged.get("evaluationResult") == "NonCompliant" and effect.lower() == "deny":
                    policy = judged["policyInfo"]["policyAssignmentId"]
                    denied.setdefault(policy, []).append(content["type"])
        for policy, types in denied.items():
            yield Finding(
                "FAIL",
                f"policy {policy} denies {', '.join(dict.fromkeys(types))}: adapt region, tags or private_network, or "
                "ask its owner for an exemption",
            )
        if not denied:
            yield Finding("ok", "no policy denies the types, regions, tags and public access asked for")

    @cached_property
    def _group(self) -> str | None:
        """The resource group; None when the apply will create it."""
        group = f"{self._subscription}/resourceGroups/{self._wanted.group}"
        return None if self._arm.find(group, "2021-04-01") is None else group


def _contents(wanted: Wanted) -> Iterator[tuple[Json, str]]:
    """The resources that policies have opinions on, as far as they are known, and the version they are written in."""
    access = "Disabled" if wanted.private else "Enabled"

    def content(kind: str, name: str, properties: Json, location: str = wanted.location) -> Json:
        return {"type": kind, "name": name, "location": location, "tags": wanted.tags, "properties": properties}

    keyless = {"publicNetworkAccess": access, "disableLocalAuth": True}
    names = wanted.names
    storage = {
        "publicNetworkAccess": access,
        "allowSharedKeyAccess": False,
        "allowBlobPublicAccess": False,
        "supportsHttpsTrafficOnly": True,
        "minimumTlsVersion": "TLS1_2",
    }
    yield content("Microsoft.Storage/storageAccounts", names["ledger_storage"], storage), "2025-01-01"
    yield content("Microsoft.EventHub/namespaces", names["usage_namespace"], keyless), "2024-01-01"
    llm_logs = {**keyless, "disableLocalAuth": False}
    yield content("Microsoft.EventHub/namespaces", names["llm_logs_namespace"], llm_logs), "2024-01-01"
    vault = {"publicNetworkAccess": access, "enableRbacAuthorization": True, "enablePurgeProtection": True}
    yield content("Microsoft.KeyVault/vaults", names["key_vault"], vault), "2024-11-01"
    redis = {"publicNetworkAccess": access, "minimumTlsVersion": "1.2"}
    yield content("Microsoft.Cache/redisEnterprise", names["redis"], redis), "2025-07-01"
    site = {"publicNetworkAccess": access, "httpsOnly": True}
    yield content("Microsoft.Web/sites", names["functions"], site), "2024-11-01"
    for key, region in wanted.regions.items():
        account = content("Microsoft.CognitiveServices/accounts", f"{names['models']}-{key}", keyless, region.location)
        yield {**account, "kind": "AIServices", "sku": {"name": "S0"}}, "2025-06-01"
    if wanted.gateway_sku:
        gateway = content("Microsoft.ApiManagement/service", names["gateway"], {"publicNetworkAccess": "Enabled"})
        yield {**gateway, "sku": {"name": wanted.gateway_sku, "capacity": 1}}, "2024-05-01"


def _name_question(namespace: str, name: str) -> Json:
    return {
        "Microsoft.Storage": {"name": name, "type": "Microsoft.Storage/storageAccounts"},
        "Microsoft.KeyVault": {"name": name, "type": "Microsoft.KeyVault/vaults"},
        "Microsoft.Web": {"name": name, "type": "Site"},
        "Microsoft.CognitiveServices": {"subdomainName": name, "type": "Microsoft.CognitiveServices/accounts"},
    }.get(namespace, {"name": name})


def _allows(role: Json, action: str) -> bool:
    """Whether one role's actions, less its notActions, cover the action. Both take `*` for any characters."""

    def covered(patterns: list[str]) -> bool:
        return any(re.fullmatch(re.escape(one).replace(r"\*", ".*"), action, re.IGNORECASE) for one in patterns)

    return covered(role.get("actions") or []) and not covered(role.get("notActions") or [])


def _offers(provider: Json, kind: str, location: str) -> bool:
    places = [
        place
        for resource in provider.get("resourceTypes") or []
        if resource["resourceType"].lower() == kind.lower()
        for place in resource.get("locations") or []
    ]
    return location in map(_plain, places)


def _sku(offered: list[Json], wanted: Deployment) -> str | None:
    """The quota that the deployment counts against; None when it is not offered so."""
    for model in offered:
        if (model.get("format"), model.get("name"), model.get("version")) == (
            wanted.format,
            wanted.model,
            wanted.version,
        ):
            for sku in model.get("skus") or []:
                if sku.get("name") == wanted.sku:
                    return str(sku.get("usageName") or f"{wanted.format}.{wanted.sku}.{wanted.model}")
    return None


def _is_retiring(offered: list[Json], wanted: Deployment) -> bool:
    """Whether the version is deprecated: it serves those who have it, until its end."""
    asked = (wanted.format, wanted.model, wanted.version)
    stages = {m.get("lifecycleStatus") for m in offered if (m.get("format"), m.get("name"), m.get("version")) == asked}
    return not stages.isdisjoint({"Deprecating", "Deprecated"})


def _alternatives(offered: list[Json], wanted: Deployment) -> str:
    """What of the same model there is."""
    there = sorted(
        {
            f"{model['version']} as {sku['name']}"
            for model in offered
            if model.get("name") == wanted.model
            for sku in model.get("skus") or []
        }
    )
    return f"there are {', '.join(there)}" if there else "the region has no version of it, choose another region"


def _plain(location: str) -> str:
    """`Sweden Central` as `swedencentral`."""
    return location.replace(" ", "").lower()


def _some(places: Any) -> str:
    return ", ".join(sorted(places)) or "no region"


def preflight(arm: Arm, terraform: Terraform) -> bool:
    """Print the findings for an environment; whether none failed."""
    wanted = msgspec.convert(terraform.evaluate(EXPRESSIONS), Wanted)
    return report(Preflight(arm, wanted).run())


def main(arguments: list[str]) -> int:
    """0 when nothing failed."""
    if len(arguments) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        with Terraform(arguments[0]) as terraform, Arm(open_credential()) as arm:
            return 0 if preflight(arm, terraform) else 1
    except TerraformError as error:
        sys.stderr.write(f"preflight: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
