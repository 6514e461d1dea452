"""Who the scripts are: the pipeline's own identity, else whoever is signed in to the Azure CLI.

A pipeline's identity is asked for afresh with each token. `az login` in a pipeline keeps the first proof, which is good
for some minutes, while API Management alone may take an hour.
"""

from __future__ import annotations

import os

import httpx
from azure.core.credentials import TokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import AzureCliCredential, AzurePipelinesCredential, ClientAssertionCredential

_AUDIENCE = "api://AzureADTokenExchange"


def open_credential() -> TokenCredential:
    """The variables are those that Terraform's providers read, so both are always the same identity."""
    env = os.environ
    if "ACTIONS_ID_TOKEN_REQUEST_URL" in env and "ARM_CLIENT_ID" in env:
        return ClientAssertionCredential(env["ARM_TENANT_ID"], env["ARM_CLIENT_ID"], _github_proof)
    if "SYSTEM_OIDCREQUESTURI" in env and "ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID" in env:
        return AzurePipelinesCredential(
            tenant_id=env["ARM_TENANT_ID"],
            client_id=env["ARM_CLIENT_ID"],
            service_connection_id=env["ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID"],
            system_access_token=env["SYSTEM_ACCESSTOKEN"],
        )
    return AzureCliCredential()


def _github_proof() -> str:
    """What GitHub says of this run; Entra ID trusts it for the repository and environment of a federated credential."""
    address = httpx.URL(os.environ["ACTIONS_ID_TOKEN_REQUEST_URL"]).copy_merge_params({"audience": _AUDIENCE})
    headers = {"Authorization": f"Bearer {os.environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"}
    try:
        answer = httpx.get(address, headers=headers, timeout=30).raise_for_status()
    except httpx.HTTPError as error:
        raise ClientAuthenticationError(f"GitHub gives no proof of this run: {error}") from error
    return str(answer.json()["value"])
