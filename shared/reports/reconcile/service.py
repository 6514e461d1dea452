"""Reconciles the Azure invoice with the ledger: compares, publishes, and opens corrections once a month is final."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from shared.config.model import Config
from shared.errors import NotFound
from shared.ledger.rollup import RollupCell
from shared.money import nano_from_decimal
from shared.months import month_before, month_of, month_span
from shared.reports.reconcile.bodies import csv_of, month_body, opened_body, tenant_body
from shared.reports.reconcile.exports import Chosen, Files, find_runs, read_run, whole_month
from shared.reports.reconcile.sides import Accounts, InvoiceSide, LedgerSide, names_of, rules_of
from shared.reports.reconcile.variance import (
    Held,
    Opening,
    Variance,
    compare,
    openings,
    remark_prefix,
)
from shared.usage.build import correction_event_bytes, partition_key

log = logging.getLogger("tollkeeper.reports")

ALL = "_all"
WHO = "tollkeeper reconciliation"
FINAL_AFTER = timedelta(days=5)  # Azure closes a month up to 72 hours after it ended
_PREVIOUS_UNTIL_DAY = 12  # of the month: as long the month before is compared again each night
_JSON, _CSV = "application/json", "text/csv; charset=utf-8"


class Ledger(Protocol):
    """What is needed of the ledger: its sums per quarter hour, of all tenants."""

    def cells(self, tenant: str | None, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]: ...


class Reports(Files, Protocol):
    """Where variances are published."""

    async def put(self, name: str, body: bytes, media_type: str) -> None: ...


Publish = Callable[[Sequence[tuple[str, bytes]]], Awaitable[None]]


class Reconciliations:
    """Compares months. Running twice publishes the same and opens nothing twice."""

    def __init__(
        self,
        config: Callable[[], Config],
        ledger: Ledger,
        exports: Files,
        folder: str,
        reports: Reports,
        publish: Publish,
    ) -> None:
        """`folder` of the exports in their container; `publish` puts events onto the usage hub."""
        self._config = config
        self._ledger = ledger
        self._exports = exports
        self._folder = folder
        self._reports = reports
        self._publish = publish

    async def run_due(self, now_utc: datetime | None = None) -> list[dict[str, Any]]:
        """The running month, and in its first days the one before, whose invoice is still being written."""
        now_utc = now_utc or datetime.now(UTC)
        period = month_of(now_utc)
        due = [month_before(period)] if now_utc.day <= _PREVIOUS_UNTIL_DAY else []
        return [await self.run(each, now_utc) for each in (*due, period)]

    async def run(self, period: str, now_utc: datetime) -> dict[str, Any]:
        """Compare one month and publish; returns what was published for everybody. Raises InvalidRequest."""
        config = self._config()
        rules = rules_of(config)
        start_utc, end_utc = month_span(period)
        first = start_utc.date()
        chosen = await find_runs(self._exports, self._folder, first, (end_utc - timedelta(days=1)).date())
        complete = whole_month(chosen.runs, end_utc.date()) and now_utc >= end_utc + FINAL_AFTER
        until_utc = end_utc if complete else _known_until(chosen, start_utc)
        compared_to = (until_utc - timedelta(days=1)).date()
        invoice = InvoiceSide(names_of(config), Accounts(rules.accounts), first, compared_to)
        problems = [problem for run in chosen.runs for problem in await read_run(self._exports, run, invoice.add)]
        seen = frozenset(invoice.accounts)
        ledger = LedgerSide(config, names_of(config), Accounts(rules.accounts, seen), remark_prefix(period))
        if chosen.runs:
            async for cell in self._ledger.cells(None, start_utc, end_utc):
                if cell.quarter_utc < until_utc or cell.correction == "adjustment":
                    ledger.add(cell)
        variances = compare(period, invoice, ledger, rules)
        final = complete and not problems
        opened, held = await self._earlier(period), list[Held]()
        if final:
            opened, held = await self._open(period, variances, invoice, ledger, config, end_utc, opened)
        body = month_body(period, now_utc, chosen, problems, invoice, ledger, variances, final=final)
        body["compared_to"] = compared_to.isoformat() if until_utc > start_utc else None
        body["corrections"] = opened
        body["held"] = [{"account": h.line.account, "meter": h.line.meter.label, "why": h.why} for h in held]
        await self._put(ALL, period, body)
        for tenant, accounts in _tenants(config).items():
            await self._put(tenant, period, tenant_body(body, tenant, accounts))
        told = {"period": period, "status": body["status"], "variance": body["totals"]["variance"]}
        log.info("invoice_reconciled", extra=told | {"corrections": len(opened), "rows": invoice.rows})
        return body

    async def latest(self, tenant: str | None, period: str) -> dict[str, Any]:
        """The last published comparison of a month: a tenant's own accounts, or (None) all. Raises NotFound."""
        month_span(period)
        found = await self._reports.get(_name(tenant or ALL, period, "json"))
        if found is None:
            whose = f"of tenant {tenant!r} " if tenant else ""
            message = f"period: no comparison {whose}with the invoice of {period} was published"
            raise NotFound(message, code="reconciliation_unknown", param="period")
        body: dict[str, Any] = msgspec.json.decode(found[0])
        return body

    async def _open(
        self,
        period: str,
        variances: list[Variance],
        invoice: InvoiceSide,
        ledger: LedgerSide,
        config: Config,
        end_utc: datetime,
        earlier: list[dict[str, Any]],
    ) -> tuple[list[dict[str, Any]], list[Held]]:
        """Put the corrections onto the hub. One that an earlier run opened and that has not reached the ledger yet
        holds its meter back, or a changed export would correct the same money twice."""
        owners = {each.resource: each.tenant for each in rules_of(config).accounts if each.tenant is not None}
        due, held = openings(period, variances, invoice, ledger, owners)
        earlier = await self._earlier(period)
        pending = {each["why"] for each in earlier} - _arrived(earlier, ledger)
        known = {each["id"] for each in earlier}
        fresh = [each for each in due if each.remark not in pending and each.id not in known]
        day_utc = end_utc - timedelta(days=1)
        events = [_event(each, day_utc) for each in fresh]
        if events:
            await self._publish(events)
        return [*earlier, *(opened_body(each) for each in fresh)], held

    async def _earlier(self, period: str) -> list[dict[str, Any]]:
        found = await self._reports.get(_name(ALL, period, "json"))
        return [] if found is None else list(msgspec.json.decode(found[0]).get("corrections", []))

    async def _put(self, tenant: str, period: str, body: dict[str, Any]) -> None:
        encoded = msgspec.json.encode(body, order="deterministic")
        # The table first: who reads the JSON may rely on both.
        await self._reports.put(_name(tenant, period, "csv"), csv_of(body), _CSV)
        await self._reports.put(_name(tenant, period, "json"), encoded, _JSON)


def _known_until(chosen: Chosen, start_utc: datetime) -> datetime:
    """The end of the last day that every export surely holds whole: charges come up to a day late, so the day an export
    was made on and the one before are left out. Compared, they would look unbilled."""
    days = [run.last_day for run in chosen.runs]
    if not days:
        return start_utc
    return max(start_utc, datetime.combine(min(days), datetime.min.time(), UTC) - timedelta(days=1))


def _arrived(earlier: list[dict[str, Any]], ledger: LedgerSide) -> set[str]:
    """Remarks of which all that was opened is in the ledger."""
    sums: dict[str, int] = {}
    for each in earlier:
        sums[each["why"]] = sums.get(each["why"], 0) + nano_from_decimal(each["amount"])
    return {why for why, amount in sums.items() if ledger.corrected_nano_usd.get(why, 0) == amount}


def _event(opening: Opening, day_utc: datetime) -> tuple[str, bytes]:
    source = f"tollkeeper/reconciliation/{opening.payer.tenant}"
    scopes = {"team": opening.payer.team} if opening.payer.team else None
    body = correction_event_bytes(
        source,
        opening.id,
        day_utc,
        tenant=opening.payer.tenant,
        amount_nano_usd=opening.amount_nano_usd,
        who=WHO,
        why=opening.remark,
        scopes=scopes,
        provider="azure-openai",
    )
    return partition_key(source, opening.id), body


def _tenants(config: Config) -> dict[str, set[str]]:
    """The accounts that are a tenant's alone."""
    found: dict[str, set[str]] = {}
    for account in rules_of(config).accounts:
        if account.tenant is not None:
            found.setdefault(account.tenant, set()).add(account.resource)
    return found


def _name(tenant: str, period: str, extension: str) -> str:
    return f"{tenant}/reconciliation/{period}/variance.{extension}"
