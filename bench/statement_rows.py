"""A month of ledger rows, made up as they are read: the same rows every time, an hour at a time, never all at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.ledger.codec import Entity, encode
from shared.ledger.row import LedgerRow, Position

START = datetime(2026, 11, 1, tzinfo=UTC)
HOURS = 30 * 24
PERIOD = "2026-11"
TENANT = "contoso"
TEAMS, APPS_OF_A_TEAM, USERS_OF_A_TEAM = 40, 3, 25


class ModelPrices(NamedTuple):
    """A model, where it is deployed, and what a token costs in pico-USD; the list price is a quarter higher."""

    model: str
    deployment: str
    input: int
    cached_input: int
    output: int


MODELS = (
    ModelPrices("gpt-4o", "gpt-4o-weu", 2_500_000, 1_250_000, 10_000_000),
    ModelPrices("gpt-4o", "gpt-4o-swe", 2_500_000, 1_250_000, 10_000_000),
    ModelPrices("gpt-4o-mini", "gpt-4o-mini-weu", 150_000, 75_000, 600_000),
    ModelPrices("gpt-4.1", "gpt-4.1-weu", 2_000_000, 500_000, 8_000_000),
    ModelPrices("gpt-4.1-mini", "gpt-4.1-mini-weu", 400_000, 100_000, 1_600_000),
    ModelPrices("o3", "o3-swe", 2_000_000, 500_000, 8_000_000),
)
KINDS = ("input", "cached_input", "output")


class Made(NamedTuple):
    """One row, as Table Storage returns it, and what of it a plain aggregation needs."""

    entity: Entity
    time_utc: datetime
    team: str
    app: str
    model: ModelPrices
    tokens: tuple[int, int, int]  # of KINDS
    costs_nano_usd: tuple[int, int, int]


def hours(rows: int) -> Iterator[list[Made]]:
    """The month, hour by hour: busier by day than by night, of uneven teams, four calls in ten of a known person."""
    chance = random.Random(20261101)
    weights = [3 if 7 <= hour % 24 < 19 else 1 for hour in range(HOURS)]
    templates = {(model.model, model.deployment): _template(model) for model in MODELS}
    done = 0
    for hour in range(HOURS):
        until = rows * sum(weights[: hour + 1]) // sum(weights)
        yield [_row(number, hour, chance, templates) for number in range(done, until)]
        done = until


def _row(number: int, hour: int, chance: random.Random, templates: dict[tuple[str, str], Entity]) -> Made:
    model = MODELS[min(int(chance.expovariate(0.6)), len(MODELS) - 1)]
    team = min(int(chance.expovariate(0.08)), TEAMS - 1)
    app = f"app-{team}-{number % APPS_OF_A_TEAM}"
    scopes = f'{{"app":"{app}","team":"team-{team}"'
    if number % 5 < 2:
        scopes += f',"user":"user-{team}-{chance.randrange(USERS_OF_A_TEAM)}"'
    tokens = (chance.randrange(1, 4_000), chance.randrange(2_000) if number % 3 == 0 else 0, chance.randrange(1, 1_200))
    prices = (model.input, model.cached_input, model.output)
    costs = tuple((count * price + 500) // 1000 for count, price in zip(tokens, prices, strict=True))
    cost = sum(costs)
    at = START + timedelta(hours=hour, microseconds=number * 977 % 3_600_000_000)
    entity = templates[model.model, model.deployment] | {
        "RowKey": f"{number:032x}",
        "id": f"{number:032x}",
        "time": at.isoformat(timespec="microseconds"),
        "scopes": scopes + "}",
        "sequence": (number, "Edm.Int64"),
        "enqueued_ms": (1_793_000_000_000 + hour * 3_600_000, "Edm.Int64"),
        "tokens": f'{{"input":{tokens[0]},"cached_input":{tokens[1]},"output":{tokens[2]}}}',
        "lines_nano_usd": f'{{"input":{costs[0]},"cached_input":{costs[1]},"output":{costs[2]}}}',
        "cost_nano_usd": (cost, "Edm.Int64"),
        "charge_nano_usd": (cost, "Edm.Int64"),
    }
    return Made(entity, at, f"team-{team}", app, model, tokens, (costs[0], costs[1], costs[2]))


def _template(model: ModelPrices) -> Entity:
    """A row of the model, encoded by the ledger's own codec; calls differ from it in the columns that `_row` sets."""
    prices = {kind: getattr(model, kind) for kind in KINDS}
    return encode(
        LedgerRow(
            tenant=TENANT,
            source="apim/prod-weu",
            id="template",
            kind="usage",
            time_utc=START,
            scopes={},
            position=Position("ns/usage/0", 0, 0),
            content_digest="0" * 32,
            charge_nano_usd=0,
            cost_nano_usd=0,
            unit_pico=prices,
            list_pico={kind: price * 5 // 4 for kind, price in prices.items()},
            price_id=f"book/azure-openai/{model.model}/2026-01-01",
            provider="azure-openai",
            operation="chat",
            requested_model=model.model,
            model=model.model,
            deployment=model.deployment,
            region="westeurope",
            decision="allow",
            latency_ms=930,
            booked_period=PERIOD,
        )
    )
