"""Which calls the tour makes. Pure: it knows the configuration and the answers so far, and talks to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from local.options import team_keys
from shared.config.model import Budget, Config
from shared.ppm import PPM

Kind = Literal["chat", "stream", "tool", "embed"]

MOST_SPENDER_CALLS = 45
CALLS_UNTIL_DEGRADED = 18
CALLS_FROM_DEGRADED_TO_STOP = 5
FEWEST_TOKENS, MOST_TOKENS = 30, 12_000
TOKENS_OF_OTHERS = 150
PREFERRED_SPENDER, PREFERRED_MODEL = "search", "gpt-4o"
SPENDER_KINDS: tuple[Kind, ...] = ("chat", "stream", "tool", "chat", "stream")
OTHERS_KINDS: tuple[Kind, ...] = ("stream", "chat", "embed")


@dataclass(frozen=True)
class Step:
    """One call to make."""

    team: str
    kind: Kind
    model: str
    output_tokens: int


@dataclass
class Progress:
    """What the answers of the spending team's calls said so far."""

    state: str = "active"
    output_pico_usd: int = 10_000_000  # price per output token of the model that served last
    refused: bool = False


class Script:
    """Three teams call in turn, one of them faster, until its budget stops it; then the others show they go on."""

    def __init__(self, config: Config) -> None:
        self._config = config
        keys = team_keys(config)
        self.spender = spender_of(config, list(keys))
        others = [team for team in sorted(keys) if team != self.spender]
        self.others = tuple(others[:2])
        self.chat_models = _models(config, "chat")
        self.embedding_models = _models(config, "embeddings")
        self.budget = smallest_budget(config, self.spender) if self.spender else None

    def steps(self, progress: Progress) -> Iterator[Step]:
        """The calls in order; `progress` is read before each, so that the caller can keep it up to date."""
        if self.spender is None or not self.chat_models:
            return
        others = self._steps_of_others()
        for number in range(MOST_SPENDER_CALLS):
            kind = SPENDER_KINDS[number % len(SPENDER_KINDS)]
            yield Step(self.spender, kind, self._spender_model(), self._output_tokens(progress))
            if progress.refused:
                break
            if number % 2 == 1:
                yield from _take(others, 1)
        yield from _take(others, len(self.others))

    def _steps_of_others(self) -> Iterator[Step]:
        number = 0
        while self.others:
            kind = OTHERS_KINDS[number % len(OTHERS_KINDS)]
            if kind == "embed" and not self.embedding_models:
                kind = "chat"
            models = self.embedding_models if kind == "embed" else self.chat_models
            team = self.others[number % len(self.others)]
            yield Step(team, kind, models[number % len(models)], TOKENS_OF_OTHERS)
            number += 1

    def _spender_model(self) -> str:
        return PREFERRED_MODEL if PREFERRED_MODEL in self.chat_models else self.chat_models[0]

    def _output_tokens(self, progress: Progress) -> int:
        """Answers as long as it takes to spend the budget in a few dozen calls, at the price of who serves them."""
        if self.budget is None:
            return TOKENS_OF_OTHERS
        share_ppm = self.budget.degrade_ppm // CALLS_UNTIL_DEGRADED
        if progress.state in ("degraded", "stopped"):
            share_ppm = max(self.budget.stop_ppm - self.budget.degrade_ppm, 0) // CALLS_FROM_DEGRADED_TO_STOP
        target_pico_usd = self.budget.limit_nano * share_ppm * 1000 // PPM
        return min(MOST_TOKENS, max(FEWEST_TOKENS, target_pico_usd // max(1, progress.output_pico_usd)))


def spender_of(config: Config, teams: list[str]) -> str | None:
    """The team that will be stopped: `search` if it may call, else the one with the smallest budget."""
    if PREFERRED_SPENDER in teams:
        return PREFERRED_SPENDER
    budgets = {team: smallest_budget(config, team) for team in teams}
    return min(teams, key=lambda team: (b.limit_nano if (b := budgets[team]) else 2**63, team), default=None)


def smallest_budget(config: Config, team: str) -> Budget | None:
    """The tightest USD budget that refuses and covers every call of the team."""
    tenant = config.teams[team].tenant
    covering = [
        budget
        for budget in config.budgets
        if budget.tenant in (None, tenant) and budget.scope_type == "team" and budget.scope_key in ("*", team)
    ]
    refusing = [budget for budget in covering if budget.currency == "USD" and budget.on_stop == "refuse"]
    return min(refusing, key=lambda budget: budget.limit_nano * budget.stop_ppm, default=None)


def _models(config: Config, capability: str) -> list[str]:
    return [model.id for model in config.models.values() if capability in model.capabilities]


def _take(steps: Iterator[Step], count: int) -> Iterator[Step]:
    for _ in range(count):
        step = next(steps, None)
        if step is None:
            return
        yield step
