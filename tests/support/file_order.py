"""The order in which pytest-xdist hands out the test files, with `--dist loadfile --no-loadscope-reorder`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]

# Few tests that take long. By the number of their tests, xdist's own order, they would come last, and one worker would
# be busy with them for a minute or two after the other has run out of files.
_LONG = (
    "integration/drills/test_exactly_once.py",
    "integration/delivery/test_package.py",
    "e2e/test_verify.py",
    "e2e/test_apim_canary.py",
    "integration/drills/test_stream_drill.py",
    "integration/drills/test_flush.py",
    "integration/test_worker_runtime.py",
    "e2e/test_gateway_shutdown.py",
    "e2e/test_gateway_canary.py",
    "integration/drills/test_hub_drills.py",
    "e2e/test_gateway_crowd.py",
    "integration/ledger/test_any_bill.py",
)


def pytest_configure() -> None:
    """Refuse to run while a file is named that is not there: it was renamed, and is handed out last again."""
    if missing := [name for name in _LONG if not (_TESTS / name).is_file()]:
        raise pytest.UsageError(f"{__file__}: no such test file: {', '.join(missing)}")


@pytest.hookimpl(trylast=True)  # pytest's own grouping of parameters would mix the files again
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a worker of xdist: the long files first, then the others, those with the most tests first."""
    if not hasattr(config, "workerinput"):
        return
    long = {_TESTS / name for name in _LONG}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in long, -tests[item.path]))
