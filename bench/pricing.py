"""What pricing one event costs, as a ratio to decoding that event in the same run. Target: at most 3.

python -m bench.pricing
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from shared.config.model import Config, Model, Tenant
from shared.pricing.book import PriceBook
from shared.pricing.pricer import Pricer
from shared.usage.events import UsageEvent, decode_event
from shared.usage.tokens import count_tokens

NOW_UTC = datetime(2026, 11, 21, 12, tzinfo=UTC)
EVENTS = 20_000
RUNS = 5


def main() -> None:
    """Decode and price a spread of events, and print microseconds per event and the ratio."""
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

    decode_seconds = _best(lambda: [decode_event(body, NOW_UTC) for body in bodies])
    bare_seconds = _best(lambda: [msgspec.json.decode(body) for body in bodies])
    price_seconds = _best(lambda: [_priced(pricer, event, tokens) for event, tokens in counted])
    for name, seconds in (("decode", decode_seconds), ("bare JSON", bare_seconds), ("price", price_seconds)):
        print(f"{name:>10}: {seconds / EVENTS * 1e6:.2f} us/event")
    print(f"price / decode: {price_seconds / decode_seconds:.2f} (target: at most 3)")
    print(f"price / bare JSON parse without validation: {price_seconds / bare_seconds:.2f}")


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


def _best(run: Callable[[], object]) -> float:
    return min(timeit.repeat(run, number=1, repeat=RUNS))


if __name__ == "__main__":
    main()
