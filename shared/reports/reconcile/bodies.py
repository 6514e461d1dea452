"""What is published of a comparison of invoice and ledger, as JSON and as a table. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.instants import rfc3339
from shared.money import decimal_from_nano, nano_from_decimal
from shared.reports.names import cell_text
from shared.reports.reconcile.exports import Chosen
from shared.reports.reconcile.invoice import nano_from_atto
from shared.reports.reconcile.sides import InvoiceSide, LedgerSide, Listed
from shared.reports.reconcile.variance import Opening, Variance

_COLUMNS = ("account", "meter", "day", "invoice", "ledger", "variance")


def month_body(
    period: str,
    now_utc: datetime,
    chosen: Chosen,
    problems: list[str],
    invoice: InvoiceSide,
    ledger: LedgerSide,
    variances: list[Variance],
    *,
    final: bool,
) -> dict[str, Any]:
    """The comparison of a month as the published JSON shows it to those who may see all of it."""
    invoiced = sum(each.invoice_nano_usd for each in variances)
    held = sum(each.ledger_nano_usd for each in variances)
    corrected = sum(each.corrected_nano_usd for each in variances)
    status = "no_export" if not chosen.runs else "incomplete" if problems else "final" if final else "provisional"
    return {
        "period": period,
        "as_of": rfc3339(now_utc, "seconds"),
        "currency": "USD",
        "status": status,
        "problems": problems,
        "notes": list(chosen.notes),
        "exports": [
            {
                "export": run.export,
                "scope": run.scope,
                "version": run.version,
                "submitted_at": rfc3339(run.submitted_utc, "seconds"),
                "first_day": run.first_day.isoformat(),
                "last_day": run.last_day.isoformat(),
                "partitions": len(run.parts),
            }
            for run in chosen.runs
        ],
        "rows": invoice.rows,
        "rows_not_compared": invoice.outside,
        "totals": _sums(invoiced, held, corrected),
        "meters": [_variance(each) for each in variances],
        "unmatched": _listed(invoice.unmatched, "account", "meter"),
        "ignored": _listed(invoice.ignored, "account", "meter"),
        "capacity": _listed(invoice.capacity, "account", "meter"),
        "other_charges": _listed(invoice.others, "category", "service"),
        "other_currencies": _listed(invoice.currencies, "currency", "category"),
        "not_compared": {
            "covered_by_pools": decimal_from_nano(ledger.covered_nano_usd),
            "other_providers": decimal_from_nano(ledger.elsewhere_nano_usd),
            "unpriced_rows": ledger.unpriced_rows,
        },
    }


def tenant_body(body: dict[str, Any], tenant: str, accounts: set[str]) -> dict[str, Any]:
    """What of a comparison a tenant may see: its own accounts, with their own totals."""
    meters = [each for each in body["meters"] if each["account"] in accounts]
    sums = (sum(nano_from_decimal(each[name]) for each in meters) for name in ("invoice", "ledger", "corrected"))
    mine = {name: [e for e in body[name] if e["account"] in accounts] for name in ("unmatched", "ignored", "capacity")}
    kept = ("period", "as_of", "currency", "status", "compared_to")
    return {
        **{name: body[name] for name in kept},
        "tenant": tenant,
        "totals": _sums(*sums),
        "meters": meters,
        **mine,
        "corrections": [each for each in body["corrections"] if each["tenant"] == tenant],
    }


def opened_body(opening: Opening) -> dict[str, Any]:
    """A correction that was opened."""
    return {
        "id": opening.id,
        "tenant": opening.payer.tenant,
        "team": opening.payer.team,
        "amount": decimal_from_nano(opening.amount_nano_usd),
        "why": opening.remark,
    }


def csv_of(body: dict[str, Any]) -> bytes:
    """The comparison per account, meter and day."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(_COLUMNS)
    for meter in body["meters"]:
        for day in meter["days"]:
            row = (meter["account"], meter["meter"], day["day"], day["invoice"], day["ledger"], day["variance"])
            table.writerow([cell_text(cell) for cell in row[:3]] + list(row[3:]))
    return out.getvalue().encode()


def _sums(invoice_nano_usd: int, ledger_nano_usd: int, corrected_nano_usd: int) -> dict[str, str | None]:
    open_nano_usd = invoice_nano_usd - ledger_nano_usd - corrected_nano_usd
    return {
        "invoice": decimal_from_nano(invoice_nano_usd),
        "ledger": decimal_from_nano(ledger_nano_usd),
        "corrected": decimal_from_nano(corrected_nano_usd),
        "variance": decimal_from_nano(open_nano_usd),
        "variance_percent": _percent(open_nano_usd, invoice_nano_usd),
    }


def _variance(variance: Variance) -> dict[str, Any]:
    line = variance.line
    return {
        "account": line.account,
        "meter": line.meter.label,
        "model": line.meter.model,
        "kind": line.meter.kind,
        "deployment_type": line.meter.place,
        "tier": line.meter.tier,
        **_sums(variance.invoice_nano_usd, variance.ledger_nano_usd, variance.corrected_nano_usd),
        "ledger_tokens": variance.ledger_tokens,
        "verdict": variance.verdict,
        "days": [
            {
                "day": day.isoformat(),
                "invoice": decimal_from_nano(billed),
                "ledger": decimal_from_nano(held),
                "variance": decimal_from_nano(billed - held),
            }
            for day, billed, held in variance.days
        ],
    }


def _percent(part: int, whole: int) -> str | None:
    """A percentage with four decimals, rounded half away from zero; None of nothing."""
    if whole == 0:
        return None
    scaled = (abs(part) * 1_000_000 * 2 // abs(whole) + 1) // 2
    sign = "-" if (part < 0) != (whole < 0) and scaled else ""
    return f"{sign}{scaled // 10_000}.{scaled % 10_000:04d}"


def _listed(sums: Mapping[tuple[str, str], Listed], first: str, second: str) -> list[dict[str, Any]]:
    """Sums that are shown and not compared."""
    return [
        {
            first: key[0],
            second: key[1],
            "amount": decimal_from_nano(nano_from_atto(each.amount_atto)),
            "rows": each.rows,
            "from": each.first.isoformat() if each.first else None,
            "to": each.last.isoformat() if each.last else None,
        }
        for key, each in sorted(sums.items())
    ]
