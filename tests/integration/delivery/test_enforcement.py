"""Enforcement is switched to observe while the app restarts, and back however that ends."""

from __future__ import annotations

import pytest

from scripts.azure.arm import Arm, ArmError
from scripts.azure.enforcement import observing
from tests.support.azure_stub import AzureStub, Reply, Sleeps

GATEWAY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ApiManagement/service/apim"
VALUE = f"{GATEWAY}/namedValues/tk-enforcement"


@pytest.fixture(autouse=True)
def _gateway(azure: AzureStub) -> None:
    """A gateway whose last deployment died half-way."""
    azure.on("GET", VALUE, Reply({"properties": {"value": "observe"}}))
    azure.on("PATCH", VALUE, Reply({}))


def values(azure: AzureStub) -> list[str]:
    """What the named value was set to, in order."""
    return [request.json()["properties"]["value"] for request in azure.to("PATCH", VALUE)]


def test_calls_pass_inside_and_are_refused_again_afterwards(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """The gateways get time to take the value before anything restarts."""
    said: list[str] = []
    with observing(arm, GATEWAY, "on", say=said.append, sleep=sleeps):
        assert values(azure) == ["observe"]
        assert sleeps == [30]
    assert values(azure) == ["observe", "on"]
    assert said[-1] == "enforcement is on again"


@pytest.mark.parametrize("fault", [RuntimeError("half-way"), KeyboardInterrupt()])
def test_a_deployment_that_dies_inside_restores_enforcement(
    azure: AzureStub, arm: Arm, sleeps: Sleeps, fault: BaseException
) -> None:
    """By an error or by Ctrl-C: the reason goes on, enforcement is on."""
    with pytest.raises(type(fault)), observing(arm, GATEWAY, "on", say=print, sleep=sleeps):
        raise fault
    assert values(azure) == ["observe", "on"]


def test_a_switch_that_may_have_happened_is_switched_back(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """Azure's answer to the first switch was lost: the value may be either."""
    azure.on("PATCH", VALUE, Reply({"error": {"code": "Conflict", "message": "busy"}}, 409), Reply({}))
    with pytest.raises(ArmError, match="busy"), observing(arm, GATEWAY, "on", say=print, sleep=sleeps):
        pytest.fail("nothing restarts while calls would be refused")
    assert values(azure) == ["observe", "on"]


def test_a_switch_back_that_fails_says_how_to_do_it_by_hand(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """The one thing that must not be overlooked."""
    azure.on("PATCH", VALUE, Reply({}), Reply({"error": {"code": "Gone", "message": "away"}}, 410))
    said: list[str] = []
    with pytest.raises(ArmError, match="away"), observing(arm, GATEWAY, "on", say=said.append, sleep=sleeps):
        pass
    assert "az rest --method patch" in said[-1]
    assert VALUE in said[-1]
    assert '"value": "on"' in said[-1]


def test_a_gateway_that_does_not_enforce_is_left_alone(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """Somebody chose off or observe: a deployment does not choose otherwise."""
    with observing(arm, GATEWAY, "off", say=print, sleep=sleeps):
        pass
    assert azure.requests == []


def test_a_gateway_that_was_never_finished_is_no_obstacle(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """The first apply died before its named values: the next one must be able to go on. Other refusals are told."""
    azure.on("GET", VALUE, Reply({"error": {"code": "ResourceNotFound", "message": "no"}}, 404))
    with observing(arm, GATEWAY, "on", say=print, sleep=sleeps):
        pass
    assert values(azure) == []
    azure.on("GET", VALUE, Reply({"error": {"code": "AuthorizationFailed", "message": "no"}}, 403))
    with pytest.raises(ArmError, match="AuthorizationFailed"), observing(arm, GATEWAY, "on", say=print, sleep=sleeps):
        pytest.fail("nothing restarts while calls would be refused")
