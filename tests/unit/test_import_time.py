"""A cold start pays for azure.functions and the Redis client, and for little else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
RUNS = 7
MAX_RATIO = 1.2
BASELINE = "import azure.functions, redis"
APP = "import function_app"
HEAVY = (
    "azure.core",
    "azure.data",
    "azure.eventhub",
    "azure.identity",
    "azure.monitor",
    "azure.storage",
    "httpx",
    "jinja2",
    "openai",
    "opentelemetry",
    "pyarrow",
    "starlette",
    "uamqp",
    "xlsxwriter",
    "yaml",
)


def run(code: str) -> str:
    """Standard output of a fresh interpreter in development mode, which needs no other variable."""
    env = {**os.environ, "TOLLKEEPER_ENV": "development", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


def cpu_seconds(statement: str) -> float:
    """CPU time that the import takes. Not wall time: other work on the machine must not decide the test."""
    return float(run(f"import time\nstart = time.process_time()\n{statement}\nprint(time.process_time() - start)"))


def test_importing_the_app_costs_little_more_than_its_two_foundations() -> None:
    """Medians of interleaved runs, so that a change of the machine's pace meets both alike."""
    run(f"{APP}\n{BASELINE}")  # compiles what was never imported before
    pairs = [(cpu_seconds(BASELINE), cpu_seconds(APP)) for _ in range(RUNS)]
    baseline, app = median(b for b, _ in pairs), median(a for _, a in pairs)
    assert app <= MAX_RATIO * baseline, f"importing the app takes {app / baseline:.2f} x its foundations"


def test_heavy_packages_stay_out_until_they_are_needed() -> None:
    """None of these may load before a request needs it: together they would multiply the cold start."""
    loaded = set(run("import sys, function_app\nprint('\\n'.join(sys.modules))").split())
    assert not [name for name in HEAVY if name in loaded]


def test_redis_with_a_password_does_not_load_the_identity_sdk() -> None:
    """It takes as long to import as the Redis client itself; only tokens of Entra ID are worth that."""
    code = """
import sys
from shared.budgets.connect import open_redis
from shared.settings import Settings
open_redis(Settings(redis_url="rediss://:password@cache.example:10000"))
open_redis(Settings(redis_url="rediss://cache.example:10000", redis_entra_id=True))  # before it connects
print("\\n".join(sys.modules))
"""
    assert not [name for name in run(code).split() if name.startswith(("azure", "msal"))]
