"""A message for a Microsoft Teams Workflows webhook: an Adaptive Card in the envelope that its trigger expects. Pure.

Names stand in the runs of RichTextBlocks, the only texts of a card in which Teams reads no Markdown.
"""

from __future__ import annotations

from typing import Any

from shared.notify.message import Message

CARD_VERSION = "1.4"  # Teams' own clients know 1.5; 1.4 is what all of them, phones included, show alike
CONTENT_TYPE = "application/vnd.microsoft.card.adaptive"
_COLOUR = {"info": "accent", "warning": "warning", "critical": "attention"}


def teams_payload(message: Message) -> dict[str, Any]:
    """The JSON body: type `message` with the card as its only attachment."""
    title = {"type": "TextRun", "text": message.title, "weight": "bolder", "size": "large"}
    body: list[dict[str, Any]] = [_block({**title, "color": _COLOUR[message.severity]})]
    for label, value in message.facts:
        body.append(_block({"type": "TextRun", "text": f"{label}: ", "weight": "bolder"}, _run(value), spacing="small"))
    body.append(_block(_run(message.advice), spacing="medium"))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": CARD_VERSION,
        "msteams": {"width": "Full"},
        "body": body,
    }
    if message.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the dashboard", "url": message.link}]
    return {"type": "message", "attachments": [{"contentType": CONTENT_TYPE, "contentUrl": None, "content": card}]}


def _run(text: str) -> dict[str, Any]:
    return {"type": "TextRun", "text": text}


def _block(*runs: dict[str, Any], spacing: str = "default") -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs), "spacing": spacing}
