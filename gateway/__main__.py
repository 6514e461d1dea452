"""`python -m gateway`: serve on GATEWAY_PORT (8080), on loopback in development."""

from __future__ import annotations

import sys

import uvicorn

from gateway.app import build_app
from gateway.connections import BoundedProtocol, allow_descriptors
from shared.bootstrap import gateway as services_of_gateway
from shared.errors import ConfigInvalid
from shared.settings import Settings
from shared.telemetry import log_to_stderr


def main() -> None:
    """Serve until stopped."""
    try:
        settings = Settings.for_gateway()
    except ConfigInvalid as error:
        sys.exit(str(error))
    log_to_stderr()
    allow_descriptors()
    host = "127.0.0.1" if settings.environment == "development" else "0.0.0.0"  # noqa: S104 - a container's only door
    gateway = build_app(services_of_gateway, name=settings.gateway_name)
    uvicorn.run(
        gateway,
        host=host,
        port=settings.gateway_port,
        http=BoundedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nothing here asks for a client's address
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
    )


if __name__ == "__main__":
    main()
