"""The budget doors over real files: what each reader sees, and what an admin may change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from door_fakes import Doors, Recorder, Reply, principal

from shared.config.edits import ConfigEdits
from shared.config.place import ConfigPlace, DirectoryPlace
from shared.config.source import DirectorySource
from shared.config.store import ConfigStore
from shared.pseudonyms import Pseudonyms

FILES = {
    "tenants.yaml": """
tenants:
  - {id: default}
  - {id: contoso, finance: [finance-group], client_asserted_scopes: [session]}
""",
    "budgets.yaml": """
budgets:
  - {id: every/team, scope: "team:*", period: month, limit: 100.00}
  - {id: persons, tenant: contoso, scope: "user:*", period: day, limit: 20}
  - {id: agents, scope: "session:*", period: day, limit: 2}
  - {id: products, scope: "product:*", period: day, limit: 2}
  - {id: ads-own, tenant: contoso, scope: "team:ads", period: month, limit: 50}
  - {id: elsewhere, tenant: default, scope: "team:*", period: month, limit: 5}
""",
    "teams/search.yaml": "{team: search, tenant: contoso, identities: {users: [ada]}, budgets: [{id: search-own, "
    "period: month, limit: 60, stop: 1.5}]}",
    "teams/ads.yaml": "{team: ads, tenant: contoso, identities: {users: [bob]}}",
}
ADMIN = principal("Chargeback.Admin", oid="root")
ADA = principal("Chargeback.Read", oid="ada")
FINANCE = principal("Chargeback.Read", groups=["finance-group"])
HERE = {"tenant": "contoso"}


@pytest.fixture
async def budgets(services: SimpleNamespace, tmp_path: Path) -> AsyncIterator[SimpleNamespace]:
    """Services whose configuration and edits are real, in a directory."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    @asynccontextmanager
    async def place() -> AsyncIterator[ConfigPlace]:
        yield DirectoryPlace(tmp_path)

    services.config = ConfigStore(DirectorySource(tmp_path))
    await services.config.load()
    services.config_edits = ConfigEdits(place, lambda: services.config.refresh(force=True))
    yield services
    await services.config.close()


async def listed(doors: Doors, as_: str) -> dict[str, dict[str, Any]]:
    """What the caller sees in tenant contoso, by id."""
    reply = await doors.call("budgets", query=HERE, as_=as_)
    assert reply.status == 200
    return {budget["id"]: budget for budget in reply.json["budgets"]}


async def put(doors: Doors, budget_id: str, body: dict[str, Any], as_: str = ADMIN) -> Reply:
    return await doors.call("budget_change", query=HERE, route={"budget_id": budget_id}, body=body, as_=as_)


async def history(doors: Doors, budget_id: str, as_: str) -> Reply:
    return await doors.call("budget_history", query=HERE, route={"budget_id": f"{budget_id}/history"}, as_=as_)


async def test_a_member_sees_the_budgets_that_can_bind_their_calls(doors: Doors, budgets: SimpleNamespace) -> None:
    """Their team's and those on every team, person or session; neither another team's nor another tenant's."""
    assert set(await listed(doors, ADA)) == {"every/team", "persons", "agents", "search-own"}
    everything = {"every/team", "persons", "agents", "products", "ads-own", "search-own"}
    assert set(await listed(doors, FINANCE)) == set(await listed(doors, ADMIN)) == everything


async def test_a_change_is_shown_with_who_and_why_and_undone(doors: Doors, budgets: SimpleNamespace) -> None:
    """The answer and the next reading agree; after the way back git's figures hold again."""
    before = (await listed(doors, ADMIN))["search-own"]
    assert (before["origin"], before["limit"], before["stop"], before["edit"]) == ("git", "60.00", "1.5", None)
    reply = await put(doors, "search-own", {"version": before["version"], "limit": "80.5", "why": " launch\nweek "})
    assert reply.status == 200
    after = (await listed(doors, ADA))["search-own"]
    assert after == reply.json["budget"]
    assert (after["origin"], after["limit"], after["stop"], after["git"]["limit"]) == ("edit", "80.50", "1.5", "60.00")
    assert (after["edit"]["who"], after["edit"]["why"], after["edit"]["warn"]) == ("root", "launch week", None)
    query = {**HERE, "version": after["version"], "why": "over"}
    undone = await doors.call("budget_revert", query=query, route={"budget_id": "search-own"}, as_=ADMIN)
    assert undone.json["budget"] == before
    kinds = [change["kind"] for change in (await history(doors, "search-own", ADA)).json["changes"]]
    assert kinds == ["revert", "edit"]


async def test_why_a_shared_budget_was_changed_is_for_those_who_see_all(doors: Doors, budgets: SimpleNamespace) -> None:
    """The reason may speak of another team or tenant; the figures bind everybody, so everybody sees them."""
    for shared, limit in (("every/team", "70"), ("persons", "7")):
        version = (await listed(doors, ADMIN))[shared]["version"]
        assert (await put(doors, shared, {"version": version, "limit": limit, "why": "ads ran wild"})).status == 200
        seen = (await listed(doors, ADA))[shared]
        assert (seen["limit"], seen["edit"]["why"], seen["edit"]["who"]) == (f"{limit}.00", None, None)
        assert (await history(doors, shared, ADA)).code == "scope_not_allowed"
        assert (await history(doors, shared, ADMIN)).json["changes"][0]["why"] == "ads ran wild"
    seen = await listed(doors, FINANCE)
    assert (seen["persons"]["edit"]["why"], seen["every/team"]["edit"]["why"]) == ("ads ran wild", None)
    assert (await history(doors, "persons", FINANCE)).json["changes"][0]["after"]["limit"] == "7.00"
    assert (await history(doors, "every/team", FINANCE)).code == "scope_not_allowed"


async def test_why_files_were_published_is_for_admins(doors: Doors, budgets: SimpleNamespace) -> None:
    """One publication changes budgets of many teams and tenants, so its reason may speak of any; edits keep theirs."""
    changes = [{"kind": kind, "why": "for fabrikam"} for kind in ("publish", "edit")]
    budgets.config_edits = SimpleNamespace(history=Recorder(changes))
    shown = [(await history(doors, "search-own", as_)).json["changes"] for as_ in (ADMIN, ADA)]
    assert [[each["why"] for each in seen] for seen in shown] == [["for fabrikam"] * 2, [None, "for fabrikam"]]


async def test_a_stale_version_is_a_conflict(doors: Doors, budgets: SimpleNamespace) -> None:
    """409 with its own code, and nothing changes."""
    version = (await listed(doors, ADMIN))["ads-own"]["version"]
    await put(doors, "ads-own", {"version": version, "limit": "51", "why": "a"})
    reply = await put(doors, "ads-own", {"version": version, "limit": "52", "why": "b"})
    assert (reply.status, reply.code, reply.param) == (409, "edit_conflict", "version")
    assert (await listed(doors, ADMIN))["ads-own"]["limit"] == "51.00"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limit": "0", "why": "x"}, "limit"),
        ({"limit": 60, "why": "x"}, "limit"),
        ({"warn": "80", "why": "x"}, "warn"),
        ({"degrade": "0.5", "why": "x"}, "degrade"),
        ({"limit": "5", "why": ""}, "why"),
        ({"limit": "5"}, "why"),
        ({"limt": "5", "why": "x"}, "body"),
    ],
)
async def test_a_wrong_field_is_named(doors: Doors, budgets: SimpleNamespace, body: dict[str, Any], param: str) -> None:
    """400 with the field, before anything is written."""
    version = (await listed(doors, ADMIN))["ads-own"]["version"]
    reply = await put(doors, "ads-own", {"version": version, **body})
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert reply.param == param
    assert (await listed(doors, ADMIN))["ads-own"]["version"] == version


async def test_only_admins_change_and_only_what_the_tenant_has(doors: Doors, budgets: SimpleNamespace) -> None:
    """Finance reads everything and changes nothing; another tenant's budget is not there."""
    version = (await listed(doors, ADMIN))["ads-own"]["version"]
    body = {"version": version, "limit": "51", "why": "a"}
    assert (await put(doors, "ads-own", body, FINANCE)).code == "role_required"
    assert (await put(doors, "elsewhere", body)).code == "budget_unknown"
    assert (await history(doors, "nothing", ADMIN)).code == "budget_unknown"


async def test_a_budget_on_an_address_is_read_and_changed_under_its_hash(
    doors: Doors, services: SimpleNamespace, tmp_path: Path
) -> None:
    """Nobody who reads budgets sees the address that git names; git and its edits go on naming it."""
    hashed = Pseudonyms("k" * 32)
    (tmp_path / "tenants.yaml").write_text("tenants: [{id: default}, {id: contoso}]")
    (tmp_path / "budgets.yaml").write_text("budgets: [{scope: 'user:ada@contoso.com', period: day, limit: 5}]")

    @asynccontextmanager
    async def place() -> AsyncIterator[ConfigPlace]:
        yield DirectoryPlace(tmp_path)

    services.config = ConfigStore(DirectorySource(tmp_path), prepare=hashed.config)
    await services.config.load()
    services.config_edits = ConfigEdits(place, lambda: services.config.refresh(force=True), hashed)
    ((budget_id, seen),) = (await listed(doors, ADMIN)).items()
    changed = await put(doors, budget_id, {"version": seen["version"], "limit": "6", "why": "more"})
    assert (changed.status, changed.json["budget"]["id"], changed.json["budget"]["limit"]) == (200, budget_id, "6.00")
    ((seen_id, seen),) = (await listed(doors, ADMIN)).items()
    assert (seen_id, seen["origin"], "ada" in str(seen)) == (budget_id, "edit", False)
    assert (await history(doors, budget_id, ADMIN)).json["changes"][0]["after"]["limit"] == "6.00"
    query = {**HERE, "version": seen["version"], "why": "over"}
    undone = await doors.call("budget_revert", query=query, route={"budget_id": budget_id}, as_=ADMIN)
    assert (undone.status, undone.json["budget"]["limit"]) == (200, "5.00")
    await services.config.close()
