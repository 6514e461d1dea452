"""`python -m local.apim`: the policies of apim-policies/ as a gateway on GATEWAY_PORT."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from local.apim.errors import PolicyError
from local.apim.expressions import MonoMissingError
from local.apim.runner import Runner
from local.apim.settings import options_from_env
from shared.telemetry import log_to_stderr


def main() -> int:
    """The exit code: 0 when stopped, 1 when the policies cannot run."""
    log_to_stderr()
    try:
        runner = Runner(options_from_env(os.environ))
    except (MonoMissingError, PolicyError) as error:
        print(error, file=sys.stderr)
        return 1
    return asyncio.run(serve(runner, int(os.environ.get("GATEWAY_PORT", "8080"))))


async def serve(runner: Runner, port: int) -> int:
    """Serve until told to stop (0) or until no expression can be evaluated any more (1)."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    async with runner.serve(port):
        # After the server has put up its own handlers: ours must be the ones that count.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        print(f"API Management policies on {runner.url}", flush=True)
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait((stopping, runner.gateway.lost), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if runner.gateway.lost.done():
        print(f"no expression can be evaluated any more: {runner.gateway.lost.result()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
