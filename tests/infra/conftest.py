"""Both templates as they stand, read once for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.code_names import CodeNames, code_names
from tests.infra.deployment import bicep, variables
from tests.support.arm import Deployment, from_terraform
from tests.support.function_app import registered_functions
from tests.support.infra import ROOT, Workspace, workspace
from tests.support.known_plan import KnownPlan, Planner


@pytest.fixture(scope="session")
def code() -> CodeNames:
    """What code, policies and host.json name."""
    return code_names(ROOT, registered_functions())


@pytest.fixture(scope="session")
def space() -> Iterator[Workspace]:
    """A copy of the templates, ready to run terraform in. Whoever changes it puts it back."""
    with workspace() as copied:
        yield copied


@pytest.fixture(scope="session")
def planner(space: Workspace) -> Planner:
    return Planner(space, variables=variables(ROOT))


@pytest.fixture(scope="session")
def plan(planner: Planner) -> KnownPlan:
    return planner.plan()


@pytest.fixture(scope="session")
def terraform_items(plan: KnownPlan, space: Workspace) -> Deployment:
    return from_terraform(plan, space.terraform("graph").output)


@pytest.fixture(scope="session")
def bicep_items() -> Deployment:
    return bicep(ROOT)


@pytest.fixture(scope="session")
def terraform_without(planner: Planner) -> Deployment:
    """The same deployment without API Management."""
    return from_terraform(planner.plan(api_management=False))


@pytest.fixture(scope="session")
def bicep_without() -> Deployment:
    return bicep(ROOT, api_management=False)
