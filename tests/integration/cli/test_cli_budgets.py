"""Budgets from git to where they are in force, by the command: a directory, and a blob container."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from local.azurite import Azurite
from shared.config.edits import ConfigEdits, budget_version
from shared.config.place import open_place
from shared.config.publish import checked
from shared.config.source import open_container
from shared.settings import Settings
from tests.support.command import FILES, Command, write_files


@pytest.fixture(params=["container", "directory"])
def target(
    request: pytest.FixtureRequest, azurite: Azurite, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> tuple[Command, Settings]:
    """The command over an empty place of either kind, and the place's settings."""
    if request.param == "directory":
        (tmp_path / "in-force").mkdir()
        env = {"CONFIG_DIR": str(tmp_path / "in-force")}
    else:
        address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
        env = {"CONFIG_URL": address, "LEDGER_STORAGE": azurite.connection_string}
        asyncio.run(_create(address, Settings.for_operator(env)))
    file = tmp_path / "cli.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    return Command(capfd, file), Settings.for_operator(env)


async def _create(address: str, settings: Settings) -> None:
    async with open_container(address, settings) as container:
        await container.create_container()


async def _edit(settings: Settings, budget_id: str, limit: str, version: str) -> None:
    async def refresh() -> None: ...

    edits = ConfigEdits(lambda: open_place(settings), refresh)
    await edits.change("acme", budget_id, {"limit": limit}, version=version, who="ada", why="quarter end")


def test_plan_apply_and_plan_again(target: tuple[Command, Settings], tmp_path: Path) -> None:
    """The plan names budgets, fields and edits; applying does just that; then there is nothing left to do."""
    tollkeeper, settings = target
    git = write_files(tmp_path / "git", FILES)
    first = tollkeeper("budgets", "plan", str(git), "--detailed-exitcode", "--json")
    assert first.code == 2
    actions = [(each["id"], each["action"]) for each in first.json["budgets"]]
    assert actions == [("every/team", "add"), ("persons", "add")]
    applied = tollkeeper("budgets", "apply", str(git), "--yes", "--json").json
    assert (applied["applied"], applied["version"]) == (True, checked(str(git)).version)
    assert tollkeeper("budgets", "plan", str(git), "--detailed-exitcode").code == 0

    asyncio.run(_edit(settings, "every/team", "120", budget_version(checked(str(git)), "every/team")))
    newer = FILES["budgets.yaml"].replace("limit: 20,", "limit: 25, warn: 0.5,").replace("every/team", "all-teams")
    write_files(git, {"budgets.yaml": newer})
    planned = tollkeeper("budgets", "plan", str(git), "--json").json
    assert [(each["id"], each["action"], each["fields"]) for each in planned["budgets"]] == [
        ("all-teams", "add", []),
        ("every/team", "remove", []),
        ("persons", "change", ["limit", "warn"]),
    ]
    assert planned["budgets"][1]["before"]["limit"] == "120.00"
    assert [(edit["budget"], edit["limit"], edit["who"]) for edit in planned["discarded_edits"]] == [
        ("every/team", "120.00", "ada")
    ]
    table = tollkeeper("budgets", "plan", str(git)).out
    assert "1 to add, 1 to change, 1 to remove; 1 edits to discard" in table
    assert "discarded, because git wins: budget every/team to 120.00, by ada" in table

    done = tollkeeper("budgets", "apply", str(git), "--yes", "--why", "as agreed")
    assert (done.code, "discarded, because git wins: budget every/team" in done.out) == (0, True)
    assert "nothing to do" in tollkeeper("budgets", "apply", str(git)).out


def test_nobody_to_ask_is_a_no(
    target: tuple[Command, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that forgot --yes publishes nothing."""
    tollkeeper, _ = target
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115 - closed with the test
    ended = tollkeeper("budgets", "apply", str(write_files(tmp_path / "git", FILES)))
    assert (ended.code, "give --yes" in ended.err) == (1, True)
    assert tollkeeper("budgets", "plan", str(tmp_path / "git"), "--detailed-exitcode").code == 2


def test_every_problem_of_the_files_is_a_line(target: tuple[Command, Settings], tmp_path: Path) -> None:
    """validate, plan and apply refuse the same files with file, line and field, and as JSON under the code."""
    tollkeeper, _ = target
    git = write_files(tmp_path / "git", {**FILES, "budgets.yaml": "budgets:\n  - {scope: 'team:*', limt: 5}\n"})
    for command in (("validate",), ("plan",), ("apply", "--yes")):
        ended = tollkeeper("budgets", command[0], str(git), *command[1:])
        assert ended.code == 1
        assert f"tollkeeper: {git}/budgets.yaml:2: budgets[0].limit: is required\n" in ended.err
        assert all(line.startswith(f"tollkeeper: {git}/budgets.yaml:2: ") for line in ended.err.splitlines())
    error = msgspec.json.decode(tollkeeper("budgets", "validate", str(git), "--json").err)["error"]
    assert error["code"] == "config_invalid"
