"""Registrations before and after the infrastructure: real Terraform on the variables and locals of infra/entra.

Its resources are stood in for, because the provider azuread is in no registry that CI reaches.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scripts.azure.deploy import DeployError
from scripts.azure.entra import OF_INFRASTRUCTURE, EntraError, entra
from scripts.azure.terraform import ENTRA, Registrations, Terraform, TerraformError
from tests.support.azure_stub import NotSignedIn, Tokens
from tests.support.entra_redis import fake_token

RESOURCES = """
resource "terraform_data" "tenant" { input = var.tenant_id }
resource "terraform_data" "roles" { input = local.principals }
output "client_id" { value = "client-of-${var.environment}" }
output "gateway_client_id" { value = "client-of-models" }
output "gateways" { value = tolist(terraform_data.roles.output["Budget.Check"]) }
output "roles" { value = terraform_data.roles.output }
output "tenant" { value = terraform_data.tenant.output }
"""
INFRA = """
variable "entra_client_id" { default = null }
variable "entra_gateway_client_id" { default = null }
"""
GATEWAY = 'output "GATEWAY_PRINCIPAL_ID" { value = "%s" }\noutput "FUNCTIONS_PRINCIPAL_ID" { value = "the-app" }\n'
IDS = {"service": "var.entra_client_id", "models": "var.entra_gateway_client_id"}


class Person(Tokens):
    """Somebody who is signed in, with a token of Entra ID's form."""

    def __init__(self, oid: str = "ada") -> None:
        super().__init__()
        self.claims: dict[str, object] = {"oid": oid, "tid": "contoso"}

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """A token that says who."""
        return super().get_token(*scopes, **options)._replace(token=fake_token(self.claims))


class World:
    """A checkout with both roots and the environment dev."""

    def __init__(self, folder: Path) -> None:
        self.infra, self.root = folder / "infra" / "terraform", folder / "infra" / "entra"
        self.values = self.root / "environments" / "dev.tfvars"
        self.kept = self.infra / "environments" / "dev.entra.json"

    def run(self, person: Any = None, environment: str = "dev", **options: str) -> None:
        """make entra ENV=dev YES=1."""
        entra(environment, person or Person(), {"YES": "1"} | options, self.infra, self.root)

    def deploy(self, gateway: str = "the-gateway") -> None:
        """The infrastructure is there, with the gateway's identity."""
        (self.infra / "main.tf").write_text(INFRA + GATEWAY % gateway)
        with Terraform("dev", self.infra) as terraform:
            terraform.plan()
            terraform.apply()

    def outputs(self) -> dict[str, Any]:
        """What the registrations are."""
        with Terraform("dev", self.root) as terraform:
            return terraform.outputs()

    def ids(self) -> dict[str, Any]:
        """What the infrastructure is given."""
        with Terraform("dev", self.infra) as terraform:
            return terraform.evaluate(IDS)


@pytest.fixture
def world(terraform_cli: None, tmp_path: Path) -> World:
    """Nothing is there yet."""
    world = World(tmp_path)
    (world.infra / "environments").mkdir(parents=True)
    (world.infra / "environments" / "dev.tfvars").write_text("")
    (world.infra / "main.tf").write_text(INFRA)
    world.root.mkdir()
    for name in ("locals.tf", "variables.tf"):
        shutil.copy(ENTRA / name, world.root)
    (world.root / "main.tf").write_text(RESOURCES)
    return world


def test_the_first_run_registers_and_makes_the_caller_administrator(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the directory of the subscription; the infrastructure finds the ids, and the person what is left to do."""
    world.run()
    outputs = world.outputs()
    assert outputs["tenant"] == "contoso"
    assert outputs["roles"] == {"Budget.Check": [], "Chargeback.Admin": ["ada"]}
    assert json.loads(world.kept.read_text()) == {
        "client_id": "client-of-dev",
        "gateway_client_id": "client-of-models",
        "gateways": [],
    }
    assert world.ids() == {"service": "client-of-dev", "models": "client-of-models"}
    assert "after make deploy run make entra ENV=dev again" in capsys.readouterr().out


def test_the_run_after_the_deployment_gives_the_gateway_its_role(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever runs it: the values stay as they are, with the administrators that they name."""
    world.run()
    world.deploy()
    capsys.readouterr()
    world.run(Person("grace"))
    assert world.outputs()["roles"] == {"Budget.Check": ["the-gateway"], "Chargeback.Admin": ["ada"]}
    assert json.loads(world.kept.read_text())["gateways"] == ["the-gateway"]
    assert "again" not in capsys.readouterr().out
    world.run(NotSignedIn(), YES="")  # nothing to change, nothing to ask, nobody to name
    world.deploy(gateway="")  # API Management is gone
    world.run()
    assert world.outputs()["roles"] == {"Budget.Check": [], "Chargeback.Admin": ["ada"]}
    assert "again" not in capsys.readouterr().out


def test_values_that_a_person_wrote_are_what_holds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other administrators, and an app that was registered elsewhere."""
    world.values.parent.mkdir()
    world.values.write_text('environment = "dev"\ntenant_id = "x"\nprincipals = { "Chargeback.Read" = ["finance"] }\n')
    world.run(NotSignedIn())
    assert world.outputs()["roles"] == {"Budget.Check": [], "Chargeback.Read": ["finance"]}
    monkeypatch.setenv("TF_VAR_entra_client_id", "from-the-shell")
    (world.infra / "environments" / "dev.tfvars").write_text('entra_gateway_client_id = "from-the-file"\n')
    assert world.ids() == {"service": "from-the-shell", "models": "from-the-file"}


def test_nothing_is_registered_without_a_yes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values are written, for the person to change them before the next run."""
    with pytest.raises(DeployError, match="nobody is there"):
        world.run(YES="")
    terminal = io.StringIO("no\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(DeployError, match="not approved"):
        world.run(YES="")
    assert world.outputs() == {}
    assert not world.kept.exists()
    assert world.values.is_file()


def test_an_environment_that_is_none_gets_no_values(world: World) -> None:
    """A typing mistake in ENV would register apps that nobody uses."""
    with pytest.raises(TerraformError, match="ENV names one of: dev"):
        world.run(environment="dve")
    assert not world.values.parent.exists()


def test_nobody_is_made_administrator_when_nobody_is_signed_in(world: World) -> None:
    """Also where the token does not say who it is."""
    with pytest.raises(EntraError, match="az login"):
        world.run(NotSignedIn())
    nameless = Person()
    del nameless.claims["oid"]
    for unreadable in (nameless, Tokens()):
        with pytest.raises(EntraError, match="does not say who"):
            world.run(unreadable)
    assert not world.values.parent.exists()


def test_ids_of_a_run_that_failed_are_not_kept(world: World) -> None:
    """A right that is missing in the directory; outputs that are not there."""
    failing = 'resource "terraform_data" "refused" {\n  provisioner "local-exec" { command = "exit 1" }\n}\n'
    (world.root / "main.tf").write_text(RESOURCES + failing)
    with pytest.raises(TerraformError, match="apply failed"):
        world.run()
    assert not world.kept.exists()
    (world.root / "main.tf").write_text(RESOURCES.replace('output "client_id"', 'output "id"'))
    with pytest.raises(EntraError, match="client_id"):
        world.run()
    assert not world.kept.exists()


def test_a_file_of_ids_that_is_damaged_is_told(world: World) -> None:
    """A merge left its marks in it, say: without it the infrastructure would ask for ids, and not say why."""
    world.kept.write_text("<<<<<<< HEAD\n")
    with pytest.raises(TerraformError, match=r"dev\.entra\.json: .*make entra ENV=dev"):
        Terraform("dev", world.infra)


def test_the_templates_have_what_is_given_and_read() -> None:
    """Under these names, in both roots; what is stood in for here is not."""
    registrations, infrastructure = (
        "\n".join(file.read_text() for file in folder.glob("*.tf")) for folder in (ENTRA, ENTRA.parent / "terraform")
    )
    outputs = set(re.findall(r'^output "(\w+)"', registrations, re.MULTILINE))
    assert {field.name for field in msgspec.structs.fields(Registrations)} <= outputs
    assert "for_each            = merge([for role, ids in local.principals :" in registrations
    assert set(OF_INFRASTRUCTURE.values()) <= set(re.findall(r'^output "(\w+)"', infrastructure, re.MULTILINE))
    assert set(OF_INFRASTRUCTURE) <= set(re.findall(r'^variable "(\w+)"', registrations, re.MULTILINE))
    assert {'"entra_client_id"', '"entra_gateway_client_id"'} <= set(
        re.findall(r'^variable ("\w+")', infrastructure, re.MULTILINE)
    )
