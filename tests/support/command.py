"""The command `tollkeeper` in a test: what it says, and a configuration for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cli.app import app
from cli.run import guarded

FILES = {
    "tenants.yaml": "tenants: [{id: default}, {id: acme, client_asserted_scopes: [session]}]",
    "budgets.yaml": """
budgets:
  - {id: every/team, scope: "team:*", period: month, limit: 100.00, timezone: UTC}
  - {id: persons, scope: "user:*", period: day, limit: 20, timezone: UTC}
""",
    "teams/search.yaml": "{team: search, tenant: acme, cost_centre: CC-1}",
    "models.yaml": "models: [{id: big, capabilities: [chat]}, {id: fresh, capabilities: [chat]}]",
    # One token of `big` costs 1 micro-USD in and 2 out.
    "prices.yaml": """
prices:
  - {model: big, effective_from: 2020-01-01, usd_per_million: {input: 1.00, output: 2.00}}
""",
}
CALL_NANO_USD = 3_000 * 1_000 + 1_000 * 2_000  # 3,000 input tokens at 1 micro-USD and 1,000 output tokens at 2


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


class Command:
    """Runs `tollkeeper` in this process, as its entry point does."""

    def __init__(self, capfd: pytest.CaptureFixture[str], env_file: Path | None) -> None:
        self._capfd = capfd
        self.env_file = env_file

    def __call__(self, *arguments: str) -> Ended:
        before = [] if self.env_file is None else ["--env-file", str(self.env_file)]
        self._capfd.readouterr()
        code = guarded(
            lambda: app([*before, *arguments], standalone_mode=False, prog_name="tollkeeper"),
            as_json="--json" in arguments,
        )
        return Ended(code, *self._capfd.readouterr())


def write_files(directory: Path, files: dict[str, str]) -> Path:
    """The configuration files in the directory, and no others."""
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory
