"""`python -m local` (`make run`): start every part, play the tour, serve until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

from rich.console import Console

from local.options import Options, read_config, read_options
from local.process import PartMissingError, ProcessFailedError
from local.stack import Stack, without_proxy
from local.welcome import print_examples, print_keys
from shared.config.model import Config
from shared.errors import ConfigInvalid

POLL_SECONDS = 0.2
COLUMNS_WITHOUT_TERMINAL = 110
EXIT_FAILED, EXIT_CONFIG = 1, 2


class Stopped(BaseException):
    """Ctrl-C or SIGTERM: not an Exception, so that no handler on the way mistakes it for a failure."""


def main() -> int:
    """The exit code: 0 when stopped or done, 1 when a part or the tour failed, 2 for a configuration with errors."""
    # Into a file or a pipe rich assumes 80 columns, and would cut the table.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else COLUMNS_WITHOUT_TERMINAL)
    started = time.monotonic()
    try:
        options = read_options(os.environ)
        config = read_config(options)
    except ConfigInvalid as error:
        console.print("[bold red]The configuration has errors; nothing was started.[/]")
        console.print(error.message, markup=False, soft_wrap=True)
        return EXIT_CONFIG
    without_proxy(os.environ)  # the tour calls loopback too
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {line}", soft_wrap=True)

    stack = Stack(options, config, report)
    try:
        return _run(stack, console, options, config)
    except (PartMissingError, ProcessFailedError) as error:
        console.print(f"[bold red]{type(error).__name__}[/]", end=" ")
        console.print(str(error), markup=False, soft_wrap=True)
        return EXIT_FAILED
    except Stopped:
        return 0
    finally:
        # A second Ctrl-C while stopping would leave the rest running.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
        console.print("[dim]everything stopped[/]")


def _run(stack: Stack, console: Console, options: Options, config: Config) -> int:
    stack.start()
    print_keys(console, config)
    exit_code = _tour(stack, console, options, config) if options.tour else 0
    if options.once or exit_code:
        return exit_code
    print_examples(console, options, config)
    while True:
        _require_alive(stack)
        time.sleep(POLL_SECONDS)


def _tour(stack: Stack, console: Console, options: Options, config: Config) -> int:
    """Play the tour on a thread of its own, so that a part that dies is noticed even while a call waits."""
    from local.tour import Tour

    outcome: list[int | BaseException] = []

    def play() -> None:
        try:
            outcome.append(Tour(console, options, config).play())
        except BaseException as error:  # noqa: BLE001 - handed to the main thread below
            outcome.append(error)

    thread = threading.Thread(target=play, name="tour", daemon=True)
    thread.start()
    while thread.is_alive():
        _require_alive(stack)
        thread.join(POLL_SECONDS)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _require_alive(stack: Stack) -> None:
    if (dead := stack.dead()) is not None:
        raise ProcessFailedError(
            f"{dead.name} ended with code {dead.exit_code}; its log {dead.log_path}:\n{dead.log_tail()}"
        )


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
