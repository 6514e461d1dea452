"""What an invoice meter is called, and what that means: model, token kind, where it is served, processing tier. Pure.

Azure's meter names are short forms that drift: `gpt-4o-0806-Inp-glbl Tokens`, `gpt 4.1 mini cached Inp regnl Tokens`,
`5.4 mini cd Inp Gl 1M Tokens`, `5.6 sol ShortCo Cd Wr Std Gl 1M Tokens`. Every word must be known, as a part of a
model's name or as one of the marks below; a name that leaves a doubt is no match, because a near miss compares one
price with another. billing.yaml then says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from shared.config.reconciliation import MeterRule

_WORD = re.compile(r"[a-z0-9.]+")
_DATE = re.compile(r"\d{4}|\d{6}|\d{8}")  # 0806, 240806, 20240806: a model's version
_INPUT = frozenset({"in", "inp", "inpt", "input", "prompt"})
_OUTPUT = frozenset({"out", "outp", "outpt", "opt", "output", "completion"})
_CACHED = frozenset({"cached", "cache", "cchd", "ccchd", "cd"})
_WRITE = frozenset({"wr", "write", "writes"})
_AUDIO = frozenset({"aud", "audio"})
_PLACES = {
    **dict.fromkeys(("gl", "glbl", "global"), "global"),
    **dict.fromkeys(("dz", "dzn", "dzone", "datazone"), "data-zone"),
    **dict.fromkeys(("regnl", "regional", "rg", "rgnl"), "regional"),
}
_TIERS = {"batch": "batch", "pp": "priority", "priority": "priority", "flex": "flex", "std": "standard"}
_SILENT = frozenset({"tokens", "token", "1m", "1k", "shortco", "longco", "sc", "lc"})
_PTU = re.compile(r"provisioned managed .*\bunit\b|\bptu\b", re.IGNORECASE)
_EMBEDDING = "embedding"


class MeterKey(NamedTuple):
    """What both sides are compared by. Long and short context are one: the ledger's prices already tell them apart."""

    model: str
    kind: str
    place: str  # global, data-zone, regional
    tier: str  # standard, batch, flex, priority

    @property
    def label(self) -> str:
        """`gpt-4o input global`, with the tier where it is not the standard one."""
        tier = "" if self.tier == "standard" else f" {self.tier}"
        return f"{self.model} {self.kind} {self.place}{tier}"


class Meters:
    """Names of invoice meters, mapped by the models of one configuration and its overrides."""

    def __init__(self, models: Iterable[str], rules: Mapping[str, MeterRule]) -> None:
        """`models`: ids of configured models. A name that two of them claim, but for their dates, matches neither."""
        self._rules = rules
        whole, undated = {}, dict[str, set[str]]()
        for model in models:
            name, bare = spellings(model)
            whole[name] = model
            undated.setdefault(bare, set()).add(model)
        self._models = {name: next(iter(ids)) for name, ids in undated.items() if len(ids) == 1} | whole
        self._known: dict[str, MeterKey | None] = {}

    def model(self, name: str) -> str:
        """The configured model that a served model's name means, a version's date left aside; else the name itself."""
        return next((self._models[each] for each in spellings(name) if each in self._models), name)

    def ignores(self, meter: str) -> bool:
        """Whether billing.yaml says that the meter is not to be compared."""
        rule = self._rules.get(meter.lower())
        return rule is not None and rule.ignore

    def key(self, meter: str) -> MeterKey | None:
        """What a meter is; None when its name does not tell for certain."""
        if meter not in self._known:
            rule = self._rules.get(meter.lower())
            ruled = rule is not None and not rule.ignore
            self._known[meter] = (
                MeterKey(rule.model, rule.kind, rule.deployment_type, rule.tier)  # type: ignore[union-attr]
                if ruled
                else self._read(meter)
            )
        return self._known[meter]

    def _read(self, meter: str) -> MeterKey | None:
        words = _WORD.findall(meter.lower().replace("data zone", "dzone"))
        place, tier, marks, names = "", "standard", set[str](), []
        for word in words:
            if word in _PLACES:
                if place not in ("", _PLACES[word]):
                    return None
                place = _PLACES[word]
            elif word in _TIERS:
                tier = _TIERS[word] if tier == "standard" else tier
            elif word in _INPUT | _OUTPUT | _CACHED | _WRITE | _AUDIO:
                marks.add(word)
            elif word not in _SILENT:
                names.append(word)
        model = self._model(names)
        kind = _kind(marks, is_embedding=_EMBEDDING in names)
        if model is None or kind is None or not place:
            return None
        return MeterKey(model, kind, place, tier)

    def _model(self, names: list[str]) -> str | None:
        undated = [name for name in names if not _DATE.fullmatch(name)]
        for words in (names, undated):
            for name in (" ".join(words), " ".join(["gpt", *words])):
                if name in self._models:
                    return self._models[name]
        return None


def spellings(model: str) -> tuple[str, str]:
    """How a model's id is spelled in meters: its words, and the same without the date of its version."""
    bare = re.sub(r"-(?:20\d\d-\d\d-\d\d|\d{4})$", "", model.lower())
    return " ".join(_WORD.findall(model.lower())), " ".join(_WORD.findall(bare))


def is_provisioned(meter: str) -> bool:
    """Whether a meter bills throughput by the hour rather than tokens."""
    return _PTU.search(meter) is not None


def _kind(marks: set[str], *, is_embedding: bool) -> str | None:
    """The ledger's token kind; None where the marks contradict each other or say nothing."""
    into, out = bool(marks & _INPUT), bool(marks & _OUTPUT)
    if marks & _CACHED:
        if out:
            return None
        return "cache_write" if marks & _WRITE else "cached_input"
    if marks & _WRITE or into == out:
        return "input" if is_embedding and not marks else None
    direction = "input" if into else "output"
    return f"{direction}_audio" if marks & _AUDIO else direction
