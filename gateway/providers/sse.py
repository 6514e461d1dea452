"""Server-sent events out of a body that comes in pieces, cut anywhere."""

from __future__ import annotations

import re

# A blank line ends an event; the standard allows three line endings and some backends mix them.
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n")
_MOST_HELD_BYTES = 1024 * 1024  # no model sends such an event


class EventTooLarge(Exception):
    """An event that never ends: holding it would cost memory without bound."""


class EventReader:
    """Gives back the data of each event once it is complete. Names and ids of events are left out."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes. Raises EventTooLarge."""
        searched = max(0, len(self._held) - 3)  # an ending may be cut in two
        self._held += piece
        found: list[bytes] = []
        start = 0
        while (end := _EVENT_END.search(self._held, max(searched, start))) is not None:
            if (data := _data(self._held[start : end.start()])) is not None:
                found.append(data)
            start = end.end()
        self._held = self._held[start:]
        if len(self._held) > _MOST_HELD_BYTES:
            self._held = b""
            raise EventTooLarge
        return found

    def rest(self) -> list[bytes]:
        """The data of an event that the body's end cut short of its blank line."""
        rest, self._held = self._held, b""
        data = _data(rest)
        return [] if data is None else [data]


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
