"""What a caller behind a gateway may try through it, and what a gateway may get wrong: neither gains anything."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import CONFIG, Doors, principal

from shared.budgets.cells import CellFamily, cell_at
from shared.budgets.periods import period_at
from shared.budgets.reservation import Reservation, ReservationSigner
from shared.budgets.service import BudgetService
from shared.budgets.snapshot import Snapshot
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.routing.router import Router
from shared.usage.events import UsageEvent, decode_event

GATEWAY = principal("Budget.Check", "Usage.Write", oid="apim")
ONE = {"content-type": "application/cloudevents+json"}
SEARCH = {"subscription": "search-prod"}
CONTROL = ["a\nb", "a\r\nx-budget-scope-team: ads", "\x00", "a\x7fb", "a\u2028b"]


class Counters:
    """Counters that remember whether anybody touched them."""

    def __init__(self) -> None:
        self.touched: list[str] = []

    async def check(self, *_: Any) -> Any:
        self.touched.append("check")
        raise ConnectionError("away")

    async def release(self, reservation: Reservation) -> None:
        self.touched.append(reservation.tenant)


@pytest.fixture
def counters(services: SimpleNamespace) -> Counters:
    """The real budget service behind the doors, over counters that only watch."""
    pricer = Pricer(PriceBook([]), CONFIG)
    snapshot = Snapshot(CONFIG, pricer, Router(CONFIG, pricer))
    counters = Counters()
    services.budget = BudgetService(
        lambda: snapshot,
        counters,  # type: ignore[arg-type]
        ReservationSigner([b"the-key-of-this-service"]),
        default_output_tokens=100,
        timeout_seconds=1,
        stalled_ingest_ms=10**9,
    )
    return counters


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"identity": {"oid": "x" * 257}}, 400, "invalid_request", "identity.oid"),
        ({"identity": {"subscription": "é" * 129}}, 400, "invalid_request", "identity.subscription"),
        ({"identity": {"groups": ["g"] * 1001}}, 400, "invalid_request", "identity.groups"),
        ({"identity": {"groups": [{}]}}, 400, "invalid_request", "identity.groups"),
        ({"identity": {"app": ["search-app"]}}, 400, "invalid_request", "identity.app"),
        ({"identity": {**SEARCH, "groups": ["x" * 80_000]}}, 413, "payload_too_large", None),
        ({"identity": {}}, 403, "identity_unknown", "identity"),
        ({"identity": {"team": "search", "tenant": "contoso"}}, 403, "identity_unknown", "identity"),
        ({"identity": {"groups": ["search-group", "ads-group"]}}, 403, "identity_ambiguous", "identity"),
        ({"identity": {"oid": "stranger"}, "tenant": "contoso"}, 403, "identity_unknown", "identity"),
        ({"identity": SEARCH, "scopes": {"team": "ads"}}, 403, "scope_not_allowed", "scopes.team"),
        ({"identity": SEARCH, "scopes": {"tenant": "fabrikam"}}, 403, "scope_not_allowed", "scopes.tenant"),
        ({"identity": SEARCH, "scopes": {"model": "gpt-4o-mini"}}, 403, "scope_not_allowed", "scopes.model"),
        ({"identity": SEARCH, "scopes": {"x" * 40: "a"}}, 400, "invalid_request", "scopes"),
        *[({"identity": {"oid": text}}, 400, "invalid_request", "identity.oid") for text in CONTROL],
        *[({"identity": SEARCH, "scopes": {"session": t}}, 400, "invalid_request", "scopes.session") for t in CONTROL],
        *[({"identity": SEARCH, "model": text}, 400, "invalid_request", "model") for text in CONTROL[:4]],
    ],
)
async def test_a_check_that_forges_is_refused_before_anything_is_held(
    doors: Doors, counters: Counters, asked: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    """The answer names the field, repeats no control character and no long value, and no counter was read."""
    reply = await doors.call("budget_check", body={"model": "gpt-4o", **asked}, as_=GATEWAY)
    assert (reply.status, reply.code, reply.param) == (status, code, param)
    assert counters.touched == []
    message = reply.json["error"]["message"]
    assert message.isprintable()
    assert len(message) < 500


async def test_a_stated_tenant_cannot_move_what_an_identity_says(doors: Doors, counters: Counters) -> None:
    """Beside an identity the tenant of a check is not looked at, so a forged one reaches no other tenant's budget."""
    asked = {"model": "gpt-4o", "identity": {"oid": "stranger"}, "tenant": "fabrikam", "scopes": {"user": "ada"}}
    reply = await doors.call("budget_check", body=asked, as_=GATEWAY)
    assert (reply.status, reply.code) == (403, "identity_unknown")


def reservation(key: bytes) -> str:
    """A token of tenant contoso, signed with some key."""
    cell = cell_at(CellFamily("team", "month", "UTC"), "search", period_at("month", "UTC", 1_790_000_000))
    held = Reservation("contoso", "gen-1", 1_790_000_000_000, 1, 1, 5_000, (cell.id,), "gpt-4o", 10, 10)
    return ReservationSigner([key]).sign(held)


def tampered(token: str) -> str:
    """The token with one character of its middle changed."""
    middle = len(token) // 2
    return token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]


@pytest.mark.parametrize(
    "token",
    [
        reservation(b"a key that somebody guessed"),
        tampered(reservation(b"the-key-of-this-service")),
        reservation(b"the-key-of-this-service")[:-3],
        "x" * 60_000,
        "\u0000",
        "..",
    ],
)
async def test_a_forged_reservation_gives_nothing_back(doors: Doors, counters: Counters, token: str) -> None:
    """The answer says that it is not ours; no counter moved."""
    reply = await doors.call("budget_release", body={"reservation": token}, as_=GATEWAY)
    assert (reply.status, reply.json) == (200, {"released": False})
    assert counters.touched == []


async def test_our_own_reservation_is_given_back_in_its_own_tenant(doors: Doors, counters: Counters) -> None:
    """The tenant stands inside the signed token: nobody can name another."""
    token = reservation(b"the-key-of-this-service")
    reply = await doors.call("budget_release", body={"reservation": token, "tenant": "fabrikam"}, as_=GATEWAY)
    assert reply.json == {"released": True}
    assert counters.touched == ["contoso"]


def event(**data: Any) -> dict[str, Any]:
    """The event of a call that no check went before."""
    time = datetime.now(UTC).isoformat()
    envelope = {"specversion": "1.0", "type": "tollkeeper.usage.v1", "source": "apim/weu", "id": "r-1", "time": time}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {**envelope, "data": {"identity": SEARCH, "model": "gpt-4o-weu", "usage": usage, **data}}


def published(services: SimpleNamespace) -> list[UsageEvent]:
    """What reached the hub."""
    bodies = [body for (pairs,), _ in services.publisher.publish.calls for _, body in pairs]
    events = [decode_event(body, datetime.now(UTC)) for body in bodies]
    return [event for event in events if isinstance(event, UsageEvent)]


@pytest.mark.parametrize("identity", [SEARCH, {"oid": "nobody-yet"}])
async def test_an_event_with_identity_is_taken_as_it_is(
    doors: Doors, services: SimpleNamespace, identity: dict[str, str]
) -> None:
    """The call was made: even one of an unknown identity goes to the hub, to be billed once somebody lists it."""
    reply = await doors.call("usage", body=event(identity=identity), headers=ONE, as_=GATEWAY)
    assert (reply.status, reply.json) == (202, {"accepted": 1, "rejected": []})
    (found,) = published(services)
    assert (found.data.identity, found.data.tenant) == (identity, "")
    assert found.source == "http/apim/apim/weu"


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"tenant": "fabrikam"}, "data.tenant"),
        ({"tenant": "contoso", "scopes": {"team": "search"}}, "data.tenant"),
        ({"identity": None}, "data.tenant"),
        ({"identity": "search-prod"}, "data.identity"),
        ({"identity": {"oid": "x" * 257}}, "data.identity.oid"),
        ({"identity": {"groups": ["g"] * 1001}}, "data.identity.groups"),
        *[({"identity": {"subscription": text}}, "data.identity.subscription") for text in CONTROL],
        *[({"scopes": {"session": text}}, "data.scopes.session") for text in CONTROL],
        *[({"model": text}, "data.model") for text in CONTROL[:4]],
    ],
)
async def test_an_event_that_forges_or_contradicts_itself_is_refused(
    doors: Doors, services: SimpleNamespace, data: dict[str, Any], param: str
) -> None:
    """400 naming the field, and nothing on the hub; with both tenant and identity the message names both."""
    reply = await doors.call("usage", body=event(**data), headers=ONE, as_=GATEWAY)
    assert (reply.status, reply.code, reply.param) == (400, "invalid_event", param)
    assert services.publisher.publish.calls == []
    message = reply.json["error"]["message"]
    assert message.isprintable()
    if param == "data.tenant":
        assert "data.identity" in message


async def test_without_usage_write_nobody_is_billed_by_identity(doors: Doors, services: SimpleNamespace) -> None:
    """The role is asked for before the event is read, with identity as with tenant."""
    for as_ in (principal("Budget.Check"), principal("Chargeback.Read"), principal()):
        reply = await doors.call("usage", body=event(), headers=ONE, as_=as_)
        assert (reply.status, reply.code) == (403, "role_required")
    assert services.publisher.publish.calls == []
