"""Debian's Chromium, driven by Playwright: one browser per test module, a context of its own per person."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
MISSING = f"{CHROMIUM} is missing: apt-get install chromium"
_FLAGS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",  # the browser's own questions to its makers
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser; skips, naming the package, where it is not installed."""
    if not CHROMIUM.exists():
        pytest.skip(MISSING)
    with tempfile.TemporaryDirectory() as downloads, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(_FLAGS), downloads_path=downloads, chromium_sandbox=False
        )
        yield browser
        browser.close()
