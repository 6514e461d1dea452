"""Tokens of the gateway's own identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.credential import open_credential
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

LOCAL_TOKEN = "local-managed-identity"

MintToken = Callable[[str, str | None], str]  # resource and client id of the identity -> token


def local_token(resource: str, client_id: str | None) -> str:
    """What the parts of the laptop take: any."""
    return LOCAL_TOKEN


class Tokens:
    """Local tokens; with `on_azure`, for services on Azure those of whoever is signed in on this machine."""

    def __init__(self, mint: MintToken, *, on_azure: bool) -> None:
        self._mint = mint
        self._on_azure = on_azure
        self._credential: AsyncTokenCredential | None = None

    async def token(self, resource: str, client_id: str | None) -> str:
        """Raises RuntimeError when there is none."""
        if not self._on_azure or not resource.startswith("https://"):
            return self._mint(resource, client_id)
        from azure.core.exceptions import AzureError

        if self._credential is None:
            self._credential = open_credential(Settings(environment="development"))
        try:
            return (await self._credential.get_token(f"{resource}/.default")).token
        except AzureError as error:
            raise RuntimeError(type(error).__name__) from error

    async def close(self) -> None:
        """Close the credential's connections."""
        if self._credential is not None:
            await self._credential.close()
