"""The credential for Azure services that are reached without a connection string."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
