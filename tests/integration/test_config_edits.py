"""Editing and publishing, in a real blob container and in a directory: nobody overwrites what they did not see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from local.azurite import Azurite
from shared.config.edits import ConfigEdits, budget_version
from shared.config.edits_yaml import EDITS
from shared.config.loader import config_version, load_config
from shared.config.place import ConfigPlace, ContainerPlace, DirectoryPlace, open_place
from shared.config.publish import plan_publication, publish
from shared.config.source import open_container, open_source
from shared.config.store import ConfigStore
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.settings import Settings

GIT = {
    "tenants.yaml": b"tenants: [{id: default}, {id: contoso}]",
    "budgets.yaml": b"""
budgets:
  - {id: all, scope: "team:*", period: month, limit: 500}
  - {scope: "user:*", period: day, limit: 20}
  - {id: own, tenant: contoso, scope: "team:search", period: month, limit: 90}
""",
}
NEWER = {**GIT, "budgets.yaml": GIT["budgets.yaml"].replace(b"limit: 90", b"limit: 95")}


@pytest.fixture(params=["container", "directory"])
async def place(request: pytest.FixtureRequest, azurite: Azurite, tmp_path: Path) -> AsyncIterator[ConfigPlace]:
    """An empty place of either kind."""
    if request.param == "directory":
        yield DirectoryPlace(tmp_path)
        return
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    async with open_container(address, Settings(storage_connection=azurite.connection_string)) as container:
        await container.create_container()
        yield ContainerPlace(container, address)


class Dashboard:
    """The service as a door uses it, with what it reads of the budgets."""

    def __init__(self, place: ConfigPlace) -> None:
        self.place = place
        self.refreshed = 0
        self.edits = ConfigEdits(self._open, self._refresh)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[ConfigPlace]:
        yield self.place

    async def _refresh(self) -> None:
        self.refreshed += 1

    async def version(self, budget_id: str) -> str:
        return budget_version(load_config((await self.place.held()).files), budget_id)

    async def limit(self, budget_id: str) -> int:
        config = load_config((await self.place.held()).files)
        return next(budget.limit_nano for budget in config.budgets if budget.id == budget_id)

    async def change(self, budget_id: str, limit: str, *, version: str | None = None, why: str = "quarter end") -> None:
        version = version or await self.version(budget_id)
        await self.edits.change("contoso", budget_id, {"limit": limit}, version=version, who="ada", why=why)


async def test_an_edit_its_history_and_the_way_back(place: ConfigPlace) -> None:
    """Who, when, why, before and after are kept; publishing from git ends the edit, names it, and keeps its history."""
    await publish(GIT, place, who="git", why="first")
    dashboard = Dashboard(place)
    await dashboard.change("own", "120.50")
    assert await dashboard.limit("own") == 120_500_000_000
    assert dashboard.refreshed == 1
    done = await publish(NEWER, place, who="pipeline", why="make deploy")
    assert [(edit.budget, edit.who) for edit in done.difference.discarded] == [("own", "ada")]
    assert await dashboard.limit("own") == 95 * 10**9
    await dashboard.change("own", "130")
    await dashboard.edits.revert("contoso", "own", version=await dashboard.version("own"), who="bob", why="done")
    assert await dashboard.limit("own") == 95 * 10**9
    assert EDITS not in (await place.held()).files
    shown = [
        (step["kind"], step["who"], step["why"], step["before"] and step["before"]["limit"], step["after"]["limit"])
        for step in await dashboard.edits.history("own", 10)
    ]
    assert shown == [
        ("revert", "bob", "done", "130.00", "95.00"),
        ("edit", "ada", "quarter end", "95.00", "130.00"),
        ("publish", "pipeline", "make deploy", "120.50", "95.00"),
        ("edit", "ada", "quarter end", "90.00", "120.50"),
        ("publish", "git", "first", None, "90.00"),
    ]


async def test_a_stale_form_is_refused_and_another_budgets_is_not(place: ConfigPlace) -> None:
    """Two admins with the same page open: the second learns of the first. Another budget is no conflict."""
    await publish(GIT, place, who="git", why="first")
    dashboard = Dashboard(place)
    own, every = await dashboard.version("own"), await dashboard.version("all")
    await dashboard.change("own", "100", version=own)
    with pytest.raises(Conflict) as refused:
        await dashboard.change("own", "200", version=own)
    assert (refused.value.code, refused.value.http_status) == ("edit_conflict", 409)
    await dashboard.change("all", "600", version=every)
    assert (await dashboard.limit("own"), await dashboard.limit("all")) == (100 * 10**9, 600 * 10**9)


async def test_writers_at_once_lose_nothing(place: ConfigPlace) -> None:
    """Three budgets edited in the same moment are all edited: a lost race is seen, and the loser looks again."""
    await publish(GIT, place, who="git", why="first")
    dashboard = Dashboard(place)
    ids = ["all", "own", "*/user:*/day/UTC"]
    versions = {budget_id: await dashboard.version(budget_id) for budget_id in ids}
    await asyncio.gather(*(dashboard.change(each, "77", version=versions[each]) for each in ids))
    assert [await dashboard.limit(each) for each in ids] == [77 * 10**9] * 3
    steps = await place.steps()
    assert [step.sequence for step in steps] == [4, 3, 2, 1]


async def test_of_two_edits_of_one_budget_at_once_one_is_told(place: ConfigPlace) -> None:
    """The second to arrive was based on figures that are gone."""
    await publish(GIT, place, who="git", why="first")
    dashboard = Dashboard(place)
    version = await dashboard.version("own")
    tried = [dashboard.change("own", limit, version=version) for limit in ("100", "200")]
    ends = await asyncio.gather(*tried, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Conflict", "NoneType"]
    assert len(await dashboard.edits.history("own", 10)) == 2


async def test_a_publisher_over_an_unseen_edit_says_so(place: ConfigPlace) -> None:
    """What was planned is what is applied, or nothing: an edit made after the plan stops the publication."""
    await publish(GIT, place, who="git", why="first")
    planned = await place.held()
    await Dashboard(place).change("own", "100")
    with pytest.raises(Conflict, match="look at it again"):
        await publish(NEWER, place, who="git", why="second", seen=planned.version)
    assert await Dashboard(place).limit("own") == 100 * 10**9


async def test_keep_carries_edits_over_a_publication(place: ConfigPlace) -> None:
    """With `dashboard_edits: keep` git's new figure waits behind the edit; an edit of a removed budget ends."""
    keep = {**GIT, "billing.yaml": b"dashboard_edits: keep"}
    await publish(keep, place, who="git", why="first")
    dashboard = Dashboard(place)
    await dashboard.change("own", "100")
    await dashboard.change("all", "600")
    own = b'budgets: [{id: own, tenant: contoso, scope: "team:search", period: month, limit: 95}]'
    difference = (await publish({**keep, "budgets.yaml": own}, place, who="git", why="second")).difference
    assert ([e.budget for e in difference.kept], [e.budget for e in difference.discarded]) == (["own"], ["all"])
    assert await dashboard.limit("own") == 100 * 10**9


async def test_what_is_wrong_with_an_edit_is_named(place: ConfigPlace) -> None:
    """Field by field, before anything is written."""
    await publish(GIT, place, who="git", why="first")
    dashboard = Dashboard(place)
    version = await dashboard.version("own")
    for figures, why, param in [
        ({"limit": "-5"}, "x", "limit"),
        ({"limit": "lots"}, "x", "limit"),
        ({"warn": "0.95"}, "x", "warn"),
        ({"stop": "11"}, "x", "stop"),
        ({"limit": "5"}, " ", "why"),
        ({"limit": "5"}, "a\x07b", "why"),
    ]:
        with pytest.raises(InvalidRequest) as refused:
            await dashboard.edits.change("contoso", "own", figures, version=version, who="ada", why=why)
        assert refused.value.param == param
    with pytest.raises(NotFound) as unknown:
        await dashboard.edits.change("default", "own", {"limit": "5"}, version=version, who="ada", why="x")
    assert unknown.value.code == "budget_unknown"
    assert (await place.held()).version == load_config(GIT).version


async def test_figures_equal_to_gits_are_no_edit(place: ConfigPlace) -> None:
    """Saving the form unchanged must not freeze git's figures."""
    await publish(GIT, place, who="git", why="first")
    await Dashboard(place).change("own", "90.00")
    assert EDITS not in (await place.held()).files


async def test_a_laptops_own_edits_are_not_published(place: ConfigPlace) -> None:
    """edits.yaml beside the files of git is this machine's; where it is published other edits are in force."""
    await publish(GIT, place, who="git", why="first")
    await Dashboard(place).change("own", "100")
    mine = (await place.held()).files
    planned = plan_publication(await place.held(), mine)
    assert [edit.budget for edit in planned.difference.discarded] == ["own"]
    assert EDITS not in planned.files


@pytest.mark.parametrize("kind", ["container", "directory"])
async def test_an_edit_reaches_a_worker_that_polls(kind: str, azurite: Azurite, tmp_path: Path) -> None:
    """The worker that did not make the edit follows at its next look, 15 seconds apart unless set otherwise."""
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    location = address if kind == "container" else str(tmp_path)
    settings = Settings(config_location=location, storage_connection=azurite.connection_string)
    if kind == "container":
        async with open_container(address, settings) as container:
            await container.create_container()
    async with open_place(settings) as place:
        await publish(GIT, place, who="git", why="first")
        worker = ConfigStore(open_source(settings), poll_seconds=0.02)
        await worker.load()
        worker.refresh_if_due()
        await Dashboard(place).change("own", "100")
        async with asyncio.timeout(10):
            while not worker.current.edits:  # noqa: ASYNC110 - what is waited for is a poll
                await asyncio.sleep(0.02)
        assert next(b.limit_nano for b in worker.current.budgets if b.id == "own") == 100 * 10**9
        await worker.close()


async def test_where_the_app_may_only_read_an_edit_says_so(tmp_path: Path) -> None:
    """A package that is mounted read-only, or a role that is missing: an answer with a code, not a failure."""
    place = DirectoryPlace(tmp_path)
    await publish(GIT, place, who="git", why="first")
    (tmp_path / ".edits-lock").unlink()
    (tmp_path / ".edits-lock").mkdir()  # nobody can open it for writing, root neither
    with pytest.raises(Conflict) as refused:
        await Dashboard(place).change("own", "100")
    assert refused.value.code == "config_read_only"


async def test_an_edit_writes_one_file_and_is_read_whole(azurite: Azurite) -> None:
    """Of a thousand team files an edit would otherwise upload all, and every worker's next look download them."""
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    settings = Settings(config_location=address, storage_connection=azurite.connection_string)
    async with open_container(address, settings) as container:
        await container.create_container()
        place = ContainerPlace(container, address)
        first = (await publish(GIT, place, who="git", why="first")).version
        dashboard = Dashboard(place)
        for limit in ("100", "101"):
            await dashboard.change("own", limit)
            version = (await place.held()).version
            names = [name async for name in container.list_blob_names(name_starts_with=f"versions/{version}/")]
            assert names == [f"versions/{version}/{EDITS}"]
            worker = open_source(settings)
            assert config_version(await worker.fetch()) == version
            await worker.close()
        await dashboard.edits.revert("contoso", "own", version=await dashboard.version("own"), who="ada", why="done")
        assert (await place.held()).version == first


async def test_a_damaged_version_is_repaired_by_publishing_it_again(azurite: Azurite) -> None:
    """A file that somebody deleted comes back; the pointer alone would not help."""
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    async with open_container(address, Settings(storage_connection=azurite.connection_string)) as container:
        await container.create_container()
        place = ContainerPlace(container, address)
        version = (await publish(GIT, place, who="git", why="first")).version
        await container.delete_blob(f"versions/{version}/tenants.yaml")
        assert (await place.held()).version == ""
        await publish(GIT, place, who="git", why="again")
        assert (await place.held()).files == GIT
