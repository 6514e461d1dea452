"""The registrations in Entra ID have the roles that the function app asks for.

The provider is in no registry that CI reaches, so what is tested is what needs none.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from functions.auth import ALL_ROLES
from tests.support.terraform_values import evaluate

ENTRA = Path(__file__).parents[2] / "infra" / "entra"


def without_provider(folder: Path) -> Path:
    """What of the root Terraform evaluates by itself."""
    for name in ("locals.tf", "variables.tf"):
        shutil.copy(ENTRA / name, folder)
    return folder


@pytest.fixture(scope="module")
def registrations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`local.registrations` as Terraform evaluates it."""
    folder = without_provider(tmp_path_factory.mktemp("entra"))
    found: dict[str, Any] = evaluate("local.registrations", folder)
    return found


def test_the_function_app_s_registration_has_the_roles_that_it_asks_for(registrations: dict[str, Any]) -> None:
    """A role under another name would be granted, shown in tokens, and refused by the code."""
    assert set(registrations["service"]["roles"]) == ALL_ROLES


def test_callers_of_models_get_no_role(registrations: dict[str, Any]) -> None:
    """Whoever may call a model may not therefore ask the budget service, or read figures."""
    assert registrations["gateway"]["roles"] == {}


def test_ids_of_roles_stay(registrations: dict[str, Any]) -> None:
    """Assignments are by id: another id would take the role from everybody who has it."""
    assert {name: role["id"] for name, role in registrations["service"]["roles"].items()} == {
        "Budget.Check": "916550d4-5164-566e-8e0e-5861deab7f71",
        "Chargeback.Admin": "2492264c-7cf8-5902-8905-7be7fef84671",
        "Chargeback.Read": "a1e0b1ef-5333-5498-8375-77076c7760e0",
        "Usage.Write": "d4f4698f-4dc2-5d6d-97b9-506a4407ab61",
    }


def test_people_cannot_be_gateways(registrations: dict[str, Any]) -> None:
    """What is only for apps is offered to apps only: a person with Usage.Write could bill others."""
    assert {name for name, role in registrations["service"]["roles"].items() if "User" in role["members"]} == {
        "Chargeback.Admin",
        "Chargeback.Read",
    }


def test_the_gateway_gets_its_role_beside_those_who_are_named(tmp_path: Path) -> None:
    """Once, also where the values name it too, and nobody else loses theirs."""
    (without_provider(tmp_path) / "terraform.tfvars").write_text(
        'gateway_principal_id = "gateway"\n'
        'principals = { "Budget.Check" = ["other", "gateway"], "Chargeback.Admin" = ["somebody"] }\n'
    )
    assert evaluate("local.principals", tmp_path) == {
        "Budget.Check": ["gateway", "other"],
        "Chargeback.Admin": ["somebody"],
    }


def test_people_are_taken_back_to_the_function_app_when_they_sign_in(tmp_path: Path) -> None:
    """To its own host, beside its routes, and only once it is there; whoever calls models signs in elsewhere."""
    folder = without_provider(tmp_path)
    at_first: dict[str, Any] = evaluate("local.registrations", folder)
    assert at_first["service"]["redirect_uris"] == []
    (folder / "terraform.tfvars").write_text('functions_url = "https://func-tollkeeper-dev.azurewebsites.net/api/v1"\n')
    deployed: dict[str, Any] = evaluate("local.registrations", folder)
    assert deployed["service"]["redirect_uris"] == [
        "https://func-tollkeeper-dev.azurewebsites.net/.auth/login/aad/callback"
    ]
    assert deployed["gateway"]["redirect_uris"] == []


def test_people_who_open_the_dashboard_by_another_name_are_taken_back_there(tmp_path: Path) -> None:
    """Entra ID sends people to registered addresses only; the platform asks for the one they came by."""
    (without_provider(tmp_path) / "terraform.tfvars").write_text(
        'functions_url = "https://func-tollkeeper-dev.azurewebsites.net/api/v1"\n'
        'public_urls = ["https://tollkeeper.contoso.com"]\n'
    )
    found: dict[str, Any] = evaluate("local.registrations", tmp_path)
    assert found["service"]["redirect_uris"] == [
        "https://func-tollkeeper-dev.azurewebsites.net/.auth/login/aad/callback",
        "https://tollkeeper.contoso.com/.auth/login/aad/callback",
    ]
