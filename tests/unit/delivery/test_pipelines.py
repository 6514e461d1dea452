"""The pipelines run the commands that a person runs, with nothing in them that could be replaced behind our back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
AZURE = ROOT / "azure-pipelines.yml"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_MAKE = re.compile(r"\bmake ([a-z-]+)((?: [A-Z]+=\S+)*)")


def strings(node: Any) -> Iterator[tuple[str, str]]:
    """Every text of a document with the key that it stands under."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                yield str(key), value
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


def commands(path: Path) -> list[tuple[str, frozenset[str]]]:
    """Target and variables of each `make` of a pipeline."""
    scripts = [
        text for key, text in strings(yaml.safe_load(path.read_text())) if key in ("run", "script", "inlineScript")
    ]
    return [
        (target, frozenset(re.findall(r"([A-Z]+)=", given)))
        for text in scripts
        for target, given in _MAKE.findall(text)
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """A tag can be moved to other code; the release stands beside the commit, for people and for Dependabot."""
    for line in path.read_text().splitlines():
        if used := re.search(r"uses: (\S+)(.*)", line):
            is_ours = used.group(1).startswith("./.github/workflows/")
            assert is_ours or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", "".join(used.groups())), (
                line
            )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_may_do_what_they_say_and_nothing_else(path: Path) -> None:
    """No right by default; a job reads the code and, to deploy, is an identity. None writes anything to GitHub."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        rights = job["permissions"]
        assert rights.pop("contents") == "read", name
        assert set(rights.items()) <= {("id-token", "write"), ("actions", "read")}, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_take_no_text_from_outside(path: Path) -> None:
    """An expression inside of a script would let a branch's name be a command."""
    for key, text in strings(yaml.safe_load(path.read_text())):
        assert key != "run" or "${{" not in text, text


@pytest.mark.parametrize("path", [*WORKFLOWS, AZURE], ids=lambda path: path.name)
def test_no_secret_is_named(path: Path) -> None:
    """Identities are federated: a stored secret would outlive whoever may use it."""
    text = path.read_text()
    assert "secrets." not in text
    assert not re.search(r"client.?secret", text, re.IGNORECASE)


def test_both_pipelines_run_the_same_commands() -> None:
    """Those of the Makefile, with the same variables: what fails there can be tried here."""
    on_github = [command for path in WORKFLOWS for command in commands(path)]
    on_azure = commands(AZURE)
    alone = {"checkov", "focus-validator", "image", "litellm-client", "phoenix"}
    assert {target for target, _ in on_github} == alone | {"deploy", "package", "plan"}
    assert set(on_github) == set(on_azure)
    assert {target for target, _ in on_github} <= TARGETS
    assert all(".ci/run" in path.read_text() for path in (ROOT / ".github" / "workflows" / "ci.yml", AZURE))


def test_prod_waits_for_dev_and_each_for_its_approval() -> None:
    """What is applied is the plan that was shown: its digest goes along."""
    deploy = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy.yml").read_text())["jobs"]
    assert (deploy["dev"]["needs"], deploy["prod"]["needs"]) == ("package", "dev")
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "environment.yml").read_text())["jobs"]
    assert jobs["deploy"]["needs"] == "plan"
    assert jobs["deploy"]["environment"] == "${{ inputs.environment }}"
    assert jobs["plan"]["environment"] == "${{ inputs.environment }}-plan"
    assert ("deploy", frozenset({"ENV", "YES", "PACKAGE"})) in commands(AZURE)


def test_terraform_is_the_same_everywhere() -> None:
    """A newer one writes a state that an older one cannot read."""
    text = "".join(path.read_text() for path in [*WORKFLOWS, AZURE])
    assert len(set(re.findall(r"terraform_?[vV]ersion: (\S+)", text))) == 1


def test_azd_finds_the_templates_the_app_and_the_commands() -> None:
    """azure.yaml names folders, and commands of this project."""
    azd = yaml.safe_load((ROOT / "azure.yaml").read_text())
    assert (ROOT / azd["infra"]["path"] / "main.tfvars.json").is_file()
    assert (ROOT / "infra" / "bicep" / "main.bicepparam").is_file()
    (service,) = azd["services"].items()
    assert service[0] == "functions"
    assert (ROOT / service[1]["project"] / "host.json").is_file()
    hooks = [hook["run"] for hook in azd["hooks"].values()]
    assert any("make named-values" in hook for hook in hooks)
    assert any("-m shared.config publish" in hook for hook in hooks)


def test_azd_uploads_what_the_package_holds() -> None:
    """Every other file of the root is named in .funcignore: no settings, tests or templates travel along."""
    from scripts.azure.package import SOURCES

    ignored = {line for line in (ROOT / ".funcignore").read_text().splitlines() if line and not line.startswith("#")}
    tracked = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.name != "__pycache__"}
    kept = {name for name in tracked if name not in ignored and not any(Path(name).match(one) for one in ignored)}
    assert kept - {"LICENSE", "requirements.txt"} == set(SOURCES)
