"""The channels: what a route's destination is sent, and where its address and secret come from."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from hashlib import blake2b

import msgspec

from shared.config.model import AlertRoute
from shared.notify.mail import addresses, communication_services_body, mail
from shared.notify.message import compose
from shared.notify.notice import Notice
from shared.notify.post import DeliveryFailed, post
from shared.notify.routes import destination
from shared.notify.slack import slack_payload
from shared.notify.smtp import send_mail
from shared.notify.teams import teams_payload
from shared.notify.webhook import signed_headers, webhook_body
from shared.settings import Settings

_EMAILS_SEND = "/emails:send?api-version=2023-03-31"
_TAKEN_BEFORE = 409  # an operation id that the service knows: the first attempt arrived although its answer did not

TokenFor = Callable[[], Awaitable[str]]


class Channels:
    """Sends a notice to one route. `mail_token` gives a token for Azure Communication Services."""

    def __init__(self, settings: Settings, mail_token: TokenFor) -> None:
        self._settings = settings
        self._mail_token = mail_token
        self._development = settings.environment == "development"

    async def send(self, route: AlertRoute, notice: Notice) -> None:
        """One attempt. Raises DeliveryFailed with a reason that may be stored and logged."""
        target = self._setting(route.target)
        message = compose(notice, self._settings.public_url)
        if route.channel == "email":
            await self._mail(route, notice, target)
        elif route.channel == "slack":
            await self._post(target, msgspec.json.encode(slack_payload(message)))
        elif route.channel == "teams":
            await self._post(target, msgspec.json.encode(teams_payload(message)))
        else:
            body = webhook_body(notice, message)
            try:
                headers = signed_headers(self._setting(route.secret or ""), message.id, int(time.time()), body)
            except ValueError as error:
                raise DeliveryFailed(f"{route.secret}: {error}") from None
            await self._post(target, body, headers)

    def _setting(self, name: str) -> str:
        value = self._settings.alert_targets.get(name)
        if value is None:
            raise DeliveryFailed(f"the app setting {name} is not set, or its Key Vault reference is not resolved")
        return value

    async def _post(self, url: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        await post(url, body, headers or {}, allow_http=self._development)

    async def _mail(self, route: AlertRoute, notice: Notice, target: str) -> None:
        settings = self._settings
        try:
            to = addresses(target)
        except ValueError as error:
            raise DeliveryFailed(f"{route.target}: {error}") from None
        if settings.mail_from is None:
            raise DeliveryFailed("the app setting MAIL_FROM is not set")
        message = compose(notice, settings.public_url)
        name = f"{notice.digest}.{blake2b(destination(route).encode(), digest_size=4).hexdigest()}"
        if settings.communication_endpoint:
            body = msgspec.json.encode(communication_services_body(message, settings.mail_from, to))
            headers = {
                "Authorization": f"Bearer {await self._mail_token()}",
                "Operation-Id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:tollkeeper:{name}")),
            }
            url = settings.communication_endpoint + _EMAILS_SEND
            await post(url, body, headers, allow_http=self._development, accepted=(_TAKEN_BEFORE,))
        elif settings.smtp_url:
            await send_mail(
                settings.smtp_url, mail(message, settings.mail_from, to, name), allow_plain=self._development
            )
        else:
            raise DeliveryFailed("neither COMMUNICATION_ENDPOINT nor SMTP_URL is set")
