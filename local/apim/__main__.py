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


def main() -> int:
    """The exit code: 0 when stopped, 1 when the policies cannot run."""
    try:
        runner = Runner(options_from_env(os.environ))
    except (MonoMissingError, PolicyError) as error:
        print(error, file=sys.stderr)
        return 1
    asyncio.run(_serve(runner, int(os.environ.get("GATEWAY_PORT", "8080"))))
    return 0


async def _serve(runner: Runner, port: int) -> None:
    stopped = asyncio.Event()
    async with runner.serve(port):
        # After the server has put up its own handlers: ours must be the ones that count.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        print(f"API Management policies on {runner.url}", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
