"""The credential for Azure services that are reached without a connection string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.settings import Settings

if TYPE_CHECKING:
    from azure.identity.aio import DefaultAzureCredential


def open_credential(settings: Settings) -> DefaultAzureCredential:
    """The managed identity on Azure; on a laptop whoever is signed in to the Azure CLI. The caller closes it."""
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential(managed_identity_client_id=settings.managed_identity_client_id)
