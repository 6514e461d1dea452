"""Sending an e-mail by SMTP: over TLS from the start (smtps://) or after STARTTLS (smtp://), never without."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from shared.notify.message import clean
from shared.notify.post import DeliveryFailed

TIMEOUT_SECONDS = 10.0

log = logging.getLogger("tollkeeper.notify")


async def send_mail(server_url: str, email: EmailMessage, *, allow_plain: bool) -> None:
    """Hand the e-mail to the server `smtp[s]://user:password@host:port`. Raises DeliveryFailed.

    `allow_plain` (development) goes on without TLS where the server offers none.
    """
    try:
        refused = await asyncio.to_thread(_send, server_url, email, allow_plain)
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        raise DeliveryFailed(f"SMTP: every recipient was refused ({', '.join(map(str, codes))})") from None
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        raise DeliveryFailed(clean(f"SMTP {error.smtp_code} {said}", 200), outage=error.smtp_code < 500) from None
    except (smtplib.SMTPException, OSError) as error:
        raise DeliveryFailed(f"SMTP: the connection failed ({type(error).__name__})", outage=True) from None
    if refused:  # sending again would repeat it to those who have it
        log.warning("mail_recipients_refused", extra={"refused": len(refused)})


def _send(server_url: str, email: EmailMessage, allow_plain: bool) -> dict[str, tuple[int, bytes]]:
    """Runs on a thread: smtplib waits."""
    url = urlsplit(server_url)
    host, context = url.hostname or "", ssl.create_default_context()
    server: smtplib.SMTP
    if url.scheme == "smtps":
        server = smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, url.port or 587, timeout=TIMEOUT_SECONDS)
    with server:
        if url.scheme == "smtp":
            server.ehlo()
            if server.has_extn("starttls") or not allow_plain:
                server.starttls(context=context)
                server.ehlo()
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        return server.send_message(email)
