"""One line of a report on a subscription or a deployment."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """What was found; what is not `ok` says what to do."""

    state: Literal["ok", "warn", "FAIL"]
    what: str

    def __str__(self) -> str:
        return f"{self.state:<4}  {self.what}"


def report(findings: Iterable[Finding]) -> bool:
    """Print each as it comes; whether none failed."""
    is_good = True
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
        is_good = is_good and finding.state != "FAIL"
    return is_good
