"""The printable statement in a real browser: how many sheets, and nothing lost between them."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from shared.reports.statement import Statement
from tests.support.read_files import written
from tests.support.statements import HOSTILE_NAMES, every_charge, renamed, statement_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
A4 = (595, 842)  # points

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


def big() -> Statement:
    """60 teams that each use every kind of charge; none of their tables may grow with them."""
    return statement_of([charge for n in range(60) for charge in every_charge(f"team-{n:02d}")], status="draft")[0]


def hostile() -> Statement:
    """Names that are long, steer displays or look like markup, in every column."""
    charges = [c for name in HOSTILE_NAMES for c in renamed(every_charge(name), app=name, model=name, provider=name)]
    return statement_of(charges, status="provisional", notes=tuple(HOSTILE_NAMES))[0]


@pytest.mark.parametrize(
    "make", [lambda: statement_of(every_charge())[0], big, hostile], ids=["small", "big", "hostile"]
)
def test_it_prints_to_one_or_two_a4_sheets(tmp_path: Path, make: object) -> None:
    """Whatever the tenant, it fits two sheets of A4."""
    page, printed = tmp_path / "statement.html", tmp_path / "statement.pdf"
    page.write_bytes(written("html", make(), []))  # type: ignore[operator]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={printed}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pdf = printed.read_bytes()
    text = pdf + b"".join(map(_inflated, re.findall(rb"stream\r?\n(.*?)endstream", pdf, flags=re.DOTALL)))
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", text)) in (1, 2)
    sizes = {
        tuple(map(round, map(float, box))) for box in re.findall(rb"/MediaBox\s*\[0 0 ([0-9.]+) ([0-9.]+)\]", text)
    }
    assert sizes == {A4}


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:  # an image or a font
        return b""
