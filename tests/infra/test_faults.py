"""The checks find faults: single ones, put into a copy of the templates one at a time, are each named by some check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.infra import code_names as names
from tests.infra.code_names import CodeNames
from tests.infra.deployment import bicep
from tests.infra.faults import BICEP, ORDER, TERRAFORM, Fault
from tests.infra.leaks import leaks
from tests.infra.rules import RULES, broken
from tests.infra.rules.order import order
from tests.infra.rules.parity import differences
from tests.support.arm import Deployment, from_terraform
from tests.support.bicep_syntax import BicepError
from tests.support.function_app import registered_functions
from tests.support.infra import ROOT, Workspace
from tests.support.known_plan import KnownPlan, Planner, PlanRefused


@contextmanager
def made(fault: Fault, space: Workspace) -> Iterator[Path]:
    """The fault in the copy, for as long as the context lasts."""
    fault.apply(space.folder)
    try:
        yield space.folder
    finally:
        fault.undo(space.folder, ROOT)


def complaints(planner: Planner, code: CodeNames) -> list[str]:
    """What the checks say about Terraform as it stands in the copy; all but those about order."""
    try:
        plan = planner.plan()
    except PlanRefused as refusal:
        return str(refusal).splitlines()
    return [p for rule in RULES if rule is not order for p in rule(from_terraform(plan), code)] + leaks(plan)


def test_without_a_fault_nothing_is_said(
    planner: Planner, code: CodeNames, terraform_items: Deployment, bicep_items: Deployment
) -> None:
    """Otherwise a fault below could be found for another reason than itself."""
    assert complaints(planner, code) == []
    assert broken(terraform_items, code) + broken(bicep_items, code) == []
    assert differences(terraform_items, bicep_items) == []


@pytest.mark.parametrize("fault", TERRAFORM, ids=lambda fault: fault.what)
def test_terraform_fault_is_found(fault: Fault, space: Workspace, planner: Planner, code: CodeNames) -> None:
    """Terraform refuses it, or a rule names it."""
    with made(fault, space):
        said = complaints(planner, code)
    assert [line for line in said if fault.says in line], said


@pytest.mark.parametrize("fault", ORDER, ids=lambda fault: fault.what)
def test_terraform_order_fault_is_found(fault: Fault, space: Workspace, plan: KnownPlan, code: CodeNames) -> None:
    """The graph lacks the way from the later to the earlier."""
    with made(fault, space):
        said = order(from_terraform(plan, space.terraform("graph").output), code)
    assert [line for line in said if fault.says in line], said


@pytest.mark.parametrize("fault", BICEP, ids=lambda fault: fault.what)
def test_bicep_fault_is_found(fault: Fault, space: Workspace, terraform_items: Deployment, code: CodeNames) -> None:
    """The template cannot be evaluated, a rule names it, or Terraform declares something else."""
    with made(fault, space) as root:
        try:
            found = bicep(root)
            said = broken(found, code) + differences(terraform_items, found)
        except BicepError as problem:
            said = [str(problem)]
    assert [line for line in said if fault.says in line], said


def test_renaming_in_code_is_found(
    monkeypatch: pytest.MonkeyPatch, terraform_items: Deployment, bicep_items: Deployment
) -> None:
    """What goes by another name in the code is missing in both templates, and what they declare is nobody's."""
    monkeypatch.setattr(names, "TABLES", ("ledgers", *names.TABLES[1:]))
    monkeypatch.setattr(names.bootstrap, "_STATEMENTS_CONTAINER", "bills")
    functions = registered_functions()
    trigger = next(f.get_trigger() for f in functions if f.get_function_name() == "ingest")
    monkeypatch.setattr(trigger, "event_hub_name", "%USAGE_EVENTS%")
    monkeypatch.setattr(trigger, "connection", "Hub")
    renamed = names.code_names(ROOT, functions)
    for found in (terraform_items, bicep_items):
        said = broken(found, renamed)
        for line in (
            "table 'tollkeeperledgers' is named and not declared",
            "table 'tollkeeperledger' is declared and nobody names it",
            "container 'bills' is named and not declared",
            "container 'statements' is declared and nobody names it",
            "app setting 'USAGE_EVENTS' is named and not declared",
            "app setting 'Hub__fullyQualifiedNamespace' is named and not declared",
            "app setting 'EventHubs__credential' is declared and nobody names it",
        ):
            assert line in said
