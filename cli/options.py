"""Options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON on standard output.")]
Tenant = Annotated[str, typer.Option("--tenant", help="The billing organisation.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
Why = Annotated[str, typer.Option("--why", help="The reason that the record keeps.")]
