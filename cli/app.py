"""The command `tollkeeper`: budgets from git, statements, and the care of the ledger, for operators and pipelines.

Every command calls the same service as its HTTP door. docs/cli.md tells about sign-in, addresses and exit codes.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import budgets, close, names, prices, reconcile, record, replay, report, run, spend

app = typer.Typer(
    name="tollkeeper",
    help="Budgets, statements and the ledger of Tollkeeper. Exit codes and sign-in: docs/cli.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(budgets.app, name="budgets")
app.add_typer(prices.app, name="prices")
app.add_typer(names.app, name="names")
app.command("report")(report.report)
app.command("spend")(spend.spend)
app.command("replay")(replay.replay)
app.command("close")(close.close)
app.command("reconcile")(reconcile.reconcile)
app.command("export")(record.export)
app.command("restore")(record.restore)
app.command("re-rate")(record.re_rate)


@app.callback()
def common(
    env_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TOLLKEEPER_ENV_FILE",
            help="NAME=value lines that say where the stores are, such as the file that `make run` names.",
        ),
    ] = None,
) -> None:
    """What holds for every command."""
    run.env_file = env_file


def main() -> None:
    """The entry point. Log records below errors are for who runs the app: without their fields they are bare words."""
    logging.basicConfig(level=logging.ERROR, format="tollkeeper: %(message)s")
    sys.exit(run.guarded(lambda: app(standalone_mode=False, prog_name="tollkeeper"), as_json="--json" in sys.argv))


if __name__ == "__main__":
    main()
