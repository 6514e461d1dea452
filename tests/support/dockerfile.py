"""A Dockerfile read as far as tests need it: its stages, what each instruction says, and what reaches the builder."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One stage: its base image, its name, and its instructions in order as (name, text)."""

    base: str
    name: str = ""
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.instructions if name == instruction]

    def one(self, instruction: str) -> str:
        [text] = self.all(instruction)
        return text

    def command(self, instruction: str) -> list[str]:
        """The words of an instruction in exec form, without what stands before the list; ValueError for shell form."""
        text = self.one(instruction)
        words: list[str] = json.loads(text[text.index("[") :])
        return words

    @property
    def environment(self) -> dict[str, str]:
        """What ENV says."""
        pairs = (pair.split("=", 1) for text in self.all("ENV") for pair in shlex.split(text))
        return dict(pairs)

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """COPY from the context: sources and target."""
        found = [shlex.split(text) for text in self.all("COPY") if not text.startswith("--from")]
        return [(words[:-1], words[-1]) for words in found]


def read_dockerfile(path: Path = ROOT / "Dockerfile") -> list[Stage]:
    """Its stages."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append(Stage(base, alias))
        elif name:
            stages[-1].instructions.append((name, rest.strip()))
    return stages


def context_files(root: Path = ROOT) -> set[str]:
    """Paths below `root` that .dockerignore lets through: those of the last pattern that fits, as Docker has it."""
    rules = [
        (line.lstrip("!"), line.startswith("!"))
        for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    tops = {pattern for pattern, kept in rules if kept}
    assert not any("*" in top for top in tops), "only names are let in, so nothing else needs to be looked at"
    found = set()
    for top in tops:
        files = [root / top] if (root / top).is_file() else [f for f in (root / top).rglob("*") if f.is_file()]
        found |= {path for file in files if _is_kept(path := file.relative_to(root).as_posix(), rules)}
    return found


def _is_kept(path: str, rules: list[tuple[str, bool]]) -> bool:
    kept = True
    parents = [path, *map(str, PurePosixPath(path).parents)]
    for pattern, keeps in rules:
        regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(regex, one) for one in parents):
            kept = keeps
    return kept
