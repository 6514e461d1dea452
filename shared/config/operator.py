"""Who runs a command: the name that the history of the configuration keeps."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

from shared.credential import claims_of, open_credential

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

    from shared.settings import Settings

_STORAGE = "https://storage.azure.com/.default"
_NAMES = ("upn", "unique_name", "preferred_username", "app_displayname", "oid", "appid")


async def operator_name(settings: Settings) -> str:
    """Who is signed in to Azure where that decides; else this machine's user."""
    in_azure = settings.tables_endpoint is not None or settings.config_location.startswith("https://")
    if settings.storage_connection or not in_azure:
        return machine_user()
    credential = open_credential(settings)
    try:
        return await name_of_token(credential)
    finally:
        await credential.close()


async def name_of_token(credential: AsyncTokenCredential) -> str:
    """The person or app whose token this is. Raises the sign-in's own error."""
    token = await credential.get_token(_STORAGE)
    try:
        claims = claims_of(token.token)
    except ValueError:  # no token of Entra ID: an emulator's
        return machine_user()
    return next((str(claims[name]) for name in _NAMES if claims.get(name)), "unknown")


def machine_user() -> str:
    """The name of the user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "unknown"
