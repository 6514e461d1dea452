"""The statement as JSON and as CSV. Both take every figure from the one model, so their sums cannot differ."""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from typing import Any

import msgspec

from shared.errors import InvalidRequest
from shared.instants import rfc3339
from shared.reports.chargeback import Line, Statement, Usage
from shared.usage.tokens import PRICED_KINDS

TOKEN_KINDS = (*PRICED_KINDS, "reasoning")
_COLUMNS = (
    *("period", "status", "tenant", "team", "cost_centre", "app", "provider", "model", "requests"),
    *(f"{kind}_tokens" for kind in TOKEN_KINDS),
    *("cost", "currency", "estimated_cost", "unpriced_requests"),
    *("measured_cost", "missing_cost", "measured_share", "estimated_share", "missing_share"),
)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class Rendering(msgspec.Struct, frozen=True):
    """One file of a statement."""

    body: bytes
    media_type: str
    extension: str


def require_format(wanted: str) -> str:
    """The name of a format that can be rendered. Raises InvalidRequest `unsupported_format`, naming those available."""
    if wanted not in _RENDERERS:
        message = f"format: {wanted[:20]!r} is not available; expected {' or '.join(_RENDERERS)}"
        raise InvalidRequest(message, code="unsupported_format", param="format")
    return wanted


def render(statement: Statement, wanted: str) -> Rendering:
    """The statement in a format that `require_format` accepts."""
    renderer, media_type = _RENDERERS[require_format(wanted)]
    return Rendering(renderer(statement), media_type, wanted)


def render_json(statement: Statement) -> bytes:
    """The statement as a JSON document; equal statements give equal bytes."""
    document: dict[str, Any] = {
        "tenant": statement.tenant,
        "period": statement.period,
        "status": statement.status,
        "as_of": rfc3339(statement.as_of_utc, "seconds"),
        "currency": statement.currency,
        "teams": statement.teams,
        "totals": _figures(statement.totals),
        "team_totals": [
            {"team": total.team, "cost_centre": total.cost_centre, **_figures(total.usage)}
            for total in statement.team_totals
        ],
        "lines": [{**_place(line), **_figures(line.usage)} for line in statement.lines],
    }
    return msgspec.json.encode(document)


def render_csv(statement: Statement) -> bytes:
    """The lines as CSV with a header: UTF-8, LF, one row per line, amounts as plain decimals."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for line in statement.lines:
        usage, coverage = line.usage, line.usage.coverage.body()
        names = (statement.tenant, line.team, line.cost_centre, line.app, line.provider, line.model)
        writer.writerow(
            (
                statement.period,
                statement.status,
                *map(_text_cell, names),
                usage.requests,
                *(usage.tokens.get(kind, 0) for kind in TOKEN_KINDS),
                usage.cost or "",
                statement.currency,
                coverage["estimated_cost"],
                usage.unpriced_requests,
                *(coverage[column] for column in _COLUMNS[-5:]),
            )
        )
    return out.getvalue().encode()


def _place(line: Line) -> dict[str, str]:
    return {
        "team": line.team,
        "cost_centre": line.cost_centre,
        "app": line.app,
        "provider": line.provider,
        "model": line.model,
    }


def _figures(usage: Usage) -> dict[str, Any]:
    return {
        "requests": usage.requests,
        "tokens": {kind: usage.tokens[kind] for kind in sorted(usage.tokens) if usage.tokens[kind]},
        "cost": usage.cost,
        **usage.coverage.body(),
        "unpriced_requests": usage.unpriced_requests,
    }


def _text_cell(text: str) -> str:
    """A name that a spreadsheet shows instead of running: whoever names an app must not be able to run a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


_RENDERERS: dict[str, tuple[Callable[[Statement], bytes], str]] = {
    "json": (render_json, "application/json"),
    "csv": (render_csv, "text/csv"),
}
FORMATS = tuple(_RENDERERS)
