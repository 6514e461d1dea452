"""The printable statement: one self-contained page, small enough to mail, of one or two A4 sheets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from shared.money import decimal_from_nano
from shared.reports.charge import Charge
from shared.reports.names import shortened
from shared.reports.page import page
from shared.reports.statement import Statement

_TEMPLATES = Path(__file__).parent / "templates"


def write_html(statement: Statement, charges: Iterator[Charge], out: BinaryIO) -> None:
    """The page. Its size does not grow with the number of teams or models: small ones are summed up as others."""
    out.write(_template().render(page(statement)).encode())


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["nano"] = decimal_from_nano
    environment.filters["shorten"] = shortened
    return environment.get_template("statement.html")
