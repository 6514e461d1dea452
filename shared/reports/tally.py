"""One pass over a month's rollup cells: charges go to disk day by day, sums stay in memory.

Memory is that of one day's charges and of one sum per team, app and deployment, whatever the number of calls.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from shared.config.billing import WEIGHT_UNITS, Pool
from shared.ledger.coverage import known_as
from shared.ledger.rollup import CellLine, RollupCell
from shared.ledger.row import PricingStatus
from shared.money import NANO_PER_USD, PICO_PER_NANO, scale_half_up
from shared.reports.basis import Basis
from shared.reports.cell_parts import AMOUNT, NO_PRICE, cell_parts
from shared.reports.charge import Charge, Correction
from shared.reports.spool import Spool
from shared.reports.statement import UNASSIGNED, Saving, Unpriced
from shared.reports.sums import CorrectionKey, KindSum, LineKey, LineSum, PriceKey
from shared.usage.tokens import PRICED_KINDS

_WHAT: dict[Correction, str] = {
    "": "",
    "negative": "Correction, taken back: ",
    "new": "Correction, billed anew: ",
    "adjustment": "Correction: ",
}


class _ChargeKey(NamedTuple):
    """What the charges of a day are summed by. The order of the fields is the order of the file."""

    app: str
    provider: str
    model: str
    deployment: str
    region: str
    operation: str
    kind: str
    tier: str
    price_id: str
    unit_pico: int
    list_pico: int
    measured: bool
    pricing_status: PricingStatus
    correction: Correction
    remark: str
    pool: str


class Tally:
    """Sums cells as they come, in the order of their time. Read its parts after `finish`."""

    def __init__(self, basis: Basis, as_of_utc: datetime, stream_wait: timedelta, spool: Spool | None) -> None:
        """`spool` is where charges go; None keeps only the sums."""
        self.basis = basis
        self._as_of_utc = as_of_utc
        self._wait = stream_wait
        self._spool = spool
        # Azure tells deployments apart whatever their case, so a pool's need not be spelled as in models.yaml.
        self._pools: dict[str, Pool] = {d.lower(): pool for pool in basis.pools for d in pool.deployments}
        self._quarter_utc: datetime | None = None
        self._day: date | None = None
        self._charges: defaultdict[str, dict[_ChargeKey, list[int]]] = defaultdict(dict)

        self.lines: dict[LineKey, LineSum] = {}
        self.corrections: dict[CorrectionKey, LineSum] = {}
        self.days: defaultdict[tuple[str, date], int] = defaultdict(int)
        self.prices: defaultdict[PriceKey, int] = defaultdict(int)
        self.pool_use: dict[str, defaultdict[str, int]] = {pool.id: defaultdict(int) for pool in basis.pools}
        self.billed_pico: defaultdict[str, int] = defaultdict(int)  # by team, of all charges on disk
        self._savings: defaultdict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._unpriced: dict[tuple[str, str, str, str], tuple[list[int], defaultdict[str, int]]] = {}

    def add(self, cell: RollupCell) -> None:
        """Add a cell; those of other statements, and grants of budgets, are no part of this one."""
        if cell.booked_period != self.basis.period or cell.cell is not None:
            return
        if cell.quarter_utc != self._quarter_utc:
            self._quarter_utc = cell.quarter_utc
            day = cell.quarter_utc.astimezone(UTC).date()
            if day != self._day:
                self._flush()
                self._day = day
        team = cell.scopes.get("team") or UNASSIGNED
        self._add_saving(team, cell)
        if cell.refused and not cell.requests and not cell.cost_nano_usd:
            return  # refused calls used nothing
        pool = self._pool_of(cell)
        line = self._line_of(team, cell)
        self._add_usage(line, cell)
        if not cell.correction and self._day is not None:
            self.days[team, self._day] += cell.cost_nano_usd
        if cell.pricing_status == "unpriced":
            self._add_unpriced(team, cell)
        for part in cell_parts(cell):
            self._add_part(team, line, cell, part, pool)

    def finish(self) -> None:
        """Write what the last day left."""
        self._flush()

    @property
    def tokens_by_team(self) -> dict[str, int]:
        """All priced tokens of each team; less than nothing, after corrections, counts as nothing."""
        tokens: defaultdict[str, int] = defaultdict(int)
        lines = [(key.team, line) for key, line in self.lines.items()]
        for team, line in lines + [(key.team, line) for key, line in self.corrections.items()]:
            tokens[team] += sum(line.tokens.get(kind, 0) for kind in PRICED_KINDS)
        return {team: max(0, count) for team, count in tokens.items()}

    @property
    def savings(self) -> tuple[Saving, ...]:
        """What downgrades and refusals saved."""
        return tuple(
            Saving(
                team=team,
                decision="refuse" if decision == "refuse" else "downgrade",
                requested_model=requested,
                model=model,
                calls=calls,
                saved_nano_usd=saved,
            )
            for (team, decision, requested, model), (calls, saved) in sorted(self._savings.items())
        )

    @property
    def unpriced(self) -> tuple[Unpriced, ...]:
        """Calls without a price. What a re-rate took back is not among them: of a call of this statement it leaves
        nothing, and of one that a closed month counted it makes less than nothing of that month's."""
        found: dict[tuple[str, str, str], tuple[int, dict[str, int]]] = {}
        for (team, provider, model, _), (calls, tokens) in sorted(self._unpriced.items()):
            if calls[0] > 0:
                known, sums = found.get((team, provider, model), (0, {}))
                both = {kind: sums.get(kind, 0) + tokens.get(kind, 0) for kind in sorted({*sums, *tokens})}
                found[team, provider, model] = known + calls[0], both
        return tuple(
            Unpriced(team=team, provider=provider, model=model, calls=calls, tokens=tokens)
            for (team, provider, model), (calls, tokens) in found.items()
        )

    def _pool_of(self, cell: RollupCell) -> Pool | None:
        """The pool that pays for the cell's calls. An adjustment is an amount and no call: it is owed."""
        pool = None if cell.correction == "adjustment" else self._pools.get(cell.deployment.lower())
        term = None if pool is None else pool.term_at(cell.quarter_utc)
        return pool if term is not None and term.covers else None

    def _line_of(self, team: str, cell: RollupCell) -> LineSum:
        if cell.correction:
            month = f"{cell.quarter_utc.astimezone(UTC):%Y-%m}"
            correction = CorrectionKey(team, cell.correction, month, cell.provider, cell.model, cell.remark)
            return self.corrections.setdefault(correction, LineSum())
        key = LineKey(team, cell.scopes.get("app", ""), cell.provider, cell.model, cell.deployment)
        return self.lines.setdefault(key, LineSum())

    def _add_usage(self, line: LineSum, cell: RollupCell) -> None:
        line.requests += cell.requests
        line.cost_nano_usd += cell.cost_nano_usd
        part = known_as(cell, self._as_of_utc, self._wait)
        line.covered_costs[part] += cell.cost_nano_usd
        line.covered_requests[part] += cell.requests
        line.unpriced += cell.unpriced
        for kind, tokens in cell.tokens.items():
            line.tokens[kind] = line.tokens.get(kind, 0) + tokens

    def _add_saving(self, team: str, cell: RollupCell) -> None:
        refused = cell.refused > 0
        if not refused and not (cell.decision == "downgrade" and (cell.saved_nano_usd or cell.requests)):
            return
        decision = "refuse" if refused else "downgrade"
        sums = self._savings[team, decision, cell.requested_model, "" if refused else cell.model]
        sums[0] += cell.refused if refused else cell.requests
        sums[1] += cell.saved_nano_usd

    def _add_unpriced(self, team: str, cell: RollupCell) -> None:
        key = team, cell.provider, cell.model, f"{cell.quarter_utc.astimezone(UTC):%Y-%m}"
        calls, tokens = self._unpriced.setdefault(key, ([0], defaultdict(int)))
        calls[0] += cell.unpriced
        for kind in PRICED_KINDS:
            if count := cell.tokens.get(kind):
                tokens[kind] += count

    def _add_part(self, team: str, line: LineSum, cell: RollupCell, part: CellLine, pool: Pool | None) -> None:
        """Add the tokens of one kind at one price to the sums and to the day's charges."""
        kind = line.kinds.setdefault(part.kind, KindSum())
        kind.tokens += part.tokens
        if pool is None:
            kind.owed_nano_usd += part.cost_nano_usd
        else:
            kind.covered_nano_usd += part.cost_nano_usd
            if not cell.correction:
                self.pool_use[pool.id][team] += part.tokens * pool.weight(cell.model, part.kind)
        if part.unit_pico != NO_PRICE:
            kind.list_pico_usd += part.tokens * part.list_pico
        else:
            kind.list_pico_usd += part.cost_nano_usd * PICO_PER_NANO
        key = _ChargeKey(
            cell.scopes.get("app", ""),
            cell.provider,
            cell.model,
            cell.deployment,
            cell.region,
            cell.operation,
            part.kind,
            part.tier,
            part.price_id,
            part.unit_pico,
            part.list_pico,
            cell.measured,
            cell.pricing_status,
            cell.correction,
            cell.remark,
            "" if pool is None else pool.id,
        )
        sums = self._charges[team].setdefault(key, [0, 0])
        sums[0] += part.tokens
        sums[1] += part.cost_nano_usd

    def _flush(self) -> None:
        for team in sorted(self._charges):
            sums = self._charges[team]
            charges = [self._charge(team, key, *sums[key]) for key in sorted(sums) if any(sums[key])]
            for key, (tokens, _) in sums.items():
                if key.unit_pico != NO_PRICE:
                    self.prices[_price_key(team, key)] += tokens
            self.billed_pico[team] += sum(charge.billed_pico for charge in charges)
            if self._spool is not None and charges:
                self._spool.append(team, charges)
        self._charges.clear()

    def _charge(self, team: str, key: _ChargeKey, tokens: int, ledger_nano_usd: int) -> Charge:
        if self._day is None:
            raise RuntimeError("charges without a day")
        starts_utc = datetime(self._day.year, self._day.month, self._day.day, tzinfo=UTC)
        priced = key.unit_pico != NO_PRICE
        price_pico = self._converted(key.unit_pico) if priced else None
        pool = next((pool for pool in self.basis.pools if pool.id == key.pool), None)
        if pool is not None:
            billed_pico = 0
        elif price_pico is not None:
            billed_pico = tokens * price_pico
        else:
            billed_pico = self._converted(ledger_nano_usd * PICO_PER_NANO)
        return Charge(
            category="Usage" if key.kind != AMOUNT else "Adjustment",
            correction=key.correction,
            starts_utc=starts_utc,
            ends_utc=starts_utc + timedelta(days=1),
            description=_WHAT[key.correction] + _description(key),
            team=team,
            cost_centre=self.basis.cost_centres.get(team, ""),
            app=key.app,
            provider=key.provider,
            model=key.model,
            deployment=key.deployment,
            region=key.region,
            operation=key.operation,
            token_kind=key.kind,
            tokens=tokens,
            tier=key.tier,
            unit_pico=key.unit_pico if priced else None,
            list_pico=key.list_pico if priced else None,
            price_pico=price_pico,
            list_price_pico=self._converted(key.list_pico) if priced else None,
            price_id=key.price_id,
            pricing_status=key.pricing_status,
            measured=key.measured,
            ledger_nano_usd=ledger_nano_usd,
            billed_pico=billed_pico,
            effective_pico=billed_pico,
            commitment_id=key.pool,
            commitment_status="" if pool is None else "Used",
            commitment_quantity=0 if pool is None else tokens * pool.weight(key.model, key.kind) // WEIGHT_UNITS,
        )

    def _converted(self, amount_usd: int) -> int:
        rate = self.basis.usd_per_unit_nano
        return amount_usd if rate == NANO_PER_USD else scale_half_up(amount_usd, NANO_PER_USD, rate)


def _price_key(team: str, key: _ChargeKey) -> PriceKey:
    return PriceKey(team, key.price_id, key.provider, key.model, key.kind, key.tier, key.unit_pico, key.list_pico)


def _description(key: _ChargeKey) -> str:
    if key.kind == AMOUNT:
        return key.remark or f"{key.model or 'usage'}, amount without tokens".strip()
    return f"{key.model or 'unknown model'}, {key.kind.replace('_', ' ')} tokens" + (
        f", {key.tier}" if key.tier else ""
    )
