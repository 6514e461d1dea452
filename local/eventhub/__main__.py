"""Run the server as a process: `python -m local.eventhub --hubs usage:4,other:2 --port 5672`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from functools import partial

from local.eventhub.broker import Broker
from local.eventhub.embedded import connection_string
from local.eventhub.server import Server


def main() -> None:
    """Serve until SIGINT or SIGTERM. The first line printed is the connection string."""
    parser = argparse.ArgumentParser(prog="python -m local.eventhub", description=__doc__)
    parser.add_argument("--hubs", type=_hubs, default=_hubs("usage:4,llm-logs:2"), help="name:partitions,...")
    parser.add_argument("--port", type=int, default=5672, help="0 picks a free port")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.hubs, options.port))


async def _serve(hubs: dict[str, int], port: int) -> None:
    server = Server(Broker(hubs))
    bound = await server.start(port)
    print(connection_string(bound), flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, partial(stopped.set))
    await stopped.wait()
    await server.close()


def _hubs(text: str) -> dict[str, int]:
    """`usage:4,other:2` as partition counts by hub name."""
    hubs: dict[str, int] = {}
    for part in text.split(","):
        name, separator, count = part.partition(":")
        if not name or not separator or not count.isdigit() or int(count) < 1:
            raise argparse.ArgumentTypeError(f"{part!r} is not name:partitions")
        hubs[name] = int(count)
    return hubs


if __name__ == "__main__":
    main()
