"""Signing in to Azure Managed Redis: the user is an identity's object id, the password a token of Entra ID.

Azure closes a connection whose token has ended, so every connection signs in again with the next token in time. It does
so just before it sends a command, while one caller owns it and no reply is outstanding. redis-py's own way, a listener
that signs in from the side, can hand one caller the reply that was meant for another: docs/adr/016.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.credential import claims_of, open_credential
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

log = logging.getLogger("tollkeeper.budgets")

_SCOPE = "https://redis.azure.com/.default"
_PATIENCE_SECONDS = 30.0  # for one request, the identity SDK's own retries included
_LEAST_WAIT_SECONDS = 1.0  # between requests while a token is valid


class Login(NamedTuple):
    """User and password for Redis, and when the password ends (seconds since 1970)."""

    user: str
    token: str
    ends_at: float


class Logins:
    """The login in force. One request for the next serves all callers of the process; it starts at half of what is left
    of the present token, and as long as that is valid nobody waits for it.
    """

    def __init__(self, request: Callable[[], Awaitable[AccessToken]]) -> None:
        self._request = request
        self._login: Login | None = None
        self._ask_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def current(self) -> Login:
        """The login to use now; the same object until there is a newer one.

        Raises redis.ConnectionError, which callers take as Redis being away, when there is none and none can be had.
        """
        login = self._valid()
        if login is not None and time.time() < self._ask_at:
            return login
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        if login is None:
            await asyncio.shield(self._asking)  # whoever gives up must not take the token away from the others
            login = self._valid()
        if login is None:
            from redis.exceptions import ConnectionError as RedisConnectionError

            raise RedisConnectionError("no token to sign in to Redis with") from self._failure
        return login

    def _valid(self) -> Login | None:
        return self._login if self._login is not None and time.time() < self._login.ends_at else None

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                token = await self._request()
            if self._login is None or token.token != self._login.token:
                self._login = Login(_object_id(token.token), token.token, token.expires_on)
        except Exception as error:  # noqa: BLE001 - whatever the SDK trips over, a check must end in its fail mode
            self._failure = error
            first_line = f"{type(error).__name__} {error}".partition("\n")[0]
            log.warning("redis_token_unavailable", extra={"error": first_line})
        if (login := self._valid()) is not None:
            now = time.time()
            self._ask_at = now + max(_LEAST_WAIT_SECONDS, (login.ends_at - now) / 2)


def entra_logins(settings: Settings) -> Logins:
    """Logins of this process's identity. Nothing is requested before the first connection needs it."""

    async def request() -> AccessToken:
        async with open_credential(settings) as credential:
            return await credential.get_token(_SCOPE)

    return Logins(request)


def signing_in(connection_class: Any, logins: Logins, host: str | None) -> Any:
    """The connection class, signing in with the login in force: when it connects, and again when that has changed.

    It connects to `host` alone. The nodes of Azure's clusters share the address of that name and differ by port, but
    what they announce is the address, for which their certificate does not speak.
    """
    from redis.exceptions import RedisError

    class EntraConnection(connection_class):  # type: ignore[misc]  # the base is known only at run time
        """Not for subscriptions: what they read is outstanding all the time."""

        _login: Login | None = None  # as whom the server knows this connection; None while that is being told

        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "host": host})

        async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
            if self.is_connected:
                return
            self._login = None
            login = await logins.current()  # before the socket opens: nobody may give up on it half signed in
            self.username, self.password = login.user, login.token
            await super().connect_check_health(*args, **kwargs)
            self._login = login

        async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
            if self._login is not None and self.is_connected and (login := await logins.current()) is not self._login:
                await self._sign_in_again(login)
            await super().send_packed_command(command, check_health)

        async def _sign_in_again(self, login: Login) -> None:
            self._login = None
            try:
                await self.send_command("AUTH", login.user, login.token, check_health=False)
                await self.read_response()
                self._login = login
            except RedisError:  # the server had closed it already, say; no command is lost, so it is opened anew
                await self.disconnect(nowait=True)

    return EntraConnection


def _object_id(token: str) -> str:
    """The claim `oid`, which names the user. The token is not verified: Redis does that. Raises ValueError."""
    try:
        return str(claims_of(token)["oid"])
    except (KeyError, ValueError) as error:
        raise ValueError("the token names no object id (claim oid)") from error
