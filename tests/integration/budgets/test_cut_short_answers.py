"""Answers that the caller's own cap ended do not teach how long answers are."""

from __future__ import annotations

from tests.support.engine import budget, config, flushed, usd
from tests.support.stack import Stack, delivery, usage_bytes

SCOPES = {"team": "search"}
INPUT_TOKENS, TYPICAL_OUTPUT_TOKENS = 125, 500


async def held_after(redis_url: str, storage: str, cap: int | None, output_tokens: int) -> int:
    """What one call without a cap holds after 40 answers of `output_tokens`, asked for with `cap`."""
    client = await flushed(redis_url)
    settings = config(budget("team:search", usd(10)))
    stack = await Stack.start(client, storage, settings, default_output_tokens=TYPICAL_OUTPUT_TOKENS)
    await stack.open()
    bodies = [
        usage_bytes(f"{cap}-{output_tokens}-{i}", INPUT_TOKENS, output_tokens, scopes=SCOPES, max_output_tokens=cap)
        for i in range(40)
    ]
    await stack.ingest.run([delivery(body, i) for i, body in enumerate(bodies)])
    await stack.check(scopes=SCOPES, input_tokens=INPUT_TOKENS, max_output_tokens=None)
    held = (await stack.spent_and_held())[1]
    await stack.close()
    await client.aclose()
    return held


async def test_answers_cut_short_by_their_cap_do_not_lower_what_other_calls_hold(redis_server, azurite):
    """Forty one-token classifications, then a burst of essays: trusting the former overspent a budget 18 times."""
    untaught = await held_after(redis_server.url, azurite.connection_string, 500, 500)
    assert await held_after(redis_server.url, azurite.connection_string, 1, 1) == untaught


async def test_answers_that_end_by_themselves_or_run_long_teach(redis_server, azurite):
    """A short answer under a wide cap is a short answer; one that fills a wide cap is at least that long."""
    typical = await held_after(redis_server.url, azurite.connection_string, None, 500)
    assert await held_after(redis_server.url, azurite.connection_string, 900, 20) < typical
    assert await held_after(redis_server.url, azurite.connection_string, 900, 900) > typical
