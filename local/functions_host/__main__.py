"""Run an app on loopback: `python -m local.functions_host [--app function_app.py] [--port 7071]`."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import threading
from pathlib import Path
from types import FrameType

import uvicorn

from local.functions_host.functions import AppError
from local.functions_host.host import Host
from shared.telemetry import log_to_stderr

DEFAULT_PORT = 7071
_PROJECT = Path(__file__).parents[2]
_SHUTDOWN_SECONDS = 10


def main() -> None:
    """Serve until SIGINT or SIGTERM; exits with 1 and one line when the app cannot be hosted."""
    parser = argparse.ArgumentParser(prog="python -m local.functions_host", description=__doc__)
    parser.add_argument("--app", type=Path, default=_PROJECT / "function_app.py")
    parser.add_argument("--port", type=int, default=int(os.environ.get("FUNCTIONS_PORT", DEFAULT_PORT)))
    parser.add_argument("--host", type=_loopback, default="127.0.0.1", help="an address of this machine's loopback")
    options = parser.parse_args()
    log_to_stderr()
    try:
        app = Host(options.app)
    except (AppError, ValueError) as error:
        sys.exit(f"cannot host {options.app.name}: {error}")
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    _Server(config).run()


class _Server(uvicorn.Server):
    """Ends for certain: the checkpoint store goes on asking a storage that died first, deaf to being cancelled, and
    would keep the port from the next run for a minute and a half."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, and end the process when that takes too long."""
        last_resort = threading.Timer(_SHUTDOWN_SECONDS + 2, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        super().handle_exit(sig, frame)


def _loopback(address: str) -> str:
    """The address, unless others could reach it: this host checks no keys and believes the principal header."""
    is_loopback = address == "localhost" or (_is_ip(address) and ipaddress.ip_address(address).is_loopback)
    if not is_loopback:
        raise argparse.ArgumentTypeError(f"{address} is not loopback; this host has no authentication in front of it")
    return address


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
