"""The doors that correct the record: re-rating, and display names."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import NOW, Doors, Recorder, principal

from shared.errors import NotFound
from shared.ledger.names import DisplayName

ADMIN = principal("Chargeback.Admin", oid="boss")
BODY = {"tenant": "contoso", "why": "the list was wrong"}


async def test_re_rating_names_who_and_why(doors: Doors, services: SimpleNamespace) -> None:
    """A month becomes its two instants; who asked comes from the token, never from the body."""
    body = {**BODY, "period": "2026-10", "model": "gpt-4o", "who": "somebody else"}
    reply = await doors.call("re_rate", as_=ADMIN, body=body, headers={"Idempotency-Key": "k1"})
    assert (reply.status, reply.json["calls"], reply.json["cost_difference"]) == (202, 3, "0.00")
    (args, options) = services.re_rate.re_rate.calls[0]
    span = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    assert args == ("contoso", *span, "boss", "the list was wrong")
    assert options == {"key": "k1", "model": "gpt-4o", "dry_run": False}


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({}, "period"),
        ({"from": "2026-10-01"}, "period"),
        ({"period": "2026-13"}, "period"),
        ({"period": "2026-10", "from": "2026-10-01"}, "period"),
        ({"from": "yesterday", "to": "2026-10-02"}, "from"),
        ({"period": "2026-10", "why": ""}, "why"),
    ],
)
async def test_re_rating_needs_one_span(
    doors: Doors, services: SimpleNamespace, extra: dict[str, Any], param: str
) -> None:
    """A month, or both ends; everything else is refused by the name of its field before anything is read."""
    reply = await doors.call("re_rate", as_=ADMIN, body={**BODY, **extra})
    assert (reply.status, reply.param) == (400, param)
    assert services.re_rate.re_rate.calls == []


async def test_a_dry_run_is_no_request(doors: Doors, services: SimpleNamespace) -> None:
    """200 rather than 202: nothing was accepted."""
    reply = await doors.call(
        "re_rate", as_=ADMIN, body={**BODY, "from": "2026-10-01", "to": "2026-10-02", "dry_run": True}
    )
    assert reply.status == 200


async def test_names_are_put_and_erased_by_admins(doors: Doors, services: SimpleNamespace) -> None:
    """The user's key is the rest of the path, slashes included; who said it is the token's."""
    route = {"user": "u/1"}
    query = {"tenant": "contoso"}
    put = await doors.call("names_put", as_=ADMIN, body={"name": "Ada"}, route=route, query=query)
    assert (put.status, put.json["name"]) == (200, "Ada")
    assert services.names.put.calls[0][0] == ("contoso", "u/1", "Ada", "boss")
    assert (await doors.call("names_delete", as_=ADMIN, route=route, query=query)).status == 204
    services.names.erase = Recorder(NotFound("user: this user has no name here", param="user"))
    assert (await doors.call("names_delete", as_=ADMIN, route=route, query=query)).status == 404


async def test_a_member_sees_their_own_name_alone(doors: Doors, services: SimpleNamespace) -> None:
    """A list of names is a list of people: whoever sees only their team's sums is told nobody else's."""
    services.names.all = Recorder({user: DisplayName(user.title(), "boss", NOW) for user in ("ada", "bob")})
    query = {"tenant": "contoso"}
    member = await doors.call("names", as_=principal("Chargeback.Read", oid="ada"), query=query)
    assert member.json["users"] == [{"user": "ada", "name": "Ada"}]
    finance = await doors.call("names", as_=principal("Chargeback.Read", groups=["finance-group"]), query=query)
    assert [each["user"] for each in finance.json["users"]] == ["ada", "bob"]
