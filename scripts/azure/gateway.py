"""API Management as Azure Resource Manager knows it: keys of subscriptions, and named values."""

from __future__ import annotations

from scripts.azure.arm import Arm

API_VERSION = "2024-05-01"


def subscription_key(arm: Arm, gateway: str, subscription: str) -> str:
    """The primary key of a subscription. Raises ArmError."""
    found = arm.post(f"{gateway}/subscriptions/{subscription}/listSecrets", API_VERSION)
    return str(found["primaryKey"])


def named_value(arm: Arm, gateway: str, name: str) -> str:
    """What a named value is now. Raises ArmError."""
    return str(arm.get(f"{gateway}/namedValues/{name}", API_VERSION)["properties"]["value"])


def set_named_value(arm: Arm, gateway: str, name: str, value: str) -> None:
    """Change it, and nothing else of it. Raises ArmError."""
    arm.patch(f"{gateway}/namedValues/{name}", API_VERSION, {"properties": {"value": value}})
