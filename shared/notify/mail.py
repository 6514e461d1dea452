"""A message as an e-mail: text and HTML side by side, for SMTP and for Azure Communication Services. Pure."""

from __future__ import annotations

import re
from email.message import EmailMessage
from email.policy import SMTP
from html import escape
from typing import Any

from shared.notify.message import Message, clean

_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_BORDER = {"info": "#2563eb", "warning": "#d97706", "critical": "#dc2626"}


def addresses(text: str) -> list[str]:
    """The addresses of a list separated by commas. Raises ValueError naming the position, not the address."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for number, each in enumerate(found, start=1):
        if not _ADDRESS.fullmatch(each):
            raise ValueError(f"address {number} is not of the form name@example.com")
    if not found:
        raise ValueError("there is no address")
    return found


def subject(message: Message) -> str:
    """One line, whatever the title holds: a line break in it could add headers."""
    return clean(f"[Tollkeeper] {message.title}", 180)


def mail(message: Message, sender: str, to: list[str], message_id: str) -> EmailMessage:
    """The e-mail. `message_id` is the same for every attempt, so that mail programs show a repeated one once."""
    email = EmailMessage(policy=SMTP)
    email["Subject"] = subject(message)
    email["From"] = sender
    email["To"] = ", ".join(to)
    email["Message-ID"] = f"<{message_id}@tollkeeper.invalid>"
    email["Auto-Submitted"] = "auto-generated"
    email.set_content(message.text)
    email.add_alternative(html(message), subtype="html")
    return email


def communication_services_body(message: Message, sender: str, to: list[str]) -> dict[str, Any]:
    """The same for `POST /emails:send` of Azure Communication Services."""
    return {
        "senderAddress": sender,
        "recipients": {"to": [{"address": each} for each in to]},
        "content": {"subject": subject(message), "plainText": message.text, "html": html(message)},
        "headers": {"Auto-Submitted": "auto-generated"},
        "userEngagementTrackingDisabled": True,
    }


def html(message: Message) -> str:
    """A small page without anything that loads from elsewhere."""
    rows = "".join(
        f'<tr><th style="text-align:left;padding:2px 16px 2px 0">{escape(label)}</th>'
        f'<td style="padding:2px 0"><bdi>{escape(value)}</bdi></td></tr>'
        for label, value in message.facts
    )
    link = f'<p><a href="{escape(message.link)}">Open the dashboard</a></p>' if message.link else ""
    return (
        '<!doctype html><html lang="en"><body style="font-family:sans-serif">'
        f'<div style="border-left:4px solid {_BORDER[message.severity]};padding-left:12px">'
        f'<h1 style="font-size:18px">{escape(message.title)}</h1><table>{rows}</table>'
        f"<p>{escape(message.advice)}</p>{link}</div></body></html>"
    )
