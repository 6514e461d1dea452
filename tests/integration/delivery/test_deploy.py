"""A whole deployment: real Terraform on a small root, Azure as a stub over HTTP, faults at every step."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob.aio import ContainerClient

from local.azurite import Azurite
from scripts.azure import deploy as module
from scripts.azure.arm import Arm, ArmError
from scripts.azure.deploy import AsyncCredential, Deploy, DeployError, plan_only
from scripts.azure.finding import Finding
from scripts.azure.flex import DeploymentError
from scripts.azure.image import ImageError, image_tag
from scripts.azure.smoke import Chosen
from scripts.azure.terraform import Terraform, TerraformError
from shared.config.edits import ConfigEdits, budget_version
from shared.config.place import open_place
from shared.config.source import DirectorySource, _credential, open_container, open_source
from shared.config.store import ConfigStore
from shared.settings import Settings
from tests.support.azure_stub import AzureStub, Reply, Sleeps, Tokens
from tests.support.dockerfile import context_files

GROUP = "/subscriptions/s/resourceGroups/rg"
SITE = f"{GROUP}/providers/Microsoft.Web/sites/func"
GATEWAY = f"{GROUP}/providers/Microsoft.ApiManagement/service/apim"
VALUE = f"{GATEWAY}/namedValues/tk-enforcement"
ID = "0f7b1c9e-3f5a-4f5e-9a0d-6f1f2a3b4c5d"
MAIN = """
variable "setting" {}
variable "public_health" { default = false }
variable "named_values" { default = {} }
variable "generated_named_values" { default = { tk-enforcement = "on" } }
resource "terraform_data" "functions" { input = var.setting }
resource "terraform_data" "alert" { input = "3" }
locals {
  outputs = {
    AZURE_SUBSCRIPTION_ID = "s", AZURE_RESOURCE_GROUP = "rg", FUNCTIONS_NAME = "func", GATEWAY_ID = "%(gateway)s"
    CONFIG_URL = "https://ledger.blob.core.windows.net/config"
  }
}
output "AZURE_SUBSCRIPTION_ID" { value = local.outputs.AZURE_SUBSCRIPTION_ID }
output "AZURE_RESOURCE_GROUP" { value = local.outputs.AZURE_RESOURCE_GROUP }
output "FUNCTIONS_NAME" { value = local.outputs.FUNCTIONS_NAME }
output "GATEWAY_ID" { value = local.outputs.GATEWAY_ID }
output "CONFIG_URL" { value = local.outputs.CONFIG_URL }
"""

REGISTRY = f"{GROUP}/providers/Microsoft.ContainerRegistry/registries/crtest"
APP = f"{GROUP}/providers/Microsoft.App/containerApps/ca-test"
WITH_GATEWAY = (
    MAIN
    + f"""
variable "builtin_gateway_tag" {{ default = null }}
resource "terraform_data" "app" {{
  count = var.builtin_gateway_tag == null ? 0 : 1
  input = var.builtin_gateway_tag
}}
output "CONTAINER_REGISTRY_ID" {{ value = "{REGISTRY}" }}
output "BUILTIN_GATEWAY_ID" {{ value = var.builtin_gateway_tag == null ? "" : "{APP}" }}
"""
)

FAILING = """
resource "terraform_data" "functions" {
  triggers_replace = var.setting
  provisioner "local-exec" { command = "exit 1" }
}
"""


class World:
    """A checkout, its environment dev, and Azure."""

    def __init__(self, root: Path, azure: AzureStub, arm: Arm, tokens: Tokens, sleeps: Sleeps) -> None:
        self.root, self.azure, self.arm, self.tokens, self.sleeps = root, azure, arm, tokens, sleeps
        self.published: list[str] = []
        self.smoked = [Finding("ok", "all is well")]
        self.options = {"YES": "1", "PREFLIGHT": "0", "PACKAGE": str(root / "app.zip")}
        (root / "app.zip").write_bytes(b"PK a zip")

    def write(self, setting: str = "one", main: str = MAIN) -> None:
        """The templates and values of the checkout."""
        (self.root / "infra" / "main.tf").write_text(main % {"gateway": GATEWAY})
        (self.root / "infra" / "environments" / "dev.tfvars").write_text(f'setting = "{setting}"\n')

    def site(self, strategy: str = "Recreate") -> None:
        """The function app as Azure has it."""
        hosts = [{"name": "scm.example", "hostType": "Repository"}]
        config = {"siteUpdateStrategy": {"type": strategy}}
        self.azure.on(
            "GET",
            SITE,
            Reply({"name": "func", "properties": {"hostNameSslStates": hosts, "functionAppConfig": config}}),
        )

    def run(self) -> None:
        """make deploy ENV=dev."""
        with Terraform("dev", self.root / "infra") as terraform:
            Deploy(terraform, self.tokens, self.arm, self.options, sleep=self.sleeps).run()

    def registry(self, *statuses: str) -> None:
        """A registry that builds images with these outcomes, one look after the other."""
        upload = {"uploadUrl": f"{self.azure.url}/upload?sig=permission", "relativePath": "source/a.tar.gz"}
        self.azure.on("POST", f"{REGISTRY}/listBuildSourceUploadUrl", Reply(upload))
        self.azure.on("PUT", "/upload", Reply("", 201))
        runs = [Reply({"properties": {"runId": "ca1", "status": status}}) for status in statuses]
        self.azure.on("POST", f"{REGISTRY}/scheduleRun", runs[0])
        self.azure.on("GET", f"{REGISTRY}/runs/ca1", *runs[1:])
        self.azure.on("POST", f"{REGISTRY}/runs/ca1/listLogSasUrl", Reply({"logLink": f"{self.azure.url}/log"}))
        self.azure.on("GET", "/log", Reply("step 1\nno wheel for this image\n"))

    @property
    def builds(self) -> list[str]:
        """The images that were built."""
        return [name for request in self.azure.to("POST", "/scheduleRun") for name in request.json()["imageNames"]]

    @property
    def enforcement(self) -> list[str]:
        """What enforcement was set to, in order."""
        return [request.json()["properties"]["value"] for request in self.azure.to("PATCH", VALUE)]

    @property
    def order(self) -> list[str]:
        """What was done in Azure, in order."""
        ends = [f"{request.method} {request.path.rsplit('/', 1)[1]}" for request in self.azure.requests]
        return [end for end in ends if end in ("PATCH tk-enforcement", "POST publish")]


@pytest.fixture
def world(
    terraform_cli: None,
    tmp_path: Path,
    azure: AzureStub,
    arm: Arm,
    tokens: Tokens,
    sleeps: Sleeps,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Everything as it should be: a first deployment stands, a second is about to run."""
    (tmp_path / "infra" / "environments").mkdir(parents=True)
    world = World(tmp_path, azure, arm, tokens, sleeps)

    async def publish(url: str, files: Mapping[str, bytes], _: Any) -> str:
        assert "teams/search.yaml" in files
        world.published.append(url)
        return "0123456789abcdef"

    monkeypatch.setattr(module, "_FUNCTION_APP", "terraform_data.functions")
    monkeypatch.setattr(module, "PLANS", tmp_path / "plans")
    monkeypatch.setattr(module, "_publish", publish)  # storage's client sends no token without TLS
    monkeypatch.setattr(module, "scm_address", lambda site: azure.url if site["name"] == "func" else "")
    monkeypatch.setattr(module, "smoke", lambda *_, **__: world.smoked)
    world.write()
    azure.on("POST", "/api/publish", Reply(f'"{ID}"', 202))
    azure.on("GET", "/api/deployments/latest", Reply({"id": ID, "status": 4}))
    azure.on("GET", VALUE, Reply({"properties": {"value": "on"}}))
    azure.on("PATCH", VALUE, Reply({}))
    return world


@pytest.fixture
def deployed(world: World) -> World:
    """The first deployment stands; what it asked of Azure is forgotten."""
    world.site()
    world.run()
    world.azure.requests.clear()
    world.published.clear()
    world.sleeps.clear()
    return world


def test_a_first_deployment_has_nothing_to_protect(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Infrastructure, configuration, code, and no switch of a gateway that nobody uses."""
    world.site()
    world.run()
    assert world.published == ["https://ledger.blob.core.windows.net/config"]
    assert world.order == ["POST publish"]
    assert "2 to add" in capsys.readouterr().out


@pytest.mark.parametrize(("gateways", "told"), [("[]", True), ('["gateway"]', False)])
def test_a_first_deployment_ends_well_and_says_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch, gateways: str, told: bool
) -> None:
    """No gateway has a role before its identity is there. Once one had it, the smoke test judges the call again."""
    (world.root / "infra" / "environments" / "dev.entra.json").write_text(
        f'{{"client_id": "c", "gateway_client_id": "g", "gateways": {gateways}}}'
    )
    seen: list[Chosen] = []

    def smoke(*given: Any, **_: Any) -> list[Finding]:
        seen.append(given[-1])
        return [Finding("warn", "roles")]

    monkeypatch.setattr(module, "smoke", smoke)
    world.site()
    world.run()
    assert [chosen.unfinished for chosen in seen] == [
        "run make entra ENV=dev, then make smoke ENV=dev" if told else None
    ]


def test_a_restart_of_the_app_happens_while_calls_pass(deployed: World) -> None:
    """Nothing changes in the templates: only the code is deployed, and enforcement is off for just that."""
    deployed.run()
    assert deployed.order == ["PATCH tk-enforcement", "POST publish", "PATCH tk-enforcement"]
    assert deployed.enforcement == ["observe", "on"]


def test_a_changed_setting_restarts_the_app_too(deployed: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Then calls pass from before the apply on, and only once."""
    deployed.write("two")
    deployed.run()
    said = capsys.readouterr().out
    assert said.index("enforcement is observe") < said.index("apply\n")
    assert deployed.enforcement == ["observe", "on"]


def test_a_gateway_that_goes_with_the_plan_is_not_switched(
    deployed: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its named value would be gone when enforcement is to come back; from then on there is none to switch."""
    value = 'resource "terraform_data" "alert" { input = "3" }'
    assert value in MAIN
    monkeypatch.setattr(module, "_ENFORCEMENT", "terraform_data.alert")
    deployed.write("two", MAIN.replace(value, "").replace("%(gateway)s", ""))
    deployed.run()
    deployed.run()
    assert deployed.order == ["POST publish", "POST publish"]
    assert "1 to DELETE" in capsys.readouterr().out


def test_an_app_that_rolls_is_updated_while_it_enforces(deployed: World) -> None:
    """No gap, no switch."""
    deployed.site("RollingUpdate")
    deployed.run()
    assert deployed.order == ["POST publish"]


def test_a_deployment_that_fails_half_way_enforces_again(deployed: World) -> None:
    """The package is refused by the platform."""
    deployed.azure.on("GET", "/api/deployments/latest", Reply({"id": ID, "status": 3, "status_text": "Forbidden"}))
    with pytest.raises(DeploymentError, match="Forbidden"):
        deployed.run()
    assert deployed.enforcement == ["observe", "on"]


def test_an_apply_that_fails_enforces_again(deployed: World) -> None:
    """Terraform stops in the middle of a change of the app."""
    resource = 'resource "terraform_data" "functions" { input = var.setting }'
    assert resource in MAIN
    failing = MAIN.replace(resource, FAILING)
    deployed.write("two", failing)
    with pytest.raises(TerraformError, match="apply failed"):
        deployed.run()
    assert deployed.enforcement == ["observe", "on"]
    assert deployed.published == []


def test_a_run_after_one_that_died_restores_what_the_configuration_says(deployed: World) -> None:
    """A machine that was switched off left observe behind."""
    deployed.azure.on("GET", VALUE, Reply({"properties": {"value": "observe"}}))
    deployed.run()
    assert deployed.enforcement[-1] == "on"


def test_enforcement_that_somebody_switched_off_stays_off(deployed: World) -> None:
    """named_values in the environment's values win over the configuration."""
    with (deployed.root / "infra" / "environments" / "dev.tfvars").open("a") as values:
        values.write('named_values = { tk-enforcement = "off" }\n')
    deployed.run()
    assert deployed.enforcement == []


def test_new_outputs_come_with_an_apply_that_changes_nothing(deployed: World) -> None:
    """An upgrade may read what an earlier version did not give out."""
    deployed.write(main=MAIN + 'output "NEW" { value = "x" }\n')
    deployed.options["YES"] = ""  # there is nothing to approve
    deployed.run()
    with Terraform("dev", deployed.root / "infra") as terraform:
        assert terraform.outputs()["NEW"] == "x"


def test_nothing_is_changed_without_a_yes(
    deployed: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal is asked, no terminal is an error, and a digest approves one plan only."""
    deployed.write("two")
    deployed.options["YES"] = "0" * 64
    with pytest.raises(DeployError, match="not the plan that was approved"):
        deployed.run()
    deployed.options["YES"] = ""
    with pytest.raises(DeployError, match="nobody is there"):
        deployed.run()
    terminal = io.StringIO("y\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(DeployError, match="not approved"):
        deployed.run()
    assert deployed.order == []
    with Terraform("dev", deployed.root / "infra") as terraform:
        plan_only(terraform, "dev")
    deployed.options["YES"] = (deployed.root / "plans" / "dev.digest").read_text().strip()
    deployed.run()
    assert "POST publish" in deployed.order


def test_a_plan_is_written_for_whoever_approves_it(deployed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text and its digest; what is too long for a summary is cut and says so."""
    deployed.write("two")
    with Terraform("dev", deployed.root / "infra") as terraform:
        plan_only(terraform, "dev")
        text = (deployed.root / "plans" / "dev.md").read_text()
        assert text.startswith("### dev: 0 to add, 1 to change")
        assert "terraform_data.functions" in text
        monkeypatch.setattr(module, "_MOST_CHARACTERS", 50)
        plan_only(terraform, "dev")
    assert "... cut;" in (deployed.root / "plans" / "dev.md").read_text()


def test_a_role_that_storage_does_not_know_yet_is_waited_for(deployed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the first apply, for minutes; another refusal is told at once."""
    refusals = [403, 403]

    async def publish(*_: Any) -> str:
        if refusals:
            error = HttpResponseError("This request is not authorized")
            error.status_code = refusals.pop()
            raise error
        return "0123456789abcdef"

    monkeypatch.setattr(module, "_publish", publish)
    deployed.run()
    assert deployed.sleeps[:2] == [10, 10]
    refusals.append(404)
    with pytest.raises(DeployError, match="config_publishers"):
        deployed.run()


def test_what_cannot_work_stops_before_anything_is_changed(deployed: World) -> None:
    """Preflight that fails, a package that is not there."""
    deployed.options["PREFLIGHT"] = "1"
    deployed.write("two", MAIN + PREFLIGHT)
    with pytest.raises(DeployError, match="preflight failed: nothing was changed"):
        deployed.run()
    deployed.options |= {"PREFLIGHT": "0", "PACKAGE": "none.zip"}
    with pytest.raises(DeployError, match=r"none\.zip is not there"):
        deployed.run()
    assert deployed.order == []


PREFLIGHT = """
variable "subscription_id" { default = "s" }
variable "location" { default = "swedencentral" }
variable "existing_resource_group_name" { default = null }
variable "api_management" { default = true }
variable "builtin_gateway" { default = null }
variable "existing_api_management" { default = null }
variable "api_management_sku" { default = "StandardV2_1" }
variable "model_regions" { default = {} }
variable "zone_redundant" { default = false }
variable "private_network" { default = true }
locals {
  names = { resource_group = "rg" }
  tags  = {}
}
"""


def test_a_smoke_test_that_fails_fails_the_deployment(deployed: World) -> None:
    """It is deployed, and the pipeline is red."""
    deployed.smoked = [Finding("ok", "healthy"), Finding("FAIL", "anonymous callers get in")]
    with pytest.raises(DeployError, match="smoke test failed"):
        deployed.run()
    assert deployed.enforcement == ["observe", "on"]


def test_a_function_app_that_azure_does_not_show_is_no_first_deployment(deployed: World) -> None:
    """Whoever may not read the app must not go on as if there were none."""
    deployed.azure.on("GET", SITE, Reply({"error": {"code": "AuthorizationFailed", "message": "no"}}, 403))
    with pytest.raises(ArmError, match="AuthorizationFailed"):
        deployed.run()
    assert deployed.order == []


async def test_edits_that_a_deployment_ends_or_keeps_are_named(
    azurite: Azurite, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever deploys reads whose change of a budget is gone, with the reason it was made for, or that it stays."""
    address = f"{azurite.blob_endpoint.rstrip('/')}/config-{uuid4().hex[:8]}"
    settings = Settings(config_location=address, storage_connection=azurite.connection_string)
    opened, key = ContainerClient.from_container_url, _credential(settings)  # a token would need TLS
    monkeypatch.setattr(ContainerClient, "from_container_url", lambda url, **_: opened(url, credential=key))
    files = DirectorySource(str(module.ROOT / "config")).read()
    keeping = {**files, "billing.yaml": files["billing.yaml"].replace(b"edits: git_wins", b"edits: keep")}
    async with open_container(address, settings) as container:
        await container.create_container()
    store = ConfigStore(open_source(settings))
    first = await module._publish(address, files, tokens)
    assert (await store.load()).version == first
    edits = ConfigEdits(lambda: open_place(settings), lambda: store.refresh(force=True))
    for published, said in ((files, "discarded, because git wins"), (keeping, "kept, as billing.yaml says")):
        version = budget_version(store.current, "search-month")
        await edits.change("default", "search-month", {"limit": "0.10"}, version=version, who="ada", why="quarter end")
        capsys.readouterr()
        await module._publish(address, published, tokens)
        await store.refresh(force=True)
        (line,) = capsys.readouterr().out.splitlines()
        assert f"{said}: budget search-month to 0.10, by ada at " in line
        assert line.endswith("quarter end")
    await store.close()


def test_the_storage_client_gets_the_callers_token(tokens: Tokens) -> None:
    """The product publishes with an asynchronous client, the scripts sign in synchronously."""

    async def ask() -> str:
        async with AsyncCredential(tokens) as credential:
            return (await credential.get_token("https://storage.azure.com/.default", tenant_id="t")).token

    assert asyncio.run(ask()) == "token for https://storage.azure.com/.default"


@pytest.fixture
def signals() -> Iterator[None]:
    """Put the handlers of signals back that a command of its own replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_an_unknown_command_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    """And an environment that is not there is one line, no traceback."""
    assert module.main(["destroy", "dev"]) == 2
    assert "make deploy ENV=dev" in capsys.readouterr().err
    assert module.main(["deploy", "nowhere"]) == 1
    assert "nowhere.tfvars is missing" in capsys.readouterr().err


@pytest.mark.usefixtures("signals")
def test_a_cancelled_pipeline_restores_enforcement(
    deployed: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sends SIGTERM, here while the package is being deployed; the command ends as after Ctrl-C."""
    monkeypatch.setattr(module, "Terraform", lambda environment: Terraform(environment, deployed.root / "infra"))
    monkeypatch.setattr(module, "Arm", lambda _: nullcontext(deployed.arm))
    monkeypatch.setattr(module, "open_credential", lambda: deployed.tokens)
    monkeypatch.setattr(module, "deploy_package", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("scripts.azure.enforcement._SETTLE_SECONDS", 0)
    for name, value in deployed.options.items():
        monkeypatch.setenv(name, value)
    assert module.main(["deploy", "dev"]) == 130
    assert "interrupted; run it again" in capsys.readouterr().err
    assert deployed.enforcement == ["observe", "on"]


def test_the_first_image_is_built_once_there_is_a_registry_for_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first apply makes the registry, the second the app: an app without an image would fail the first."""
    world.site()
    world.registry("Queued", "Running", "Succeeded")
    world.write(main=WITH_GATEWAY)
    world.run()
    assert world.builds == [f"tollkeeper-gateway:{image_tag()}"]
    said = capsys.readouterr().out
    assert said.index("2 to add") < said.index("build tollkeeper-gateway") < said.index("1 to add, 0 to change")
    # What it was built from: neither configuration nor state nor tests, and no token goes to that address.
    [upload] = world.azure.to("PUT", "/upload")
    assert "authorization" not in upload.headers
    assert upload.query == {"sig": "permission"}
    with tarfile.open(fileobj=io.BytesIO(upload.body), mode="r:gz") as archive:
        assert set(archive.getnames()) == context_files() | {"Dockerfile", ".dockerignore"}
    [run] = world.azure.to("POST", "/scheduleRun")
    assert (run.json()["sourceLocation"], run.json()["isPushEnabled"]) == ("source/a.tar.gz", True)


def test_only_other_sources_are_built_and_before_anything_is_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs already is not built again; a build that fails says why, and the app goes on with what it has."""
    world.site()
    world.registry("Succeeded")
    world.write(main=WITH_GATEWAY)
    world.run()
    image = f"crtest.azurecr.io/tollkeeper-gateway:{image_tag()}"
    world.azure.on("GET", APP, Reply({"properties": {"template": {"containers": [{"image": image}]}}}))
    world.run()
    assert len(world.builds) == 1
    world.registry("Running", "Failed")
    monkeypatch.setattr(module, "image_tag", lambda: "another")
    world.published.clear()
    with pytest.raises(ImageError, match="no wheel for this image"):
        world.run()
    assert world.builds[1:] == ["tollkeeper-gateway:another"]
    assert world.published == []


def test_the_plan_that_is_shown_names_the_image(world: World) -> None:
    """Before it is built, and without a right to build: whoever approves sees what will run."""
    world.site()
    world.registry("Succeeded")
    world.write(main=WITH_GATEWAY)
    world.run()
    world.write("two", main=WITH_GATEWAY)
    with Terraform("dev", world.root / "infra") as terraform:
        plan_only(terraform, "dev")
    assert "0 to add, 1 to change" in (world.root / "plans" / "dev.md").read_text()
    assert len(world.builds) == 1
