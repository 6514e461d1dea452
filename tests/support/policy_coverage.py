"""The coverage of the policies over all test files and workers, as one figure at the end of the run.

A run that executed every file of policy tests must have executed every element, every expression and both outcomes of
every condition; if not, it fails and names what is missing. A part of the tests shows its figure and fails nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.apim.coverage import Coverage, Report, merge

TESTS = "tests/integration/apim"
_DIRECTORY = "TOLLKEEPER_POLICY_COVERAGE"


def keep(coverage: Coverage) -> None:
    """Add what one gateway executed."""
    if (directory := os.environ.get(_DIRECTORY)) is not None:
        coverage.write(Path(directory) / f"{uuid.uuid4().hex}.json")


def pytest_configure(config: pytest.Config) -> None:
    """The controller makes the directory; workers inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="policy-coverage-")


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Fail a complete run that left a place out."""
    yield
    if hasattr(session.config, "workerinput") or exitstatus != pytest.ExitCode.OK:
        return
    coverage = merge(sorted(Path(os.environ[_DIRECTORY]).glob("*.json")))
    if _is_complete(session.config) and (not coverage.places or coverage.report().missing):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The figure, and what is missing."""
    files = sorted(Path(os.environ[_DIRECTORY]).glob("*.json"))
    if not files:
        return
    coverage = merge(files)
    report = coverage.report()
    terminalreporter.write_sep("=", _figure(coverage, report))
    for place in report.missing if _is_complete(config) else ():
        terminalreporter.write_line(f"not covered: {place}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_DIRECTORY), ignore_errors=True)


def _figure(coverage: Coverage, report: Report) -> str:
    """`policy coverage: N nodes, M expressions, K conditions: 100 %`."""
    kinds = Counter(_kind(shown) for shown in coverage.places.values())
    counted = f"{kinds['node']} nodes, {kinds['expression']} expressions, {kinds['outcome']} outcomes of conditions"
    return f"policy coverage: {counted}: {report.percent:g} %"


def _kind(shown: str) -> str:
    if shown.endswith("was never evaluated"):
        return "expression"
    return "node" if shown.endswith("was never executed") else "outcome"


def _is_complete(config: pytest.Config) -> bool:
    """Whether every file of policy tests ran whole and passed."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if (
        config.option.keyword
        or config.option.markexpr
        or getattr(config.option, "lf", False)
        or any("::" in a for a in config.args)
    ):
        return False
    passed = {report.nodeid.partition("::")[0] for report in reporter.stats.get("passed", [])}
    return {f"{TESTS}/{path.name}" for path in (config.rootpath / TESTS).glob("test_policy_*.py")} <= passed
