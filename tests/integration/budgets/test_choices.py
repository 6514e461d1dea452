"""A call that asks for several answers at once holds what all of them may cost."""

from __future__ import annotations

import pytest

from tests.support.engine import Engine, budget, config, flushed, usd

INPUT_TOKENS, TYPICAL_OUTPUT_TOKENS = 125, 500
INPUT_NANO_USD, OUTPUT_NANO_USD = 1_000, 2_000  # per token of `big`


@pytest.mark.parametrize(
    ("cap", "choices", "output_tokens"),
    [
        (None, 1, 500),
        (None, 128, 128 * 500),
        (3 * 100, 3, 3 * 100),  # no more than the caller lets it be
        (3 * 900, 3, 3 * 500),
    ],
)
async def test_every_choice_is_held(redis_server, cap, choices, output_tokens):
    """128 answers held as one let a burst pass its budget five times over, although the caller had said how many."""
    client = await flushed(redis_server.url)
    engine = Engine(client, config(budget("team:search", usd(10))), default_output_tokens=TYPICAL_OUTPUT_TOKENS)
    await engine.open()
    await engine.check(input_tokens=INPUT_TOKENS, max_output_tokens=cap, choices=choices)
    held = (await engine.spent_and_held())[1]
    assert held == INPUT_TOKENS * INPUT_NANO_USD + output_tokens * OUTPUT_NANO_USD
    await client.aclose()
