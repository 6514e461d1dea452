"""A statement summed up per team, in one pass over its parts."""

from __future__ import annotations

import msgspec

from shared.reports.statement import Statement, Usage


class TeamSum(msgspec.Struct, kw_only=True):
    """What a team used, and owes; `*_nano` in the statement's currency."""

    team: str
    cost_centre: str = ""
    usage: Usage = Usage()
    owed_nano: int = 0  # of its own calls
    corrections_nano: int = 0
    allocated_nano: int = 0
    covered_nano: int = 0  # pay-as-you-go worth of what pools covered: shown, not owed
    previous_nano: int | None = None  # due the month before

    @property
    def due_nano(self) -> int:
        """What the team owes."""
        return self.owed_nano + self.corrections_nano + self.allocated_nano


def team_sums(statement: Statement) -> list[TeamSum]:
    """Every team of the statement in the order of its files; what they owe adds up to the amount due."""
    sums = {team: TeamSum(team=team) for team in statement.team_ids}
    for line in statement.lines:
        mine = sums[line.team]
        mine.cost_centre = mine.cost_centre or line.cost_centre
        mine.usage += line.usage
        mine.owed_nano += line.owed_nano
        mine.covered_nano += line.covered_nano
    for correction in statement.corrections:
        mine = sums[correction.team]
        mine.cost_centre = mine.cost_centre or correction.cost_centre
        mine.usage += correction.usage
        mine.corrections_nano += correction.owed_nano
        mine.covered_nano += correction.covered_nano
    for allocated in statement.allocated:
        mine = sums[allocated.team]
        mine.cost_centre = mine.cost_centre or allocated.cost_centre
        mine.allocated_nano += allocated.amount_nano
    if statement.previous_nano is not None:
        for mine in sums.values():
            mine.previous_nano = statement.previous_nano.get(mine.team, 0)
    return list(sums.values())
