"""What the scripts ask the templates for is in them, for every environment there is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from scripts.azure import deploy, preflight
from scripts.azure.preflight import EXPRESSIONS, Wanted
from scripts.azure.smoke import Chosen, read_chosen
from scripts.azure.terraform import Terraform
from tests.support.infra import IN_PIPELINES, ROOT, infra_environment, workspace

ENVIRONMENTS = sorted(path.stem for path in (ROOT / "infra" / "terraform" / "environments").glob("*.tfvars"))
HCL = "\n".join(path.read_text() for path in sorted((ROOT / "infra" / "terraform").glob("*.tf")))
SUBSCRIPTION = "5b0c2d1e-0000-4000-8000-000000000001"


@pytest.fixture(params=ENVIRONMENTS)
def terraform(
    request: pytest.FixtureRequest, terraform_cli: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terraform]:
    """The templates with an environment's values and what a person adds to them."""
    for name, value in infra_environment().items():
        if name not in IN_PIPELINES:
            monkeypatch.setenv(name, value)
    for name in ("subscription_id", "entra_client_id", "entra_gateway_client_id"):
        monkeypatch.setenv(f"TF_VAR_{name}", SUBSCRIPTION)
    monkeypatch.setenv("TF_VAR_alert_emails", '["owner@contoso.com"]')
    with workspace() as space, Terraform(request.param, space.folder / "infra" / "terraform") as found:
        yield found


def test_preflight_reads_every_environment(terraform: Terraform) -> None:
    """Names, regions and models come out of Terraform itself, so that what is asked for is what is deployed."""
    wanted = msgspec.convert(terraform.evaluate(EXPRESSIONS), Wanted)
    assert wanted.subscription == SUBSCRIPTION
    assert all(region.deployments for region in wanted.regions.values())
    content = [body["name"] for body, _ in preflight._contents(wanted)]
    assert len(content) == len(set(content)) == 7 + len(wanted.regions)
    assert read_chosen(terraform) == Chosen(public_health=False, enforcement="on")


def test_every_output_that_is_read_is_given_out() -> None:
    """By name, in the scripts that deploy and test."""
    read = "".join((ROOT / "scripts" / "azure" / name).read_text() for name in ("deploy.py", "smoke.py"))
    names = set(re.findall(r"outputs(?:\(\))?\[[\"']([A-Z_]+)[\"']\]", read))
    assert len(names) >= 8
    assert names <= set(re.findall(r'^output "([A-Z_]+)"', HCL, re.MULTILINE))


def test_the_function_app_is_called_what_the_deployment_looks_for() -> None:
    """By its change, a deployment knows that the apply restarts it."""
    kind, name = deploy._FUNCTION_APP.split(".")
    assert f'resource "{kind}" "{name}"' in HCL


def test_the_package_is_compiled_by_the_python_that_the_app_runs_on() -> None:
    """Other bytecode is ignored, silently."""
    from scripts.azure.package import PYTHON

    assert f'runtime = {{ name = "python", version = "{PYTHON[0]}.{PYTHON[1]}" }}' in HCL


def test_every_service_of_the_templates_is_asked_about() -> None:
    """Providers that Terraform registers are those that preflight looks at."""
    asked = {kind[0] for kind in (*preflight._TYPES, *preflight._PRIVATE_TYPES)} | set(preflight._NO_LOCATION)
    asked |= {"Microsoft.ApiManagement", "Microsoft.CognitiveServices"}
    (registered,) = re.findall(r"resource_providers_to_register = \[(.*?)\]", HCL, re.DOTALL)
    assert set(re.findall(r'"([\w.]+)"', registered)) == asked
