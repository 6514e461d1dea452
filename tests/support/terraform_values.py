"""What Terraform makes of an expression over files that need no provider."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.infra import terraform_environment


def evaluate(expression: str, folder: Path) -> Any:
    """The value of an expression in the module of `folder`. Skips the calling test where there is no terraform."""
    done = subprocess.run(
        ["terraform", "console"],
        cwd=folder,
        env=terraform_environment(),
        input=f"jsonencode({expression})",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(json.loads(done.stdout))
