"""Azurite: Table Storage and Blob Storage on loopback, an npm package run on Node.js."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

from local.npm import find_node, install
from local.process import LOOPBACK, Process, ProcessFailedError, is_listening

_PACKAGE_DIRECTORY = Path(__file__).parent / "azurite"
_PROGRAM = _PACKAGE_DIRECTORY / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"

# Azurite's account is the same on every machine and published by Microsoft; it protects nothing.
ACCOUNT_NAME = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


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
    install(_PACKAGE_DIRECTORY, node, "Azurite from npm (once, about 30 seconds, 190 MB)", report=report)
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


def _announced_ports(log_path: Path, start: int) -> dict[str, int]:
    """Ports Azurite says it listens on, by service: the only way to learn them when it picked them."""
    with log_path.open("rb") as log:
        log.seek(start)
        text = log.read().decode(errors="replace")
    found = re.findall(r"Azurite (Blob|Table) service is successfully listening at https?://[^:]+:(\d+)", text)
    return {service.lower(): int(port) for service, port in found}
