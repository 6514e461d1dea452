"""Reads the files of a statement back, by another library than wrote them where there is one."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from decimal import Decimal, localcontext
from html import unescape

from shared.reports.charge import Charge
from shared.reports.formats import FORMATS
from shared.reports.statement import Statement


def written(name: str, statement: Statement, charges: Iterable[Charge]) -> bytes:
    """The bytes of one form."""
    out = io.BytesIO()
    FORMATS[name].write(statement, iter(charges), out)
    return out.getvalue()


def csv_rows(body: bytes) -> list[dict[str, str]]:
    """The rows of a CSV file, by column; a mark in front of the text is read over."""
    return list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))


def parquet_rows(body: bytes) -> list[dict[str, object]]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as pq

    rows: list[dict[str, object]] = pq.read_table(io.BytesIO(body)).to_pylist()
    return rows


def sheet_rows(body: bytes, sheet: str) -> list[list[object]]:
    """The cells of a sheet below its header."""
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(body), read_only=True)
    return [list(row) for row in book[sheet].iter_rows(min_row=2, values_only=True)]


def sheet_total(body: bytes, sheet: str, column: int) -> Decimal:
    """The sum of a column; a spreadsheet's number is the shortest decimal that its double stands for."""
    return exact_sum(repr(row[column]) for row in sheet_rows(body, sheet) if row[column] is not None)


def exact_sum(amounts: Iterable[str]) -> Decimal:
    """The sum of decimal texts; empty ones are unknown amounts."""
    with localcontext(prec=80):
        return sum((Decimal(amount) for amount in amounts if amount), Decimal(0))


def amounts_due(statement: Statement, charges: list[Charge]) -> dict[str, Decimal]:
    """What every form says is due, read from its rows rather than from its own total."""
    body = {name: written(name, statement, charges) for name in FORMATS}
    due = {
        f"{name} {column}": exact_sum(row[column] for row in csv_rows(body[name]))
        for name in ("focus", "focus-1.2")
        for column in ("BilledCost", "EffectiveCost")
    }
    for name in ("parquet", "parquet-1.2"):
        due[name] = exact_sum(str(row["BilledCost"]) for row in parquet_rows(body[name]))
    document = json.loads(body["json"])
    due["json"] = Decimal(document["amount_due"])
    due["json teams"] = exact_sum(team["amount_due"] for team in document["team_totals"])
    parts = [line["amount"] for part in ("lines", "corrections", "allocated") for line in document[part]]
    due["json lines"] = exact_sum(parts)
    due["journal"] = exact_sum(row["total"] for row in csv_rows(body["csv"]))
    due["xlsx teams"] = sheet_total(body["xlsx"], "By team", 6)
    due["xlsx lines"] = sheet_total(body["xlsx"], "Lines", 18)
    [summary] = [row[1] for row in sheet_rows(body["xlsx"], "Summary") if row[0] == "Amount due, exact"]
    due["xlsx summary"] = Decimal(str(summary))
    [shown] = re.findall(r"exactly ([0-9.-]+)<", unescape(body["html"].decode()))
    due["html"] = Decimal(shown)
    return due
