"""A message as a hub delivers it."""

from __future__ import annotations

from typing import NamedTuple

from shared.ledger.row import Position


class Delivery(NamedTuple):
    """One event as the hub delivered it."""

    body: bytes
    position: Position
