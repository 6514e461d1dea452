"""Every point that is measured, in the order in which it is shown."""

from __future__ import annotations

from scripts.azure.verify import points_calls, points_log, points_saved, points_settings
from scripts.azure.verify.disturb import DISTURBANCES
from scripts.azure.verify.probe import Point

PROBES = (*points_saved.PROBES, *points_calls.PROBES, *points_log.PROBES, *points_settings.PROBES)


def place(point: Point) -> tuple[bool, int, str]:
    """Numbers before letters."""
    return not point.id.isdigit(), int(point.id) if point.id.isdigit() else 0, point.id


def points() -> list[Point]:
    """All points, each once: 20 is both a probe and a disturbance."""
    found = {point.id: point for point in [*(each.point for each in PROBES), *(each.point for each in DISTURBANCES)]}
    return sorted(found.values(), key=place)
