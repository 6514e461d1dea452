"""Fetch a package's wheel and read one file out of it. Nothing of the package is installed or run."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def download_wheel(package: str, folder: Path) -> Path:
    """Download the wheel of `package` (a name, or `name==version`) without its dependencies.

    Raises RuntimeError with pip's own words when that fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed command, run by hand
    wheels = sorted(folder.glob(f"{package.split('==')[0].replace('-', '_')}-*.whl"))
    if result.returncode != 0 or not wheels:
        raise RuntimeError(f"pip could not download {package}: {result.stderr.strip()}")
    return wheels[-1]


def wheel_version(wheel: Path) -> str:
    """The version a wheel's file name states."""
    return wheel.name.split("-")[1]


def read_from_wheel(wheel: Path, name: str) -> str:
    """The text of one file inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode("utf-8")
