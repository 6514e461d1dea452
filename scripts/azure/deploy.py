"""Bring an environment to what this checkout says: infrastructure, configuration, code.

    make deploy ENV=dev                  preflight, plan, ask, apply, publish, package, deploy, smoke test;
                                         with builtin_gateway its image too, before the plan that names it is applied
    make plan ENV=dev                    the plan, its text and its digest in .local/plan/, and nothing else

Run it again after whatever went wrong: every step finds what the last run left.

YES=1           apply without asking; YES=<digest>: only the plan with that digest, which somebody looked at
PREFLIGHT=0     do not ask Azure beforehand
PACKAGE=a.zip   deploy this package instead of building one: the way back to an earlier version
CONFIG_DIR=dir  the configuration to publish (config)
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError

from scripts.azure import package
from scripts.azure.arm import Arm, ArmError
from scripts.azure.credential import open_credential
from scripts.azure.enforcement import observing
from scripts.azure.finding import report
from scripts.azure.flex import DeploymentError, deploy_package, is_rolling, scm_address
from scripts.azure.image import ImageError, build_image, image_tag
from scripts.azure.package import PackageError
from scripts.azure.preflight import preflight
from scripts.azure.smoke import read_chosen, read_config, site_id, smoke
from scripts.azure.terraform import ROOT, Plan, Terraform, TerraformError
from shared.config.operator import name_of_token
from shared.config.place import ContainerPlace
from shared.config.publish import publish as publish_files
from shared.config.publish import told
from shared.config.source import DirectorySource
from shared.errors import TollkeeperError

PLANS = ROOT / ".local" / "plan"
_FUNCTION_APP = "azapi_resource.functions"
_ENFORCEMENT = 'azurerm_api_management_named_value.this["tk-enforcement"]'
_SITE_VERSION = "2024-11-01"
_CONTAINER_APP_VERSION = "2025-07-01"
_ROLE_MINUTES = 5  # for a role that was just assigned to reach storage
_POLL_SECONDS = 10.0
_MOST_CHARACTERS = 900_000  # a summary of GitHub takes 1 MiB


class DeployError(Exception):
    """The deployment stopped. The message says where and why."""


class Deploy:
    """The steps, for one environment. `options` are the environment variables above."""

    def __init__(
        self,
        terraform: Terraform,
        credential: TokenCredential,
        arm: Arm,
        options: Mapping[str, str],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._terraform = terraform
        self._credential = credential
        self._arm = arm
        self._options = options
        self._sleep = sleep

    def run(self) -> None:
        """All of them. What is long or may fail by itself comes before anything is changed."""
        if self._options.get("PREFLIGHT", "1") != "0":
            say("preflight")
            if not preflight(self._arm, self._terraform):
                raise DeployError("preflight failed: nothing was changed")
        archive = self._package()
        before = self._terraform.outputs()
        name_image(self._terraform, before)
        say("plan")
        plan = self._terraform.plan()
        approve(plan, self._options.get("YES", ""))
        self._image(before)
        with ExitStack() as restored:
            site = self._site(before)
            # A gateway that goes with this plan has nothing to switch back; the built-in one asks no function app.
            gateway = "" if _ENFORCEMENT in plan.deletes else str(before.get("GATEWAY_ID") or "")
            has_gap = gateway != "" and site is not None and not is_rolling(site)
            if has_gap and plan.touches(_FUNCTION_APP):  # a changed app setting restarts the app too
                restored.enter_context(self._observing(gateway))
            say("apply")
            self._terraform.apply()  # an empty plan too: it may bring new outputs
            outputs = self._terraform.outputs()
            self._publish(outputs["CONFIG_URL"])
            if has_gap and not plan.touches(_FUNCTION_APP):
                restored.enter_context(self._observing(outputs["GATEWAY_ID"]))
            self._deploy(outputs, archive)
        if _registry(outputs) != _registry(before):
            outputs = self._first_image(outputs)
        self._smoke(outputs)

    def _image(self, outputs: Mapping[str, Any]) -> None:
        """Build the built-in gateway's image, unless it is what runs already."""
        registry, app = _registry(outputs), outputs.get("BUILTIN_GATEWAY_ID")
        if not registry:
            return
        tag = image_tag()
        running = self._arm.find(app, _CONTAINER_APP_VERSION) if app else None
        containers = running["properties"]["template"]["containers"] if running else []
        if not any(container["image"].endswith(f":{tag}") for container in containers):
            build_image(self._arm, registry, tag, say=say, sleep=self._sleep)

    def _first_image(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The registry is new: fill it, and apply what could not be there without an image. The outputs after it."""
        self._image(outputs)
        name_image(self._terraform, outputs)
        say("plan of the built-in gateway, whose image is there now")
        approve(self._terraform.plan(), self._options.get("YES", ""))
        say("apply")
        self._terraform.apply()
        return self._terraform.outputs()

    def _package(self) -> Path:
        if chosen := self._options.get("PACKAGE"):
            if not Path(chosen).is_file():
                raise DeployError(f"PACKAGE: {chosen} is not there")
            return Path(chosen)
        if package.main([]):
            raise DeployError("there is no package: nothing was changed")
        return package.DEFAULT_FILE

    def _site(self, outputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The function app as it is in Azure; None when there is none."""
        if "FUNCTIONS_NAME" not in outputs:
            return None
        return self._arm.find(site_id(outputs), _SITE_VERSION)

    def _observing(self, gateway: str) -> AbstractContextManager[None]:
        wanted = read_chosen(self._terraform).enforcement
        return observing(self._arm, gateway, wanted, say=say, sleep=self._sleep)

    def _publish(self, url: str) -> None:
        """Before the code: an app that runs keeps its configuration if it cannot read the new one."""
        directory = self._options.get("CONFIG_DIR", str(ROOT / "config"))
        files = DirectorySource(directory).read()
        deadline = time.monotonic() + _ROLE_MINUTES * 60
        while True:
            try:
                version = asyncio.run(_publish(url, files, self._credential))
            except HttpResponseError as error:
                if error.status_code != 403 or time.monotonic() >= deadline:
                    raise DeployError(
                        f"{url}: {error.message}: the caller needs Storage Blob Data Contributor on it "
                        "(config_publishers), and this address a way to it (deployer_ip_ranges)"
                    ) from error
                say("storage does not know the role yet, waiting")
                self._sleep(_POLL_SECONDS)
            except AzureError as error:
                raise DeployError(f"{url}: {error}") from error
            else:
                say(f"configuration {version[:12]} is published")
                return

    def _deploy(self, outputs: Mapping[str, Any], archive: Path) -> None:
        site = self._arm.get(site_id(outputs), _SITE_VERSION)
        say(f"deploy {archive.name} to {outputs['FUNCTIONS_NAME']}")
        deploy_package(scm_address(site), archive.read_bytes(), self._credential, say=say, sleep=self._sleep)
        say("deployed")

    def _smoke(self, outputs: Mapping[str, Any]) -> None:
        say("smoke test")
        chosen = read_chosen(self._terraform)
        found = smoke(self._arm, outputs, self._credential, read_config(), chosen, sleep=self._sleep)
        if not report(found):
            raise DeployError("deployed, but the smoke test failed: see above")


class AsyncCredential:
    """A synchronous credential for the asynchronous storage client, which the product publishes with."""

    def __init__(self, credential: TokenCredential) -> None:
        self._credential = credential

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Asked in a thread: the Azure CLI is a process, which takes its time."""
        return await asyncio.to_thread(self._credential.get_token, *scopes, **options)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.close()


async def _publish(url: str, files: Mapping[str, bytes], credential: TokenCredential) -> str:
    """The version that is current now. Says which edits of the dashboard ended, and which stay."""
    from azure.storage.blob.aio import ContainerClient

    own = AsyncCredential(credential)
    async with ContainerClient.from_container_url(url, credential=own) as container:
        who = await name_of_token(own)
        done = await publish_files(files, ContainerPlace(container, url), who=who, why="make deploy")
    for edit in done.difference.discarded:
        say(f"discarded, because git wins: {told(edit)}")
    for edit in done.difference.kept:
        say(f"kept, as billing.yaml says: {told(edit)}")
    return done.version


def say(text: str) -> None:
    """A line of progress."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def _registry(outputs: Mapping[str, Any]) -> str:
    """The environment's own registry, by its id; empty where it has none."""
    return str(outputs.get("CONTAINER_REGISTRY_ID") or "")


def name_image(terraform: Terraform, outputs: Mapping[str, Any]) -> None:
    """Let plans name this checkout's image, where there is a registry for it. It need not be built yet."""
    if _registry(outputs):
        terraform.give("builtin_gateway_tag", image_tag())


def approve(plan: Plan, approved: str) -> None:
    """Ask whether to apply the plan, unless `approved` is 1 or its digest. Raises DeployError."""
    say(f"{plan} (digest {plan.digest})")
    if plan.is_empty or approved in ("1", plan.digest):
        return
    if approved:
        raise DeployError("this is not the plan that was approved: look at it and approve it anew")
    if not sys.stdin.isatty():
        raise DeployError("nobody is there to ask whether to apply it: set YES=1, or YES to the digest")
    if input("Apply it? Only `yes` is yes: ").strip() != "yes":
        raise DeployError("not approved: nothing was changed")


def plan_only(terraform: Terraform, environment: str) -> None:
    """The plan for whoever approves it: .local/plan/<environment>.md and .digest."""
    name_image(terraform, terraform.outputs())
    plan = terraform.plan(lock=False)
    PLANS.mkdir(parents=True, exist_ok=True)
    text = terraform.plan_text()
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}\n... cut; `make plan ENV={environment}` shows the rest"
    (PLANS / f"{environment}.md").write_text(
        f"### {environment}: {plan}\n\nDigest `{plan.digest}`\n\n````terraform\n{text}\n````\n"
    )
    (PLANS / f"{environment}.digest").write_text(f"{plan.digest}\n")
    say(f"{plan} (digest {plan.digest})")


def main(arguments: list[str]) -> int:
    """0 when the environment is as this checkout says."""
    if len(arguments) != 2 or arguments[0] not in ("deploy", "plan"):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    action, environment = arguments
    for number in (signal.SIGTERM, signal.SIGHUP):  # a cancelled pipeline restores enforcement like a Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        say("terraform init")
        with Terraform(environment) as terraform:
            if action == "plan":
                plan_only(terraform, environment)
                return 0
            credential = open_credential()
            with Arm(credential) as arm:
                Deploy(terraform, credential, arm, os.environ).run()
    except (DeployError, TerraformError, ArmError, DeploymentError, ImageError, PackageError, TollkeeperError) as error:
        sys.stderr.write(f"{action}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{action}: interrupted; run it again\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
