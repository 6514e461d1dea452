"""From a notice to a message that every channel can show: title, figures, advice, link. Pure.

Whatever stands in a notice may have been chosen by somebody hostile, so it is cleaned here once, and each channel
puts it only where nothing is interpreted, or escapes it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from shared.notify.kinds import Severity, kind_of
from shared.notify.notice import Notice

MAX_VALUE_CHARS = 300
MAX_TITLE_CHARS = 150  # a Slack header takes no more
MAX_LIST_ITEMS = 10
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, direction marks and joiners, halves of pairs, line separators
_HIDDEN = frozenset({"tenant", "drift_nano_usd", "method"})  # shown by the message itself, or of no use to a reader
_USD = frozenset({"spent", "limit", "expected", "above", "drift", "cost"})
_AMOUNT = re.compile(r"-?[0-9]+\.[0-9]{2,9}")


class Message(NamedTuple):
    """What a channel shows. Every text is cleaned, none is escaped."""

    id: str  # the same for every attempt at every route
    kind: str
    severity: Severity
    title: str
    tenant: str  # empty for what concerns the whole installation
    facts: tuple[tuple[str, str], ...]
    advice: str
    link: str  # empty without a public address
    added_at: str

    @property
    def text(self) -> str:
        """The message in plain lines."""
        lines = [self.title, "", *(f"{label}: {value}" for label, value in self.facts), "", self.advice]
        return "\n".join([*lines, *([self.link] if self.link else [])])


def compose(notice: Notice, public_url: str | None) -> Message:
    """The message of a notice; `public_url` is where people open the function app."""
    kind = kind_of(notice.kind)
    tenant = clean(notice.payload.get("tenant", ""))
    facts = [("Tenant", tenant)] if tenant else []
    facts += [(_label(name), clean(value)) for name, value in _flat(notice.payload) if name not in _HIDDEN]
    return Message(
        id=notice.digest,
        kind=notice.kind,
        severity=kind.severity,
        title=clean(kind.title(notice.payload), MAX_TITLE_CHARS),
        tenant=tenant,
        facts=tuple((label, value) for label, value in facts if value),
        advice=kind.advice,
        link=_link(public_url, kind.page, notice) if public_url else "",
        added_at=notice.added_at,
    )


def _link(public_url: str, page: str, notice: Notice) -> str:
    """The dashboard's page about it."""
    if page == "budgets" and notice.payload.get("budget"):
        page = f"budgets/{quote(str(notice.payload['budget']), safe='')}"
    return f"{public_url}/api/v1/dashboard#/{page}" + (f"?tenant={quote(notice.tenant)}" if notice.tenant else "")


def clean(value: object, most: int = MAX_VALUE_CHARS) -> str:
    """One visible line: no control or direction character, no line break, not endless. Letters of all scripts stay."""
    shown = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in str(value))
    shown = " ".join(shown.split())
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _flat(payload: Any) -> Iterator[tuple[str, str]]:
    """The payload's figures in its order; a list of small mappings becomes one fact with a line of figures each."""
    for name, value in payload.items():
        if value is None or value == "":
            continue
        if isinstance(value, dict):
            yield name, ", ".join(f"{key} {part}" for key, part in list(value.items())[:MAX_LIST_ITEMS])
        elif isinstance(value, list | tuple):
            yield name, "; ".join(_item(part) for part in value[:MAX_LIST_ITEMS])
        else:
            text = str(value)
            yield name, f"{text} USD" if name in _USD and _AMOUNT.fullmatch(text) else text


def _item(part: Any) -> str:
    return " ".join(str(value) for value in part.values()) if isinstance(part, dict) else str(part)


def _label(name: str) -> str:
    """`spent_last_week` as people write it: `Spent last week`."""
    words = clean(name, 60).replace("_", " ")
    return words[:1].upper() + words[1:]
