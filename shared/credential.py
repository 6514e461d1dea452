"""The credential for Azure services that are reached without a connection string."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


def open_credential(settings: Settings) -> AsyncTokenCredential:
    """The managed identity (or a workload identity) in production; on a laptop whoever is signed in to Azure's tools.

    Production does not search: a chain that does not reach the managed identity for a moment would start developers'
    tools in its place, one after the other, or take up another identity. The caller closes it.
    """
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

    if settings.environment == "production":
        return ManagedIdentityCredential(client_id=settings.managed_identity_client_id)
    return DefaultAzureCredential(managed_identity_client_id=settings.managed_identity_client_id)


def claims_of(token: str) -> dict[str, Any]:
    """What a token of Entra ID says of its holder. It is not verified here: that is for the service it is sent to.

    Raises ValueError when it is no token with claims.
    """
    payload = "".join(token.split(".")[1:2])
    return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=dict[str, Any])
