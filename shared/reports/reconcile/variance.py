"""Invoice against ledger: the variance of every account and meter, and the corrections that follow from it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal

import msgspec

from shared.config.reconciliation import Reconciliation
from shared.money import split_largest_remainder
from shared.ppm import PPM
from shared.reports.reconcile.invoice import nano_from_atto
from shared.reports.reconcile.sides import MORE, InvoiceSide, LedgerSide, Line, Payer

Verdict = Literal["agrees", "within_tolerance", "corrected", "above_tolerance"]


class Variance(msgspec.Struct, frozen=True):
    """One account and meter over the days compared, in nano-USD."""

    line: Line
    invoice_nano_usd: int
    ledger_nano_usd: int
    corrected_nano_usd: int
    ledger_tokens: int
    verdict: Verdict
    days: tuple[tuple[date, int, int], ...]  # day, invoice, ledger

    @property
    def open_nano_usd(self) -> int:
        """What is still unexplained: the invoice less the ledger, less what was corrected before."""
        return self.invoice_nano_usd - self.ledger_nano_usd - self.corrected_nano_usd


class Held(msgspec.Struct, frozen=True):
    """A variance above tolerance that is not corrected by itself, and why."""

    line: Line
    why: str


class Opening(msgspec.Struct, frozen=True):
    """A correction to open: one payer's part of one variance."""

    id: str
    payer: Payer
    amount_nano_usd: int
    remark: str


def remark_prefix(period: str) -> str:
    """How the remark of every correction of a period's invoice starts."""
    return f"Azure invoice {period}, "


def remark(period: str, line: Line) -> str:
    """What stands on the statement; it names account and meter, and is how earlier corrections are found again."""
    return f"{remark_prefix(period)}{line.account}, {line.meter.label}: invoice less ledger"


def compare(period: str, invoice: InvoiceSide, ledger: LedgerSide, rules: Reconciliation) -> list[Variance]:
    """Every account and meter that either side knows, in order."""
    billed: dict[Line, dict[date, int]] = {}
    held: dict[Line, dict[date, int]] = {}
    for (line, day), amount_atto in invoice.billed_atto.items():
        billed.setdefault(line, {})[day] = amount_atto
    for (line, day), amount_nano in ledger.nano_usd.items():
        held.setdefault(line, {})[day] = amount_nano
    return [
        _variance(period, line, billed.get(line, {}), held.get(line, {}), ledger, rules)
        for line in sorted({*billed, *held})
    ]


def _variance(
    period: str,
    line: Line,
    billed_atto: Mapping[date, int],
    held_nano: Mapping[date, int],
    ledger: LedgerSide,
    rules: Reconciliation,
) -> Variance:
    # The sum is rounded, not its days: a month of rounded days would differ from the invoice's own total.
    invoice_nano = nano_from_atto(sum(billed_atto.values()))
    ledger_nano = sum(held_nano.values())
    corrected = ledger.corrected_nano_usd.get(remark(period, line), 0)
    rest = abs(invoice_nano - ledger_nano - corrected)
    above = rest * PPM > abs(invoice_nano or ledger_nano) * rules.tolerance_ppm and rest > rules.tolerance_nano_usd
    verdict: Verdict = "agrees" if rest == 0 else "within_tolerance"
    if above:
        verdict = "above_tolerance"
    elif corrected:
        verdict = "corrected"
    known = sorted({*billed_atto, *held_nano})
    days = tuple((day, nano_from_atto(billed_atto.get(day, 0)), held_nano.get(day, 0)) for day in known)
    return Variance(line, invoice_nano, ledger_nano, corrected, ledger.tokens.get(line, 0), verdict, days)


def openings(
    period: str, variances: Iterable[Variance], invoice: InvoiceSide, ledger: LedgerSide, owner_of: Mapping[str, str]
) -> tuple[list[Opening], list[Held]]:
    """The corrections of all variances above tolerance, split over who used the meter by what they were billed; and
    those that a person has to look at first. `owner_of`: account -> the tenant it is all of.

    An id is made of the amounts it rests on: the same comparison opens the same correction, another one a further.
    """
    found: list[Opening] = []
    held: list[Held] = []
    for variance in variances:
        if variance.verdict != "above_tolerance":
            continue
        shares = _shares(variance, ledger, owner_of)
        if (why := _doubt(variance, invoice)) or not shares:
            held.append(Held(variance.line, why or "nobody used it and the account has no tenant"))
            continue
        amount = variance.open_nano_usd
        sign = -1 if amount < 0 else 1
        parts = split_largest_remainder(abs(amount), [weight for _, weight in shares])
        basis = f"{variance.invoice_nano_usd}/{variance.ledger_nano_usd}/{variance.corrected_nano_usd}"
        for (payer, _), part in zip(shares, parts, strict=True):
            if part:
                name = "|".join((period, variance.line.account, variance.line.meter.label, *payer, basis))
                digest = hashlib.sha256(name.encode()).hexdigest()[:32]
                found.append(Opening(f"{period}/{digest}", payer, sign * part, remark(period, variance.line)))
    return found, held


def _doubt(variance: Variance, invoice: InvoiceSide) -> str:
    """Why a variance may be no variance: money of the account that stands somewhere else, or nowhere in the export."""
    account = variance.line.account
    if account not in invoice.accounts:
        return "the exports hold no charge of the account"
    if any(each.amount_atto for (owner, _), each in invoice.unmatched.items() if owner in (account, MORE)):
        return "the account has meters without a match"
    if account in invoice.foreign:
        return "the account is billed in another currency too"
    return ""


def _shares(variance: Variance, ledger: LedgerSide, owner_of: Mapping[str, str]) -> list[tuple[Payer, int]]:
    used: Mapping[Payer, int] = ledger.payers.get(variance.line, {})
    shares = [(payer, weight) for payer, weight in sorted(used.items()) if weight > 0]
    if shares:
        return shares
    owner = owner_of.get(variance.line.account)  # billed, and nowhere in the ledger: it is the account's owner's
    return [(Payer(owner, ""), 1)] if owner is not None else []
