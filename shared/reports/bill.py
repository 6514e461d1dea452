"""From the sums of a month to its bill: conversion, pools, shared costs, markup, tax, and the charges that say so.

Every step works on amounts per team in the statement's currency and keeps their sum: a total is converted or split
once, and its parts follow by largest remainder. What exact products of tokens and prices leave over is one charge per
team.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import msgspec

from shared.config.billing import WEIGHT_UNITS, Percent, Pool
from shared.money import NANO_PER_USD, PICO_PER_NANO, decimal_from_nano, scale_half_up, scale_parts
from shared.ppm import PPM, percent_of_ppm
from shared.reports.allocation import (
    PoolShare,
    percent_text,
    pool_capacity,
    pool_cost_nano_usd,
    shared_cost_nano_usd,
    split_pool,
    split_shared,
)
from shared.reports.charge import Allocation, Category, Charge
from shared.reports.spool import Spool
from shared.reports.statement import (
    ALLOCATED_KINDS,
    AllocatedKind,
    AllocatedLine,
    BudgetStanding,
    CorrectionLine,
    DayAmount,
    KindAmount,
    PriceUsed,
    Statement,
    Status,
    UsageLine,
)
from shared.reports.sums import CorrectionKey, KindSum, LineSum
from shared.reports.tally import Tally

_HOUR = timedelta(hours=1)
_PICO_PER_NANO_HALF = PICO_PER_NANO // 2


class Bill(msgspec.Struct):
    """A statement with the charges behind it."""

    statement: Statement
    spool: Spool | None
    tails: Mapping[str, list[Charge]]  # by team: what is no use of a day
    pools: Mapping[str, Pool]
    pool_shares: Mapping[tuple[str, str], tuple[int, int]]  # (pool, team) -> nano of its used part, its weighted use

    def charges(self, teams: Iterable[str] | None = None) -> Iterator[Charge]:
        """The charges of some teams, or of all, team by team: days first, then what was split, rounding last.

        Raises RuntimeError when the bill was made without its charges.
        """
        if self.spool is None:
            raise RuntimeError("this bill was made without charges")
        for team in self.statement.team_ids if teams is None else sorted(set(teams)):
            yield from self._amortised(team, self.spool.read(team))
            yield from self.tails.get(team, ())

    def _amortised(self, team: str, charges: Iterator[Charge]) -> Iterator[Charge]:
        """Spread what the team pays of a pool over the calls that it covered, by their weight, exactly."""
        done: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))  # pool -> weight so far, pico so far
        for charge in charges:
            nano, whole = self.pool_shares.get((charge.commitment_id, team), (0, 0))
            if charge.commitment_status == "Used" and not charge.correction and whole > 0:
                weight, given = done[charge.commitment_id]
                weight += charge.tokens * self.pools[charge.commitment_id].weight(charge.model, charge.token_kind)
                reached = nano * PICO_PER_NANO * weight // whole
                done[charge.commitment_id] = weight, reached
                yield msgspec.structs.replace(charge, effective_pico=reached - given)
            else:
                yield charge

    def noting(self, notes: tuple[str, ...]) -> Bill:
        """The same bill with notes on what is incomplete."""
        return msgspec.structs.replace(self, statement=msgspec.structs.replace(self.statement, notes=notes))

    def close(self) -> None:
        """Delete the charges on disk."""
        if self.spool is not None:
            self.spool.close()


def make_bill(
    tally: Tally,
    spool: Spool | None,
    *,
    status: Status,
    as_of_utc: datetime,
    notes: tuple[str, ...] = (),
    budgets: tuple[BudgetStanding, ...] = (),
) -> Bill:
    """The bill of a finished tally."""
    return _Maker(tally, spool, as_of_utc).make(status, notes, budgets)


class _Maker:
    """Holds the amounts per team while they grow step by step."""

    def __init__(self, tally: Tally, spool: Spool | None, as_of_utc: datetime) -> None:
        self._tally = tally
        self._basis = tally.basis
        self._spool = spool
        self._as_of_utc = as_of_utc
        self._owed: defaultdict[str, int] = defaultdict(int)  # nano by team, so far
        self._allocated: list[AllocatedLine] = []
        self._tails: defaultdict[str, list[Charge]] = defaultdict(list)
        self._pool_shares: dict[tuple[str, str], tuple[int, int]] = {}

    def make(self, status: Status, notes: tuple[str, ...], budgets: tuple[BudgetStanding, ...]) -> Bill:
        """Build it."""
        tally, basis = self._tally, self._basis
        lines, corrections = self._usage()
        rounding = self._rounding()
        self._pools()
        self._shared()
        self._on_top("markup", basis.markup, "Adjustment")
        self._on_top("tax", basis.tax, "Tax")
        for charge in rounding:
            self._tails[charge.team].append(charge)
        order = {kind: position for position, kind in enumerate(ALLOCATED_KINDS)}
        statement = Statement(
            tenant=basis.tenant,
            period=basis.period,
            number=f"{basis.tenant}-{basis.period}",
            status=status,
            as_of_utc=self._as_of_utc,
            notes=notes,
            issuer=basis.issuer,
            currency=basis.currency,
            rate=basis.rate,
            lines=lines,
            corrections=corrections,
            allocated=tuple(sorted(self._allocated, key=lambda line: (line.team, order[line.kind], line.id))),
            days=tuple(
                DayAmount(team=team, day=day, ledger_nano_usd=nano)
                for (team, day), nano in sorted(tally.days.items())
                if nano
            ),
            savings=tally.savings,
            unpriced=tally.unpriced,
            prices=tuple(
                PriceUsed(**key._asdict(), tokens=tokens) for key, tokens in sorted(tally.prices.items()) if tokens
            ),
            budgets=budgets,
            previous_nano=basis.previous_nano,
        )
        return Bill(
            statement, self._spool, dict(self._tails), {pool.id: pool for pool in basis.pools}, self._pool_shares
        )

    def _usage(self) -> tuple[tuple[UsageLine, ...], tuple[CorrectionLine, ...]]:
        """The ledger's amounts in the statement's currency: the tenant's sum once, over the teams, over their lines."""
        tally = self._tally
        own, corrected = sorted(tally.lines.items()), sorted(tally.corrections.items())
        sums: dict[str, list[KindSum]] = defaultdict(list)
        for team, line in [(k.team, line) for k, line in own] + [(k.team, line) for k, line in corrected]:
            sums[team] += [line.kinds[kind] for kind in sorted(line.kinds)]
        teams = sorted(sums)
        rate = self._basis.usd_per_unit_nano
        by_team = [sum(kind.owed_nano_usd for kind in sums[team]) for team in teams]
        owed: dict[int, int] = {}  # id of a sum -> nano
        for team, total in zip(teams, scale_parts(by_team, NANO_PER_USD, rate), strict=True):
            self._owed[team] = total
            parts = scale_parts([kind.owed_nano_usd for kind in sums[team]], NANO_PER_USD, rate, total)
            owed.update((id(kind), nano) for kind, nano in zip(sums[team], parts, strict=True))
        lines = tuple(
            UsageLine(
                team=key.team,
                cost_centre=self._centre(key.team),
                app=key.app,
                provider=key.provider,
                model=key.model,
                deployment=key.deployment,
                usage=line.usage,
                kinds=self._kinds(line, owed),
            )
            for key, line in own
        )
        return lines, tuple(self._correction(key, line, owed) for key, line in corrected)

    def _correction(self, key: CorrectionKey, line: LineSum, owed: Mapping[int, int]) -> CorrectionLine:
        kinds = self._kinds(line, owed)
        return CorrectionLine(
            team=key.team,
            cost_centre=self._centre(key.team),
            correction=key.correction,
            month=key.month,
            provider=key.provider,
            model=key.model,
            remark=key.remark,
            usage=line.usage,
            owed_nano=sum(kind.owed_nano for kind in kinds),
            covered_nano=sum(kind.covered_nano for kind in kinds),
        )

    def _kinds(self, line: LineSum, owed: Mapping[int, int]) -> tuple[KindAmount, ...]:
        return tuple(
            KindAmount(
                kind=kind,
                tokens=amounts.tokens,
                ledger_nano_usd=amounts.owed_nano_usd + amounts.covered_nano_usd,
                list_nano=self._converted((amounts.list_pico_usd + _PICO_PER_NANO_HALF) // PICO_PER_NANO),
                owed_nano=owed[id(amounts)],
                covered_nano=self._converted(amounts.covered_nano_usd),
            )
            for kind, amounts in sorted(line.kinds.items())
        )

    def _rounding(self) -> list[Charge]:
        """What exact products and the amounts of the ledger, rounded once per call, differ by: one charge per team."""
        found = []
        for team in sorted({*self._owed, *self._tally.billed_pico}):
            rest = self._owed[team] * PICO_PER_NANO - self._tally.billed_pico[team]
            if rest:
                what = "Rounding of calls to the nano-dollar"
                if self._basis.rate is not None:
                    what += f", and of unit prices converted to {self._basis.currency}"
                found.append(self._charge(team, "Adjustment", what, rest))
        return found

    def _pools(self) -> None:
        start, end = self._elapsed()
        for pool in self._basis.pools:
            amount = self._converted(pool_cost_nano_usd(pool, start, end, self._basis.span))
            use = {team: count for team, count in self._tally.pool_use[pool.id].items() if count > 0}
            if not amount:
                continue
            capacity = pool_capacity(pool, start, end)
            whole = sum(use.values())
            for share in split_pool(pool, amount, use, capacity):
                self._pool_shares[pool.id, share.team] = share.used_nano, share.used
                if share.used_nano:
                    basis = f"{percent_text(share.used, whole)} of {whole // WEIGHT_UNITS:,} weighted tokens"
                    self._allocate(share.team, "pool", pool.id, pool.label, basis, share.used_nano)
                if share.idle_nano:
                    basis = "idle capacity" + (f" of {capacity // WEIGHT_UNITS:,} weighted tokens" if capacity else "")
                    self._allocate(share.team, "idle", pool.id, f"{pool.label}, idle", basis, share.idle_nano)
                self._charge_pool(pool, share)

    def _charge_pool(self, pool: Pool, share: PoolShare) -> None:
        """The purchase, and as what is amortised of it but used by no call, its idle part."""
        amount = (share.used_nano + share.idle_nano) * PICO_PER_NANO
        if not amount:
            return
        purchase = self._charge(share.team, "Purchase", pool.label, amount, share.allocation)
        self._tails[share.team].append(
            msgspec.structs.replace(
                purchase,
                effective_pico=0,
                commitment_id=pool.id,
                commitment_quantity=(share.used + share.idle) // WEIGHT_UNITS,
            )
        )
        if share.idle_nano:
            unused = self._charge(share.team, "Usage", f"{pool.label}, idle capacity", 0, share.allocation)
            self._tails[share.team].append(
                msgspec.structs.replace(
                    unused,
                    effective_pico=share.idle_nano * PICO_PER_NANO,
                    commitment_id=pool.id,
                    commitment_status="Unused",
                    commitment_quantity=share.idle // WEIGHT_UNITS,
                )
            )

    def _shared(self) -> None:
        start, end = self._elapsed()
        owed_before = dict(self._owed)  # shared costs do not make each other dearer
        teams = {*self._basis.cost_centres, *self._owed}
        tokens = self._tally.tokens_by_team
        for cost in self._basis.shared:
            amount = self._converted(shared_cost_nano_usd(cost, start, end, self._basis.span))
            if not amount:
                continue
            shares = split_shared(
                cost, amount, tokens=tokens, owed_nano=owed_before, teams=teams, currency=self._basis.currency
            )
            for share in shares:
                if share.nano:
                    self._allocate(share.team, "shared", cost.id, cost.label, share.basis, share.nano)
                    charge = self._charge(
                        share.team, "Adjustment", cost.label, share.nano * PICO_PER_NANO, share.allocation
                    )
                    self._tails[share.team].append(charge)

    def _on_top(self, kind: AllocatedKind, percent: Percent | None, category: Category) -> None:
        """A percentage of all that is owed so far: of the tenant's total, half-up once, over the teams."""
        if percent is None:
            return
        teams = sorted(self._owed)
        bases = [self._owed[team] for team in teams]
        for team, base, nano in zip(teams, bases, scale_parts(bases, percent.ppm, PPM), strict=True):
            if nano:
                basis = f"{percent_of_ppm(percent.ppm)} % of {decimal_from_nano(base)}"
                self._allocate(team, kind, "", percent.label, basis, nano)
                self._tails[team].append(self._charge(team, category, percent.label, nano * PICO_PER_NANO))

    def _allocate(self, team: str, kind: AllocatedKind, id_: str, label: str, basis: str, nano: int) -> None:
        self._owed[team] += nano
        self._allocated.append(
            AllocatedLine(
                team=team,
                cost_centre=self._centre(team),
                kind=kind,
                id=id_,
                label=label,
                basis=basis,
                amount_nano=nano,
            )
        )

    def _charge(
        self, team: str, category: Category, description: str, billed_pico: int, allocation: Allocation | None = None
    ) -> Charge:
        """A charge of the whole month."""
        start_utc, end_utc = self._basis.span
        return Charge(
            category=category,
            starts_utc=start_utc,
            ends_utc=end_utc,
            description=description,
            team=team,
            cost_centre=self._centre(team),
            pricing_status="none",
            billed_pico=billed_pico,
            effective_pico=billed_pico,
            allocation=allocation,
        )

    def _elapsed(self) -> tuple[datetime, datetime]:
        """The part of the month that fixed prices have run up in: its whole hours until now."""
        start_utc, end_utc = self._basis.span
        whole_hours = (self._as_of_utc - start_utc) // _HOUR
        return start_utc, min(end_utc, start_utc + max(0, whole_hours) * _HOUR)

    def _centre(self, team: str) -> str:
        return self._basis.cost_centres.get(team, "")

    def _converted(self, amount_nano_usd: int) -> int:
        return scale_half_up(amount_nano_usd, NANO_PER_USD, self._basis.usd_per_unit_nano)
