"""What Terraform makes of an expression over files that need no provider."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def evaluate(expression: str, folder: Path) -> Any:
    """The value of an expression in the module of `folder`. Skips the calling test where there is no terraform."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not on the PATH")
    done = subprocess.run(
        ["terraform", "console"],
        cwd=folder,
        input=f"jsonencode({expression})",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(json.loads(done.stdout))
