"""What pricing one event costs, as a ratio to decoding that event in the same run. Target: at most 3.

python -m bench.pricing
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from bench.common import best_seconds, number, table, title, verdict
from shared.config.model import Config, Model, Tenant
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.usage.events import UsageEvent, decode_event
from shared.usage.tokens import count_tokens

NOW_UTC = datetime(2026, 11, 21, 12, tzinfo=UTC)
EVENTS = 20_000
ROUNDS = 5
MOST_OF_DECODING = 3.0


def main() -> None:
    """Decode and price a spread of events, and print CPU time per event and the ratio."""
    config = Config(
        version="bench",
        tenants={"contoso": Tenant(id="contoso")},
        teams={},
        budgets=(),
        models={"gpt-4o": Model(id="gpt-4o", deployments=("gpt-4o-weu",))},
    )
    pricer = Pricer(PriceBook.load(), config)
    bodies = [_body(number) for number in range(EVENTS)]
    events = [decode_event(body, NOW_UTC) for body in bodies]
    usage_events = [event for event in events if isinstance(event, UsageEvent)]
    counted = [(event, count_tokens(event.data.usage, event.data.provider) or {}) for event in usage_events]

    decode_us = _best_us(lambda: [decode_event(body, NOW_UTC) for body in bodies])
    bare_us = _best_us(lambda: [msgspec.json.decode(body) for body in bodies])
    count_us = _best_us(lambda: [count_tokens(event.data.usage, event.data.provider) for event in usage_events])
    price_us = _best_us(lambda: [_priced(pricer, event, tokens) for event, tokens in counted])
    title("Pricing one event against decoding it", f"{EVENTS:,} events, best of {ROUNDS} rounds, one process")
    rows = [
        ["decode and check", number(decode_us), "1"],
        ["count tokens", number(count_us), number(count_us / decode_us)],
        ["price", number(price_us), number(price_us / decode_us)],
        ["bare JSON parse, no checks", number(bare_us), number(bare_us / decode_us)],
    ]
    table(["", "CPU us/event", "/ decode"], rows)
    print(f"count + price over decode: {verdict((count_us + price_us) / decode_us, MOST_OF_DECODING, at_most=True)}")


def _body(number: int) -> bytes:
    model = ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "gpt-4.1-2025-04-14")[number % 3]
    usage = {
        "prompt_tokens": 1200 + number % 500,
        "completion_tokens": 300,
        "total_tokens": 1500 + number % 500,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 64},
    }
    data = {
        "tenant": "contoso",
        "scopes": {"team": "search", "user": f"user-{number % 100}", "app": "portal"},
        "provider": "azure-openai",
        "operation": "chat",
        "requested_model": "gpt-4o",
        "model": model,
        "deployment": "gpt-4o-weu" if number % 3 == 0 else "",
        "region": "westeurope",
        "usage": usage,
        "latency_ms": 930,
        "decision": "allow",
    }
    event = {"specversion": "1.0", "type": "tollkeeper.usage.v1", "source": "apim/prod-weu", "id": f"request-{number}"}
    return json.dumps({**event, "time": "2026-11-21T10:00:00.123Z", "data": data}).encode()


def _priced(pricer: Pricer, event: UsageEvent, tokens: dict[str, int]) -> int:
    data = event.data
    tier = data.processing_tier
    rated = pricer.rate(
        data.tenant, data.provider, data.model, data.deployment, data.region, event.time_utc, tokens, tier
    )
    if rated.cost_nano_usd is None:
        raise SystemExit(f"the benchmark's own event is unpriced: {rated}")
    return rated.cost_nano_usd


def _best_us(run: Callable[[], object]) -> float:
    return best_seconds(run, ROUNDS) / EVENTS * 1e6


if __name__ == "__main__":
    main()
