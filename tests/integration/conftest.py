"""Parts that several files of integration tests talk to."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from local.process import Process, free_port, is_listening


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    """The base URL of a simulated model of the module's own."""
    port = free_port()
    process = Process("model", [sys.executable, "-m", "local.model", "--port", str(port)])
    process.wait_until(lambda: is_listening(port))
    yield f"http://127.0.0.1:{port}"
    process.stop()
