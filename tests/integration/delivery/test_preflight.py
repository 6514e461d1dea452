"""Preflight tells each fault of a subscription before anything is created, over HTTP against a stub of Azure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from scripts.azure.arm import Arm
from scripts.azure.preflight import Preflight, Wanted
from tests.support.azure_stub import AzureStub, NotSignedIn, Reply

S = "/subscriptions/5b0c2d1e-0000-4000-8000-000000000001"
P = f"{S}/providers"
GROUP = "rg-tollkeeper-dev"
POLICY = f"{S}/providers/Microsoft.Authorization/policyAssignments/no-public-storage"
NAMES = {
    "host_storage": "sttollkeeperhost6ee59a",
    "ledger_storage": "sttollkeeperledger6ee59a",
    "usage_namespace": "evhns-tollkeeper-usage-dev-6ee59a",
    "llm_logs_namespace": "evhns-tollkeeper-llmlogs-dev-6ee59a",
    "key_vault": "kv-tollkeeper-6ee59a",
    "redis": "amr-tollkeeper-dev-6ee59a",
    "functions": "func-tollkeeper-dev-6ee59a",
    "gateway": "apim-tollkeeper-dev-6ee59a",
    "models": "aif-tollkeeper-dev-6ee59a",
}
WANTED = msgspec.convert(
    {
        "subscription": S.rsplit("/", 1)[-1],
        "location": "swedencentral",
        "group": GROUP,
        "names": NAMES,
        "tags": {"application": "tollkeeper"},
        "regions": {
            "swc": {
                "location": "swedencentral",
                "deployments": {
                    "gpt-4o": {
                        "model": "gpt-4o",
                        "version": "2024-11-20",
                        "format": "OpenAI",
                        "sku": "GlobalStandard",
                        "capacity": 50,
                    }
                },
            }
        },
        "zones": True,
        "private": True,
        "gateway_sku": "StandardV2",
    },
    Wanted,
)
SERVICES = {
    "Microsoft.Storage": ["storageAccounts"],
    "Microsoft.EventHub": ["namespaces"],
    "Microsoft.KeyVault": ["vaults"],
    "Microsoft.Cache": ["redisEnterprise"],
    "Microsoft.Web": ["sites"],
    "Microsoft.ManagedIdentity": ["userAssignedIdentities"],
    "Microsoft.OperationalInsights": ["workspaces"],
    "Microsoft.Insights": ["components"],
    "Microsoft.Network": ["virtualNetworks", "privateEndpoints"],
    "Microsoft.ApiManagement": ["service"],
    "Microsoft.CognitiveServices": ["accounts"],
    "Microsoft.App": [],
    "Microsoft.ContainerRegistry": [],
    "Microsoft.CostManagement": [],
    "Microsoft.CostManagementExports": [],
    "Microsoft.AlertsManagement": [],
}
AVAILABILITY = (
    "Microsoft.Storage/checkNameAvailability",
    "Microsoft.EventHub/checkNameAvailability",
    "Microsoft.KeyVault/checkNameAvailability",
    "Microsoft.Web/checknameavailability",
    "Microsoft.ApiManagement/checkNameAvailability",
)
DELETED = ("Microsoft.KeyVault/deletedVaults", "Microsoft.ApiManagement/deletedservices")
DELETED_ACCOUNTS = "Microsoft.CognitiveServices/deletedAccounts"
MODELS = "Microsoft.CognitiveServices/locations/swedencentral"


def listed(*elements: Any) -> Reply:
    """A page of a list, the only one."""
    return Reply({"value": list(elements)})


def provider(namespace: str, state: str = "Registered", place: str = "Sweden Central") -> dict[str, Any]:
    """A resource provider with its types."""
    types = [{"resourceType": kind, "locations": ["West Europe", place]} for kind in SERVICES[namespace]]
    return {"namespace": namespace, "registrationState": state, "resourceTypes": types}


def model(
    version: str = "2024-11-20", sku: str = "GlobalStandard", stage: str = "GenerallyAvailable"
) -> dict[str, Any]:
    """A model as a location lists it."""
    skus = [{"name": sku, "usageName": f"OpenAI.{sku}.gpt-4o", "capacity": {"maximum": 1000}}]
    described = {"format": "OpenAI", "name": "gpt-4o", "version": version, "skus": skus, "lifecycleStatus": stage}
    return {"kind": "AIServices", "model": described}


def usage(used: float, limit: float = 450) -> dict[str, Any]:
    """Quota of a model."""
    return {"name": {"value": "OpenAI.GlobalStandard.gpt-4o"}, "currentValue": used, "limit": limit, "unit": "Count"}


def flex(domains: str = "PUBLIC;FLEXCONSUMPTION;FCZONEREDUNDANCY", name: str = "Sweden Central") -> dict[str, Any]:
    """A region of Flex Consumption."""
    return {"name": name, "properties": {"name": name, "orgDomain": domains}}


def tier(places: list[str], restricted: list[str] | None = None) -> dict[str, Any]:
    """A tier of API Management."""
    restrictions = [{"type": "Location", "restrictionInfo": {"locations": restricted}}] if restricted else []
    return {"resourceType": "service", "name": "StandardV2", "locations": places, "restrictions": restrictions}


@pytest.fixture
def ready(azure: AzureStub) -> AzureStub:
    """A subscription in which everything can be deployed."""
    azure.on("GET", S, Reply({"displayName": "Platform", "state": "Enabled"}))
    owner = {"actions": ["*"], "notActions": []}
    azure.on("GET", f"{P}/Microsoft.Authorization/permissions", listed(owner))
    azure.on("GET", P, listed(*map(provider, SERVICES)))
    azure.on("GET", f"{P}/Microsoft.Web/geoRegions", listed(flex()))
    azure.on("GET", f"{P}/Microsoft.ApiManagement/skus", listed(tier(["Sweden Central"])))
    azure.on("GET", f"{P}/{MODELS}/models", listed(model(), model("2024-08-06")))
    azure.on("GET", f"{P}/{MODELS}/usages", listed(usage(400)))
    for action in AVAILABILITY:
        azure.on("POST", f"{P}/{action}", Reply({"nameAvailable": True}))
    azure.on("POST", f"{P}/Microsoft.CognitiveServices/checkDomainAvailability", Reply({"isSubdomainAvailable": True}))
    for kind in (*DELETED, DELETED_ACCOUNTS):
        azure.on("GET", f"{P}/{kind}", listed())
    azure.on("POST", f"{P}/Microsoft.PolicyInsights/checkPolicyRestrictions", Reply({"fieldRestrictions": []}))
    return azure


def bad(arm: Arm, wanted: Wanted = WANTED) -> list[str]:
    """Every line that is not ok."""
    return [str(finding) for finding in Preflight(arm, wanted).run() if finding.state != "ok"]


def test_a_subscription_that_is_ready_has_nothing_against_it(ready: AzureStub, arm: Arm) -> None:
    """Every question is asked and answered well, and nothing is changed by asking."""
    findings = list(Preflight(arm, WANTED).run())
    assert [finding for finding in findings if finding.state != "ok"] == []
    assert len(findings) >= 10
    changing = {request.path.rsplit("/", 1)[1] for request in ready.requests if request.method != "GET"}
    assert changing == {
        "checkNameAvailability",
        "checknameavailability",
        "checkDomainAvailability",
        "checkPolicyRestrictions",
    }


def _away(namespace: str) -> Callable[[AzureStub], None]:
    others = [provider(name) for name in SERVICES if name != namespace]
    return lambda azure: azure.on("GET", P, listed(*others, provider(namespace, "NotRegistered")))


def _elsewhere(namespace: str) -> Callable[[AzureStub], None]:
    others = [provider(name) for name in SERVICES if name != namespace]
    return lambda azure: azure.on("GET", P, listed(*others, provider(namespace, place="Norway East")))


def _answer(method: str, path: str, *elements: Any) -> Callable[[AzureStub], None]:
    return lambda azure: azure.on(method, f"{P}/{path}", listed(*elements))


def _taken(action: str, why: dict[str, Any]) -> Callable[[AzureStub], None]:
    return lambda azure: azure.on("POST", f"{P}/{action}", Reply(why))


CONTRIBUTOR = {"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write", "Microsoft.Authorization/*/Delete"]}
DELETED_ACCOUNT = {
    "name": "aif-tollkeeper-dev-6ee59a-swc",
    "location": "swedencentral",
    "id": f"{P}/Microsoft.CognitiveServices/locations/swedencentral/resourceGroups/old/deletedAccounts/x",
}
DENIED = {
    "contentEvaluationResult": {
        "policyEvaluations": [
            {
                "policyInfo": {"policyAssignmentId": POLICY},
                "evaluationResult": "NonCompliant",
                "effectDetails": {"policyEffect": "Deny"},
            }
        ]
    }
}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_answer("GET", "Microsoft.Authorization/permissions", CONTRIBUTOR), "FAIL.*roleAssignments/write.*Owner"),
        (_away("Microsoft.App"), "warn.*az provider register --namespace Microsoft.App"),
        (_elsewhere("Microsoft.Cache"), "FAIL.*not offered: Microsoft.Cache/redisEnterprise in swedencentral"),
        (_elsewhere("Microsoft.CognitiveServices"), "FAIL.*CognitiveServices/accounts in swedencentral"),
        (_answer("GET", "Microsoft.Web/geoRegions", flex(name="Norway East")), "FAIL.*choose one of norwayeast"),
        (
            _answer("GET", "Microsoft.Web/geoRegions", flex("PUBLIC;FLEXCONSUMPTION"), flex(name="Norway East")),
            "FAIL.*zone_redundant = false, or choose one of norwayeast",
        ),
        (_answer("GET", "Microsoft.ApiManagement/skus", tier(["Norway East"])), "FAIL.*StandardV2 is not offered"),
        (
            _answer("GET", "Microsoft.ApiManagement/skus", tier(["Sweden Central"], ["Sweden Central"])),
            "FAIL.*closed to this subscription",
        ),
        (
            _answer("GET", f"{MODELS}/models", model("2025-01-01"), model("2024-11-20", "Standard")),
            "FAIL.*there are 2024-11-20 as Standard, 2025-01-01 as GlobalStandard",
        ),
        (_answer("GET", f"{MODELS}/models"), "FAIL.*no version of it"),
        (
            _answer("GET", f"{MODELS}/models", model(stage="Deprecating"), model("2025-01-01")),
            "FAIL.*gpt-4o 2024-11-20.*no new deployment.*model list -l swedencentral",
        ),
        (_answer("GET", f"{MODELS}/usages", usage(410)), "FAIL.*50 thousand.*40 left"),
        (_answer("GET", f"{MODELS}/usages"), "warn.*Azure does not tell it"),
        (
            _taken("Microsoft.Web/checknameavailability", {"nameAvailable": False, "message": "in use"}),
            "FAIL.*func-tollkeeper-dev-6ee59a is taken .in use.",
        ),
        (
            _taken(
                "Microsoft.CognitiveServices/checkDomainAvailability", {"isSubdomainAvailable": False, "reason": "used"}
            ),
            "FAIL.*aif-tollkeeper-dev-6ee59a-swc is taken .used.",
        ),
        (
            _answer("GET", DELETED[0], {"name": NAMES["key_vault"], "properties": {"location": "swedencentral"}}),
            "warn.*recovers it with its secrets",
        ),
        (
            _answer("GET", DELETED[0], {"name": NAMES["key_vault"], "properties": {"location": "norwayeast"}}),
            "FAIL.*deleted in norwayeast",
        ),
        (_answer("GET", DELETED[1], {"name": NAMES["gateway"]}), "warn.*API Management .* was deleted"),
        (
            _answer("GET", DELETED_ACCOUNTS, DELETED_ACCOUNT),
            "FAIL.*purge --name aif-tollkeeper-dev-6ee59a-swc --location swedencentral --resource-group old",
        ),
        (_taken("Microsoft.PolicyInsights/checkPolicyRestrictions", DENIED), f"FAIL.*{POLICY} denies.*storageAccounts"),
    ],
)
def test_each_fault_is_one_line_that_says_what_to_do(
    ready: AzureStub, arm: Arm, fault: Callable[[AzureStub], None], words: str
) -> None:
    """One thing is wrong, one line says so."""
    fault(ready)
    (line,) = bad(arm)
    assert re.match(words, line), line


def test_a_policy_that_only_audits_is_no_fault(ready: AzureStub, arm: Arm) -> None:
    """It would let the deployment pass."""
    audited = msgspec.json.decode(msgspec.json.encode(DENIED).replace(b'"Deny"', b'"Audit"'))
    ready.on("POST", f"{P}/Microsoft.PolicyInsights/checkPolicyRestrictions", Reply(audited))
    assert bad(arm) == []


def test_what_an_earlier_apply_created_is_no_obstacle(ready: AzureStub, arm: Arm) -> None:
    """Our own names are taken and our own models use the quota: by us. A model that we have runs on to its end."""
    group = f"{S}/resourceGroups/{GROUP}"
    ready.on("GET", group, Reply({"name": GROUP}))
    ours = [{"name": name} for name in (*NAMES.values(), "aif-tollkeeper-dev-6ee59a-swc")]
    ready.on("GET", f"{group}/resources", listed(*ours))
    ready.on("GET", f"{group}/providers/Microsoft.Authorization/permissions", listed({"actions": ["*"]}))
    ready.on("POST", f"{group}/providers/Microsoft.PolicyInsights/checkPolicyRestrictions", Reply({}))
    ready.on("GET", f"{P}/{MODELS}/usages", listed(usage(450)))
    for action in AVAILABILITY:
        ready.on("POST", f"{P}/{action}", Reply({"nameAvailable": False, "message": "in use"}))
    assert bad(arm) == []
    ready.on("GET", f"{P}/{MODELS}/models", listed(model(stage="Deprecating")))
    (line,) = bad(arm)
    assert re.match("warn.*being retired", line), line


def test_an_existing_gateway_and_a_public_network_ask_for_less(ready: AzureStub, arm: Arm) -> None:
    """No tier and no network are looked for."""
    ready.on("GET", f"{P}/Microsoft.ApiManagement/skus", listed())
    others = [provider(name) for name in SERVICES if name != "Microsoft.Network"]
    ready.on("GET", P, listed(*others))
    assert bad(arm, msgspec.structs.replace(WANTED, gateway_sku=None, private=False)) == []
    contents = [r.json()["resourceDetails"]["resourceContent"] for r in ready.to("POST", "checkPolicyRestrictions")]
    assert {content["properties"]["publicNetworkAccess"] for content in contents} == {"Enabled"}


def test_without_api_management_nothing_of_it_is_asked(ready: AzureStub, arm: Arm) -> None:
    """No provider, no right, no name, and nothing that was deleted; without any gateway it is said."""
    others = [provider(name) for name in SERVICES if name != "Microsoft.ApiManagement"]
    ready.on("GET", P, listed(*others))
    no_right = {"actions": ["*"], "notActions": ["Microsoft.ApiManagement/*"]}
    ready.on("GET", f"{P}/Microsoft.Authorization/permissions", listed(no_right))
    wanted = msgspec.structs.replace(WANTED, api_management=False, gateway_sku=None, builtin=True)
    assert bad(arm, wanted) == []
    assert [request.path for request in ready.requests if "Microsoft.ApiManagement" in request.path] == []
    (line,) = bad(arm, msgspec.structs.replace(wanted, builtin=False))
    assert line.startswith("warn  no gateway is asked for")


def test_without_the_subscription_nothing_else_is_asked(azure: AzureStub, arm: Arm) -> None:
    """Signed out, in another tenant, or switched off: one line."""
    with Arm(NotSignedIn(), azure.url) as nobody:
        (line,) = bad(nobody)
    assert "az login" in line
    (line,) = bad(arm)
    assert "az account list" in line
    azure.on("GET", S, Reply({"displayName": "Platform", "state": "Disabled"}))
    assert "FAIL  subscription Platform" in bad(arm)[0]


def test_a_question_that_may_not_be_asked_is_a_warning(ready: AzureStub, arm: Arm) -> None:
    """Listing what was deleted takes rights of its own; the other questions are still asked."""
    ready.on("GET", f"{P}/Microsoft.KeyVault/deletedVaults", Reply({"error": {"code": "AuthorizationFailed"}}, 403))
    (line,) = bad(arm)
    assert line.startswith("warn  names: cannot be asked: AuthorizationFailed")
