"""The client of Azure Resource Manager, over HTTP against a stub: paging, throttling, faults, long operations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from scripts.azure.arm import Arm, ArmError
from tests.support.azure_stub import AzureStub, NotSignedIn, Reply, Sleeps, Tokens, azure_stub

THING = "/subscriptions/s/things/one"


def test_a_list_is_read_over_all_its_pages(azure: AzureStub, arm: Arm, tokens: Tokens) -> None:
    """nextLink carries its own query; one token serves all requests."""
    azure.on(
        "GET",
        "/things",
        Reply({"value": [{"n": 1}], "nextLink": f"{azure.url}/things?api-version=1&page=2"}),
        Reply({"value": [{"n": 2}, {"n": 3}]}),
    )
    assert [thing["n"] for thing in arm.get_all("/things", "1", filter="x")] == [1, 2, 3]
    assert [request.query for request in azure.requests] == [
        {"api-version": "1", "filter": "x"},
        {"api-version": "1", "page": "2"},
    ]
    assert tokens.scopes == [f"{azure.url}/.default"]
    assert azure.requests[0].headers["authorization"] == f"Bearer token for {azure.url}/.default"


def test_a_link_to_somewhere_else_never_sees_the_token(azure: AzureStub, arm: Arm) -> None:
    """A token for ARM may do all that its caller may."""
    with azure_stub() as stranger:
        azure.on("GET", "/things", Reply({"value": [], "nextLink": f"{stranger.url}/things"}))
        with pytest.raises(ArmError, match="must not see"):
            list(arm.get_all("/things", "1"))
        assert stranger.requests == []


def test_throttling_is_waited_out_as_azure_asks(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """Retry-After in seconds and as a date; without one the waits grow."""
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    azure.on(
        "POST",
        "/ask",
        Reply(status=429, headers={"Retry-After": "7"}),
        Reply(status=503, headers={"Retry-After": then}),
        Reply(status=429),
        Reply({"answer": 42}),
    )
    assert arm.post("/ask", "1", {}) == {"answer": 42}
    assert sleeps[0] == 7
    assert 25 < sleeps[1] <= 30
    assert sleeps[2] == 8


def test_a_wait_that_nobody_would_sit_through_is_an_error(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """Azure's quota of the hour is told at once."""
    limit = {"error": {"code": "TooManyRequests", "message": "the limit of the hour is reached"}}
    azure.on("GET", THING, Reply(limit, 429, {"Retry-After": "1800"}))
    with pytest.raises(ArmError, match="limit of the hour") as raised:
        arm.get(THING, "1")
    assert (raised.value.status, raised.value.code, sleeps) == (429, "TooManyRequests", [])


def test_throttling_without_end_is_told(azure: AzureStub, arm: Arm) -> None:
    """After six tries, the refusal itself."""
    azure.on("GET", THING, Reply(status=429))
    with pytest.raises(ArmError) as raised:
        arm.get(THING, "1")
    assert raised.value.status == 429
    assert len(azure.requests) == 6


def test_a_question_is_repeated_after_a_fault_but_an_action_is_not(azure: AzureStub, arm: Arm) -> None:
    """A POST that failed inside may have been done."""
    azure.on("GET", THING, Reply(status=502), Reply({"n": 1}))
    azure.on("POST", THING, Reply(status=502), Reply({"n": 1}))
    assert arm.get(THING, "1") == {"n": 1}
    with pytest.raises(ArmError):
        arm.post(THING, "1")
    assert len(azure.to("POST", THING)) == 1


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"code": "A", "message": "m", "details": [{"message": "why"}, {"message": "m"}]}}, "A", "m why"),
        ({"Code": "B", "Message": "flat"}, "B", "flat"),
        ({"error": None}, "Bad Request", '{"error": null}'),
        ("<html>a page</html>", "Bad Request", "<html>a page</html>"),
    ],
)
def test_refusals_keep_azures_own_words(azure: AzureStub, arm: Arm, body: object, code: str, message: str) -> None:
    """Services spell errors differently; details hold the reason that helps."""
    azure.on("GET", THING, Reply(body, 400))
    with pytest.raises(ArmError) as raised:
        arm.get(THING, "1")
    assert (raised.value.status, raised.value.code, raised.value.message) == (400, code, message)


def test_a_change_returns_when_azure_is_done(azure: AzureStub, arm: Arm, sleeps: Sleeps) -> None:
    """Azure-AsyncOperation is asked until it succeeded, then the resource itself."""
    operation = {"Azure-AsyncOperation": f"{azure.url}/operations/1", "Retry-After": "3"}
    azure.on("PUT", THING, Reply({"state": "Creating"}, 201, operation))
    azure.on("GET", "/operations/1", Reply({"status": "InProgress"}), Reply({"status": "Succeeded"}))
    azure.on("GET", THING, Reply({"state": "there"}))
    assert arm.put(THING, "1", {"n": 1}) == {"state": "there"}
    assert sleeps == [3, 5]
    assert azure.requests[0].json() == {"n": 1}
    assert azure.requests[-1].query == {"api-version": "1"}


def test_a_location_is_asked_until_it_answers(azure: AzureStub, arm: Arm) -> None:
    """The other form of a long-running operation, which API Management uses."""
    azure.on("PATCH", THING, Reply(status=202, headers={"Location": f"{azure.url}/results/1"}))
    azure.on("GET", "/results/1", Reply(status=202), Reply({"value": "observe"}))
    assert arm.patch(THING, "1", {}) == {"value": "observe"}
    assert azure.requests[0].headers["if-match"] == "*"


def test_where_a_new_resource_lives_is_no_operation(azure: AzureStub, arm: Arm) -> None:
    """A 201 with Location alone is done."""
    azure.on("PUT", THING, Reply({"n": 1}, 201, {"Location": f"{azure.url}/elsewhere"}))
    assert arm.put(THING, "1", {}, if_match="*") == {"n": 1}
    assert len(azure.requests) == 1


def test_an_operation_that_failed_says_why(azure: AzureStub, arm: Arm) -> None:
    """The reason stands in the operation, not in the first answer."""
    azure.on("DELETE", THING, Reply(status=202, headers={"Azure-AsyncOperation": f"{azure.url}/operations/1"}))
    failed = {"status": "Failed", "error": {"code": "InUse", "message": "somebody holds it"}}
    azure.on("GET", "/operations/1", Reply(failed))
    with pytest.raises(ArmError, match="somebody holds it"):
        arm.delete(THING, "1")


def test_what_is_not_there_counts_as_deleted(azure: AzureStub, arm: Arm) -> None:
    """So that a second clean-up ends well too."""
    arm.delete(THING, "1")
    assert azure.requests[0].headers["if-match"] == "*"


def test_nobody_signed_in_is_told_as_such(azure: AzureStub) -> None:
    """The credential's own hint, and no request."""
    with Arm(NotSignedIn(), azure.url) as arm, pytest.raises(ArmError, match="az login") as raised:
        arm.get(THING, "1")
    assert (raised.value.status, azure.requests) == (401, [])


def test_azure_out_of_reach_is_told_with_its_address(tokens: Tokens, sleeps: Sleeps) -> None:
    """A refused connection, after some tries."""
    with (
        Arm(tokens, "http://127.0.0.1:9", sleep=sleeps) as arm,
        pytest.raises(ArmError, match=r"127\.0\.0\.1") as raised,
    ):
        arm.get(THING, "1")
    assert raised.value.status == 0
    assert len(sleeps) == 5
