"""What Azure Resource Manager tells of the policies and of the way of the LLM log."""

from __future__ import annotations

from scripts.azure.arm import Arm, ArmError
from scripts.azure.gateway import API_VERSION
from scripts.azure.verify.seen import Documents, LogSettings

API = "openai"
_DIAGNOSTIC_VERSION = "2024-10-01-preview"  # knows largeLanguageModel
_INSIGHTS_VERSION = "2021-05-01-preview"
NAMESPACE_VERSION = "2024-01-01"


def read_documents(arm: Arm, gateway_id: str) -> Documents:
    """The policies as API Management holds them."""
    found = Documents()
    try:
        policy = arm.get(f"{gateway_id}/apis/{API}/policies/policy", API_VERSION, format="rawxml")
        found.policy = str(policy["properties"]["value"])
        for each in list(arm.get_all(f"{gateway_id}/policyFragments", API_VERSION)):
            name = str(each["name"])
            if name.startswith("tk-"):
                fragment = arm.get(f"{gateway_id}/policyFragments/{name}", API_VERSION, format="rawxml")
                found.fragments[name] = str(fragment["properties"]["value"])
        for each in arm.get_all(f"{gateway_id}/namedValues", API_VERSION):
            found.named_values[str(each["name"])] = str(each["properties"].get("value", ""))
    except ArmError as error:
        found.problem = str(error)
    return found


def read_log_settings(arm: Arm, gateway_id: str, namespace_id: str) -> LogSettings:
    """The diagnostic settings, the API's own diagnostic, and the namespace they write to."""
    found = LogSettings()
    try:
        found.diagnostic_settings = list(
            arm.get_all(f"{gateway_id}/providers/Microsoft.Insights/diagnosticSettings", _INSIGHTS_VERSION)
        )
        namespace = arm.get(namespace_id, NAMESPACE_VERSION)
        found.local_auth_disabled = bool(namespace["properties"].get("disableLocalAuth", False))
        found.api_diagnostic = arm.get(f"{gateway_id}/apis/{API}/diagnostics/azuremonitor", _DIAGNOSTIC_VERSION)
    except ArmError as error:
        found.problem = str(error)
    return found
