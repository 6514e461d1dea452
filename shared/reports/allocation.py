"""Who pays for what nobody used alone. Pure: integers in, integers out, and every split sums to the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import NamedTuple, TypeVar

from shared.config.billing import WEIGHT_UNITS, Pool, PoolTerm, SharedCost, SharedTerm
from shared.money import scale_half_up, split_largest_remainder
from shared.ppm import PPM, percent_of_ppm
from shared.reports.charge import PPB, Allocation, Element
from shared.reports.statement import PLATFORM, UNASSIGNED

_SECOND = timedelta(seconds=1)

Term = TypeVar("Term", PoolTerm, SharedTerm)


class PoolShare(NamedTuple):
    """What a team pays of a pool: for what it used, and for what nobody did. `used` is in thousandths of a weighted
    token."""

    team: str
    used_nano: int
    idle_nano: int
    used: int
    idle: int  # unused capacity that it pays for, in the same unit
    allocation: Allocation


class CostShare(NamedTuple):
    """What a team pays of a shared cost."""

    team: str
    nano: int
    basis: str  # for people
    allocation: Allocation


def pool_cost_nano_usd(pool: Pool, start_utc: datetime, end_utc: datetime, month: tuple[datetime, datetime]) -> int:
    """What a pool costs in [start, end) of a month, half-up once: units by the hour, monthly prices in proportion."""
    cost = Fraction(0)
    for term, seconds in _in_force(pool.terms, start_utc, end_utc):
        if term.usd_per_unit_hour_nano is not None:
            cost += Fraction(term.units * term.usd_per_unit_hour_nano * seconds, 3600)
        elif term.usd_per_month_nano is not None:
            cost += Fraction(term.usd_per_month_nano * seconds, _seconds(*month))
    return _half_up(cost)


def shared_cost_nano_usd(
    cost: SharedCost, start_utc: datetime, end_utc: datetime, month: tuple[datetime, datetime]
) -> int:
    """What a shared cost is in [start, end) of a month, half-up once; the month's price in proportion to the time."""
    in_force = _in_force(cost.terms, start_utc, end_utc)
    amount = sum((Fraction(term.usd_per_month_nano * s, _seconds(*month)) for term, s in in_force), Fraction(0))
    return _half_up(amount)


def pool_capacity(pool: Pool, start_utc: datetime, end_utc: datetime) -> int | None:
    """How much a pool could have served, in thousandths of a weighted token; None when nobody says."""
    if pool.tokens_per_minute_per_unit is None:
        return None
    per_minute = pool.tokens_per_minute_per_unit * WEIGHT_UNITS
    return sum(term.units * per_minute * s // 60 for term, s in _in_force(pool.terms, start_utc, end_utc))


def split_pool(pool: Pool, amount_nano: int, used_by_team: Mapping[str, int], capacity: int | None) -> list[PoolShare]:
    """A pool's price over the teams.

    What was used of the capacity is paid by weighted tokens; use beyond it counts as all of it. The rest is idle:
    apart from all teams, in proportion to their use, or its owner's. A pool that nobody used is all idle.
    """
    used = {team: count for team, count in sorted(used_by_team.items()) if count > 0}
    whole_used = sum(used.values())
    used_nano, idle_nano = _used_and_idle(amount_nano, whole_used, capacity)
    used_parts = _parts(used_nano, used)
    if pool.idle == "proportional" and used:
        idle_weights = used
    else:
        idle_weights = {pool.owner if pool.idle == "owner" and pool.owner else PLATFORM: 1}
    idle_parts = _parts(idle_nano, idle_weights)
    idle_counts = _parts(max(0, (capacity or 0) - whole_used), idle_weights)
    teams = sorted({*used_parts, *idle_parts})
    amounts = [used_parts.get(team, 0) + idle_parts.get(team, 0) for team in teams]
    ratios = _ratios(amounts)
    return [
        PoolShare(
            team=team,
            used_nano=used_parts.get(team, 0),
            idle_nano=idle_parts.get(team, 0),
            used=used.get(team, 0),
            idle=idle_counts.get(team, 0),
            allocation=Allocation(
                method=f"pool-weighted-tokens-idle-{pool.idle}",
                origin=pool.id,
                elements=(Element(ratio, "Weighted Tokens", used.get(team, 0) // WEIGHT_UNITS),),
            ),
        )
        for team, ratio in zip(teams, ratios, strict=True)
    ]


def split_shared(
    cost: SharedCost,
    amount_nano: int,
    *,
    tokens: Mapping[str, int],
    owed_nano: Mapping[str, int],
    teams: Iterable[str],
    currency: str,
) -> list[CostShare]:
    """A shared cost over the teams, by their tokens, by what they owe so far, or evenly over `teams`.

    With nothing to split by it stays with the platform. Calls without a team take part like a team unless they are
    excluded, but for the even split, which is one of teams.
    """
    if cost.by == "even":
        known = {team: 1 for team in teams if team not in (UNASSIGNED, PLATFORM)}
        unit, weights = "Teams", known
    elif cost.by == "tokens":
        unit, weights = "Tokens", dict(tokens)
    else:
        unit, weights = currency, {team: max(0, nano) for team, nano in owed_nano.items()}
    if cost.include:
        weights = {team: weight for team, weight in weights.items() if team in cost.include}
    weights = {
        team: weight
        for team, weight in sorted(weights.items())
        if weight > 0 and team not in cost.exclude and team != PLATFORM
    }
    if not weights:
        whole = Allocation(method=f"shared-{cost.by}", origin=cost.id, elements=(Element(PPB, unit, 0),))
        return [CostShare(PLATFORM, amount_nano, "nobody to share it with", whole)]
    counts = list(weights.values())
    shares = zip(weights, counts, split_largest_remainder(amount_nano, counts), _ratios(counts), strict=True)
    return [
        CostShare(
            team=team,
            nano=nano,
            basis=_basis(cost, ratio, len(weights)),
            allocation=Allocation(f"shared-{cost.by}", cost.id, (Element(ratio, unit, weight),)),
        )
        for team, weight, nano, ratio in shares
    ]


def percent_text(parts: int, whole: int) -> str:
    """`12.5 %` of parts in a whole, with at most four decimals and no needless zeros."""
    ppm = split_largest_remainder(PPM, [parts, whole - parts])[0] if whole > 0 else 0
    return f"{percent_of_ppm(ppm)} %"


def _basis(cost: SharedCost, ratio_ppb: int, teams: int) -> str:
    if cost.by == "even":
        return f"evenly over {teams} team" + ("s" if teams != 1 else "")
    return f"{percent_text(ratio_ppb, PPB)} by {cost.by}"


def _parts(whole: int, weights: Mapping[str, int]) -> dict[str, int]:
    """The whole by weights; nothing at all where there is nothing to split."""
    if not whole or not weights:
        return {}
    return dict(zip(weights, split_largest_remainder(whole, list(weights.values())), strict=True))


def _used_and_idle(amount_nano: int, used: int, capacity: int | None) -> tuple[int, int]:
    if used == 0:
        return 0, amount_nano
    if capacity is None or used >= capacity:
        return amount_nano, 0
    used_nano, idle_nano = split_largest_remainder(amount_nano, [used, capacity - used])
    return used_nano, idle_nano


def _ratios(amounts: Sequence[int]) -> list[int]:
    """Shares in parts per billion that sum to one billion; of nothing, the first has it all."""
    if sum(amounts) == 0:
        return [PPB] + [0] * (len(amounts) - 1) if amounts else []
    return split_largest_remainder(PPB, amounts)


def _in_force(terms: Sequence[Term], start_utc: datetime, end_utc: datetime) -> Iterator[tuple[Term, int]]:
    """Each term with the seconds of [start, end) that it is in force; terms are in the order of their dates."""
    for index, term in enumerate(terms):
        begins = max(start_utc, term.effective_from)
        ends = end_utc if index + 1 == len(terms) else min(end_utc, terms[index + 1].effective_from)
        if begins < ends:
            yield term, _seconds(begins, ends)


def _seconds(start_utc: datetime, end_utc: datetime) -> int:
    return (end_utc - start_utc) // _SECOND


def _half_up(amount: Fraction) -> int:
    return scale_half_up(1, amount.numerator, amount.denominator)
