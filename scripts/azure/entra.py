"""Register an environment's apps in Entra ID, and give the app roles: the root infra/entra.

    make entra ENV=dev

Run it before the first deployment; after it, for API Management, whose new identity gets Budget.Check, and for the
dashboard, which people are taken back to when they sign in; and whenever infra/entra/environments/dev.tfvars changes.
The first run writes that file, which makes the caller Chargeback.Admin.
What the infrastructure must know is kept in infra/terraform/environments/dev.entra.json.

YES=1   apply without asking; YES=<digest>: only the plan with that digest
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from azure.core.credentials import TokenCredential
from azure.core.exceptions import ClientAuthenticationError

from scripts.azure.arm import PUBLIC_CLOUD
from scripts.azure.credential import open_credential
from scripts.azure.deploy import DeployError, approve, say
from scripts.azure.terraform import ENTRA, INFRA, Registrations, Terraform, TerraformError
from shared.credential import claims_of

_VALUES = """\
# The registrations of {environment} in Entra ID, and who has which app role: object ids of people, groups and service
# principals, none of them secret. `make entra` adds the gateway's Budget.Check.

environment = "{environment}"
tenant_id   = "{tid}"
principals = {{
  "Chargeback.Admin" = ["{oid}"]
}}
"""


# Variables of infra/entra, and the outputs of infra/terraform that fill them once there is a deployment.
OF_INFRASTRUCTURE = {
    "gateway_principal_id": "GATEWAY_PRINCIPAL_ID",
    "functions_principal_id": "FUNCTIONS_PRINCIPAL_ID",
    "functions_url": "FUNCTIONS_URL",
}


class EntraError(Exception):
    """The registrations cannot be made. The message says why."""


class Caller(msgspec.Struct, frozen=True):
    """Who is signed in, and to which directory."""

    oid: str
    tid: str


def read_caller(credential: TokenCredential) -> Caller:
    """From the token for Azure, because asking Microsoft Graph takes rights of its own. Azure verifies it, not we."""
    try:
        token = credential.get_token(f"{PUBLIC_CLOUD}/.default").token
    except ClientAuthenticationError as error:
        raise EntraError(f"not signed in: {error.message}") from error
    try:
        return msgspec.convert(claims_of(token), Caller)
    except ValueError as error:  # msgspec.ValidationError is a ValueError
        raise EntraError("the token for Azure does not say who is signed in (claims oid, tid)") from error


def write_values(environment: str, credential: TokenCredential, root: Path = ENTRA) -> None:
    """The values of an environment that has none, with the caller as its administrator."""
    file = root / "environments" / f"{environment}.tfvars"
    if file.is_file():
        return
    caller = msgspec.to_builtins(read_caller(credential))
    file.parent.mkdir(exist_ok=True)
    file.write_text(_VALUES.format(environment=environment, **caller))
    say(f"{os.path.relpath(file)} is new: it makes you, {caller['oid']}, Chargeback.Admin")


def entra(
    environment: str, credential: TokenCredential, options: Mapping[str, str], infra: Path = INFRA, root: Path = ENTRA
) -> None:
    """Make the registrations as the values say, and keep what the infrastructure must know of them."""
    say("terraform init")
    with Terraform(environment, infra) as infrastructure:
        outputs = infrastructure.outputs()
    deployed = {name: outputs[output] for name, output in OF_INFRASTRUCTURE.items() if outputs.get(output)}
    write_values(environment, credential, root)
    with Terraform(environment, root, deployed or None) as terraform:
        say("plan")
        approve(terraform.plan(), options.get("YES", ""))
        say("apply")
        terraform.apply()
        keep(infrastructure.registrations_file, terraform.outputs())
    say(f"{os.path.relpath(infrastructure.registrations_file)} has the client ids: commit it")
    if not deployed:
        again = f"after make deploy run make entra ENV={environment} again"
        say(f"nothing is deployed yet: {again}, for API Management's role and for signing in to the dashboard")


def keep(file: Path, outputs: Mapping[str, Any]) -> None:
    """Write what infra/entra gave out where Terraform() looks for it."""
    try:
        kept = msgspec.convert(outputs, Registrations)
    except msgspec.ValidationError as error:
        raise EntraError(f"the outputs of infra/entra are not as expected: {error}") from error
    file.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")


def main(arguments: list[str]) -> int:
    """0 when the directory is as this checkout says."""
    if len(arguments) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        entra(arguments[0], open_credential(), os.environ)
    except (EntraError, DeployError, TerraformError) as error:
        sys.stderr.write(f"entra: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("entra: interrupted; run it again\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
