"""`tollkeeper prices`: what the configuration, or another price book, changes against list prices."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import AsJson
from cli.output import as_json, say, table
from cli.run import EXIT_CHANGES, run
from shared.bootstrap import Services
from shared.config.model import Config
from shared.config.publish import checked
from shared.errors import ConfigInvalid, InvalidRequest
from shared.pricing.book import PriceBook
from shared.pricing.compare import PriceDifference, price_differences, without_overrides

app = typer.Typer(no_args_is_help=True, help="Compare prices.")

_PICO_PER_USD_MILLION = 1_000_000


@app.callback()
def prices() -> None:
    """Compare prices."""


@app.command()
def diff(
    book: Annotated[
        Path | None, typer.Option(help="Another price book: a folder of catalogues, or one of them (*.json).")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Configuration files; those in force when absent.")] = None,
    at: Annotated[str | None, typer.Option(help="A date such as 2026-12-01; now when absent.")] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 when prices differ.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show where the configured models' prices differ: list against overrides and discounts, or, with --book, the book
    in use against another one under the same configuration."""
    at_utc = _instant(at)
    used = checked(config) if config else run(_in_force)
    own = PriceBook.load()
    before, after = (own, without_overrides(used)), (own, used)
    if book is not None:
        before, after = after, (_book(book), used)
    found = price_differences(before, after, at_utc)
    if json:
        body = {"at": at_utc, "unit": "USD per million tokens", "differences": [_body(each) for each in found]}
        as_json(body)
    elif found:
        headings = ("list", "contract") if book is None else ("this book", "that book")
        columns = {"tenant": False, "model": False, "tokens": False, **dict.fromkeys(headings, True), "change": True}
        table("USD per million tokens", columns, [_cells(each) for each in found])
    else:
        say("No differences.")
    if detailed_exitcode and found:
        raise typer.Exit(EXIT_CHANGES)


async def _in_force(services: Services) -> Config:
    return services.config.current


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"--at: expected a date such as 2026-12-01, got {text!r}", param="at") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _book(path: Path) -> PriceBook:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigInvalid(f"--book: {path} holds no catalogue (*.json)")
    try:
        return PriceBook.load(files)
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"--book: {path}: {error}") from None


def _cells(each: PriceDifference) -> list[object]:
    change = None
    if each.before_pico and each.after_pico is not None:
        change = f"{Decimal(each.after_pico - each.before_pico) * 100 / each.before_pico:+.1f} %"
    return [each.tenant, each.model, each.kind, _usd(each.before_pico), _usd(each.after_pico), change]


def _body(each: PriceDifference) -> dict[str, Any]:
    return {
        "tenant": each.tenant,
        "provider": each.provider,
        "model": each.model,
        "kind": each.kind,
        "before": _usd(each.before_pico),
        "after": _usd(each.after_pico),
        "before_source": each.before_source or None,
        "after_source": each.after_source or None,
    }


def _usd(pico: int | None) -> str | None:
    """USD per million tokens."""
    return None if pico is None else f"{Decimal(pico) / _PICO_PER_USD_MILLION:f}"
