"""A message for a Slack incoming webhook. Pure.

Names stand in plain_text objects, where Slack interprets nothing: no mention, no link, no formatting. The one text
with markup holds our own words only; the fallback text, which Slack does interpret, is escaped as Slack asks.
"""

from __future__ import annotations

from typing import Any

from shared.notify.message import Message

FIELDS_PER_SECTION = 10  # more and Slack refuses the whole message
_SIGN = {"info": "🔵", "warning": "🟠", "critical": "🔴"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def slack_payload(message: Message) -> dict[str, Any]:
    """The JSON body: blocks, and the fallback text that notifications and screen readers show."""
    title = f"{_SIGN[message.severity]} {message.title}"
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(title[:150])}]
    fields = [_plain(f"{label}\n{value}") for label, value in message.facts]
    blocks += [
        {"type": "section", "fields": fields[start : start + FIELDS_PER_SECTION]}
        for start in range(0, len(fields), FIELDS_PER_SECTION)
    ]
    blocks.append({"type": "section", "text": _plain(message.advice)})
    if message.link:
        link = {"type": "mrkdwn", "text": f"<{escaped(message.link)}|Open the dashboard>", "verbatim": True}
        blocks.append({"type": "context", "elements": [link]})
    return {"text": escaped(message.text), "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def escaped(text: str) -> str:
    """Without the three characters that start markup in Slack, so that no name can mention or link."""
    return text.translate(_ESCAPES)


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}
