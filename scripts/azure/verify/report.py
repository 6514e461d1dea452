"""What a run says: a line per point for people, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from scripts.azure.verify.disturb import DISTURBANCES
from scripts.azure.verify.points import points
from scripts.azure.verify.probe import Result


def as_text(results: Sequence[Result], cost: str) -> str:
    """A line per point, and the sum of them."""
    title = max(len(_title(each)) for each in results)
    lines = [f"{_title(each):<{title}} | {each.verdict.word:<12} | {each.verdict.seen}" for each in results]
    words = Counter(each.verdict.word for each in results)
    counted = ", ".join(f"{words[word]} {word}" for word in ("as assumed", "differs", "not measured") if words[word])
    return "\n".join([*lines, "", f"{len(results)} points: {counted}. Cost: {cost}"])


def as_json(results: Sequence[Result], cost: str) -> str:
    """The same for programs."""
    shown = [
        {
            "point": each.point.id,
            "title": each.point.title,
            "assumption": each.point.assumption,
            "verdict": each.verdict.word,
            "seen": each.verdict.seen,
        }
        for each in results
    ]
    return json.dumps({"points": shown, "cost": cost}, indent=2, ensure_ascii=False)


def listing() -> str:
    """What is measured, without measuring it."""
    changes = {each.point.id: each.changes for each in DISTURBANCES}
    lines = []
    for point in points():
        changed = f" [--disturb changes {changes[point.id]}]" if point.id in changes else ""
        lines.append(f"{point.id:>2} {point.title}: {point.assumption}{changed}")
    return "\n".join(lines)


def exit_code(results: Sequence[Result]) -> int:
    """1 when something differs."""
    return int(any(each.verdict.word == "differs" for each in results))


def _title(result: Result) -> str:
    return f"{result.point.id:>2} {result.point.title}"
