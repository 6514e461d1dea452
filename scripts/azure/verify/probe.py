"""What is measured: a point that the design assumes, and the verdict over what was seen of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from scripts.azure.verify.seen import Seen

Word = Literal["as assumed", "differs", "not measured"]
Source = Literal["events", "log", "ledger", "documents", "settings"]


class Verdict(NamedTuple):
    """The word, and what was seen: never a text of a prompt or an answer, for it ends in the log of a pipeline."""

    word: Word
    seen: str


def as_assumed(seen: str) -> Verdict:
    """It is as the design takes it to be."""
    return Verdict("as assumed", seen)


def differs(seen: str) -> Verdict:
    """It is not: something rests on a wrong assumption."""
    return Verdict("differs", seen)


def not_measured(why: str) -> Verdict:
    """Nothing was learned."""
    return Verdict("not measured", why)


@dataclass(frozen=True)
class Point:
    """Its id: a number of apim-policies/README.md, or a letter for what only the hubs and the ledger show."""

    id: str
    title: str
    assumption: str


@dataclass(frozen=True)
class Probe:
    """A point that ordinary calls show."""

    point: Point
    judge: Callable[[Seen], Verdict]
    calls: tuple[str, ...] = ()  # names of calls.py
    reads: tuple[Source, ...] = ()


class Result(NamedTuple):
    """A point with its verdict."""

    point: Point
    verdict: Verdict
