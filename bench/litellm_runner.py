"""LiteLLM as a contender: a process of its own in its own virtualenv, on the same Redis, asked round by round."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast

from bench.common import Load, redis_cpu_seconds

VERSION = "1.106.2"
_HOME = Path(__file__).parent.parent / ".local" / "litellm"
PYTHON = _HOME / "bin" / "python"
_CYCLE = Path(__file__).parent / "litellm_cycle.py"
_SCOPES = 4


class LiteLlm:
    """The running process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    def start(cls, redis_port: int) -> LiteLlm | None:
        """Start it and check that a call really reserves on four scopes; None when it is not installed."""
        if not PYTHON.exists():
            return None
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # no download of a price list
        command = [str(PYTHON), str(_CYCLE), "127.0.0.1", str(redis_port)]
        pipe = subprocess.PIPE
        litellm = cls(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))
        scopes = litellm._answer()["scopes"]
        if scopes != _SCOPES:
            raise SystemExit(f"LiteLLM reserved on {scopes} scopes instead of {_SCOPES}")
        return litellm

    async def drive(self, cycles: int, callers: int, redis: Any) -> Load:
        """One round."""
        redis_before = await redis_cpu_seconds(redis)
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(f"{cycles} {callers}\n")
        stdin.flush()
        taken = await asyncio.to_thread(self._answer)
        redis_cpu = await redis_cpu_seconds(redis) - redis_before
        return Load(cycles, taken["seconds"], taken["cpu"], redis_cpu, taken["latencies_us"])

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            raise SystemExit("LiteLLM ended; its messages are above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def install() -> None:
    """Make the virtualenv, unless it holds this version already."""
    stamp = _HOME / f".litellm-{VERSION}"
    if stamp.exists():
        return
    print(f"Installing LiteLLM {VERSION} into {_HOME.relative_to(_HOME.parent.parent)} (once; some minutes)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_HOME)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"litellm[proxy]=={VERSION}"]
    subprocess.run(pip, check=True)
    stamp.touch()


if __name__ == "__main__":
    install()
