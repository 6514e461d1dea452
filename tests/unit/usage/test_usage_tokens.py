"""Counting tokens: every provider shape, each token in exactly one priced kind."""

from __future__ import annotations

from typing import Any

import pytest

from shared.usage.rejected import EventRejected
from shared.usage.tokens import PRICED_KINDS, count_tokens, processing_tier


def priced(tokens: dict[str, int] | None) -> int:
    """All tokens that carry a price."""
    assert tokens is not None
    return sum(tokens.get(kind, 0) for kind in PRICED_KINDS)


def test_openai_chat_counts_cached_inside_input_and_reasoning_inside_output() -> None:
    """A cached token is taken out of the input it was counted in, and reasoning adds nothing to the output."""
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 340,
        "total_tokens": 1540,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 64,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 10,
            "rejected_prediction_tokens": 20,
        },
    }
    tokens = count_tokens(usage, "azure-openai")
    assert tokens == {"input": 1200 - 1024, "cached_input": 1024, "output": 340, "reasoning": 64}
    assert priced(tokens) == 1200 + 340


def test_openai_audio_is_split_from_text() -> None:
    """Audio tokens have prices of their own and leave the text counts."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"audio_tokens": 30, "cached_tokens": 20},
        "completion_tokens_details": {"audio_tokens": 40},
    }
    assert count_tokens(usage, "openai") == {
        "input": 100 - 30 - 20,
        "cached_input": 20,
        "input_audio": 30,
        "output": 50 - 40,
        "output_audio": 40,
    }


def test_cached_audio_is_priced_once_when_the_overlap_is_reported() -> None:
    """The realtime shape says how much of the audio the cache served; that part is cached and nothing else."""
    usage = {
        "input_tokens": 100,
        "output_tokens": 5,
        "input_token_details": {
            "audio_tokens": 80,
            "cached_tokens": 60,
            "cached_tokens_details": {"audio_tokens": 50, "text_tokens": 10},
        },
    }
    tokens = count_tokens(usage, "openai")
    assert tokens == {"input": 100 - 60 - 30, "cached_input": 60, "input_audio": 80 - 50, "output": 5}


def test_image_tokens_are_kinds_of_their_own() -> None:
    """Image models report image tokens on both sides."""
    usage = {
        "input_tokens": 50,
        "output_tokens": 4160,
        "total_tokens": 4210,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        "output_tokens_details": {"image_tokens": 4160, "text_tokens": 0},
    }
    assert count_tokens(usage, "openai") == {"input": 10, "input_image": 40, "output_image": 4160}


def test_embeddings_have_no_output() -> None:
    """An embeddings usage object has only input."""
    assert count_tokens({"prompt_tokens": 8, "total_tokens": 8}, "azure-openai") == {"input": 8}


def test_responses_shape() -> None:
    """OpenAI Responses names the halves input_tokens and output_tokens and nests as chat does."""
    usage = {
        "input_tokens": 75,
        "input_tokens_details": {"cached_tokens": 32},
        "output_tokens": 1186,
        "output_tokens_details": {"reasoning_tokens": 1024},
        "total_tokens": 1261,
    }
    tokens = count_tokens(usage, "openai")
    assert tokens == {"input": 75 - 32, "cached_input": 32, "output": 1186, "reasoning": 1024}


def test_anthropic_cache_stands_beside_the_input() -> None:
    """Anthropic's input_tokens excludes cache reads and writes: nothing is subtracted; hour-long writes are apart."""
    usage = {
        "input_tokens": 50,
        "cache_creation_input_tokens": 556,
        "cache_read_input_tokens": 100_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 503,
        "service_tier": "standard",
        "server_tool_use": {"web_search_requests": 1},
    }
    tokens = count_tokens(usage, "anything")
    assert tokens == {
        "input": 50,
        "cached_input": 100_000,
        "cache_write": 456,
        "cache_write_1h": 100,
        "output": 503,
    }
    assert priced(tokens) == 50 + 556 + 100_000 + 503


def test_anthropic_without_a_breakdown_writes_the_short_cache() -> None:
    """Without cache_creation all writes are the five-minute kind; nulls are zero."""
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": None,
        "output_tokens": 1,
    }
    assert count_tokens(usage, "anthropic") == {"input": 10, "cache_write": 200, "output": 1}


def test_anthropic_is_told_by_provider_when_no_cache_keys_are_present() -> None:
    """The same numbers under provider anthropic and openai agree when no cache took part."""
    usage = {"input_tokens": 10, "output_tokens": 2}
    assert count_tokens(usage, "anthropic") == count_tokens(usage, "openai") == {"input": 10, "output": 2}


def test_anthropic_breakdown_alone_gives_the_total() -> None:
    """A breakdown without the sum is billed in full."""
    usage = {
        "input_tokens": 1,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
        "output_tokens": 1,
    }
    assert count_tokens(usage, "anthropic") == {"input": 1, "cache_write": 3, "cache_write_1h": 4, "output": 1}


def test_openrouter_cost_is_ignored_and_cache_writes_are_counted() -> None:
    """A price named by the reseller is not ours; its cache_write_tokens lie inside the prompt."""
    usage = {
        "prompt_tokens": 194,
        "completion_tokens": 2,
        "total_tokens": 196,
        "cost": 0.95,
        "cost_details": {"upstream_inference_cost": 19},
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    tokens = count_tokens(usage, "openrouter")
    assert tokens == {"input": 194 - 100 - 50, "cached_input": 100, "cache_write": 50, "output": 2}


def test_azure_nulls_and_unknown_keys_are_tolerated() -> None:
    """Azure may carry nulls for details and adds keys of its own."""
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "total_tokens": 19,
        "prompt_tokens_details": None,
        "completion_tokens_details": {"reasoning_tokens": None, "audio_tokens": None, "new_tokens": {"x": 1}},
        "latency_checkpoint": {"engine_tbt_ms": 8},
    }
    assert count_tokens(usage, "azure-openai") == {"input": 12, "output": 7}


def test_reasoning_reported_beside_the_output_is_billed_when_the_total_says_so() -> None:
    """Some compatible providers leave reasoning out of the output; the total proves it, and it must not be free."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 115,
        "completion_tokens_details": {"reasoning_tokens": 100},
    }
    assert count_tokens(usage, "xai") == {"input": 10, "output": 5 + 100, "reasoning": 100}


def test_a_missing_output_is_the_rest_of_the_total() -> None:
    """What the total leaves after the input is output, not nothing."""
    assert count_tokens({"prompt_tokens": 10, "total_tokens": 25}, "openai") == {"input": 10, "output": 25 - 10}


def test_thoughts_that_only_the_total_tells_are_output() -> None:
    """So Gemini counts behind OpenAI's API: 572 of these tokens were thoughts, more than half of the bill.

    What a total holds beside a cache's tokens may be those, and is no output.
    """
    usage = {"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016}
    assert count_tokens(usage, "gemini") == {"input": 20, "output": 1016 - 20}
    cached = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 44, "cache_read_input_tokens": 20}
    assert count_tokens(cached, "other") == {"cached_input": 20, "output": 4}


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_nothing_reported_is_unknown_not_zero(usage: dict[str, Any] | None) -> None:
    """Without numbers the count is None, so the call is accrued instead of costing nothing."""
    assert count_tokens(usage, "openai") is None


def test_reported_zero_is_zero() -> None:
    """Zero tokens reported is a measured zero, unlike nothing reported."""
    assert count_tokens({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, "openai") == {}


def test_integral_floats_count_as_integers() -> None:
    """JSON has one number type: emitters in some languages write 12 as 12.0."""
    assert count_tokens({"prompt_tokens": 12.0, "completion_tokens": 3.0}, "openai") == {"input": 12, "output": 3}


@pytest.mark.parametrize(
    ("usage", "param"),
    [
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 11}}, "prompt_tokens"),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 6, "audio_tokens": 6}}, "prompt_tokens"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"prompt_tokens": 1.5}, "prompt_tokens"),
        ({"prompt_tokens": True}, "prompt_tokens"),
        ({"prompt_tokens": "12"}, "prompt_tokens"),
        ({"prompt_tokens": 10**12 + 1}, "prompt_tokens"),
        ({"prompt_tokens": 10**300}, "prompt_tokens"),
        ({"prompt_tokens": float("inf")}, "prompt_tokens"),
        ({"prompt_tokens": 1, "prompt_tokens_details": [1]}, "prompt_tokens_details"),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}}, "prompt_tokens_details.cached_tokens"),
        (
            {"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 3}},
            "output_tokens_details.reasoning_tokens",
        ),
        ({"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"audio_tokens": 3}}, "output_tokens"),
        ({"prompt_tokens": 20, "total_tokens": 10}, "total_tokens"),
        (
            {"input_tokens": 1, "cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 6}},
            "cache_creation_input_tokens",
        ),
        ({"completion_tokens": 5}, ""),
        ({"cost": 0.25}, ""),
    ],
)
def test_contradictory_numbers_are_refused_by_name(usage: dict[str, Any], param: str) -> None:
    """Numbers that cannot all be true go to the dead letters with their field named; clamping would hide money."""
    with pytest.raises(EventRejected) as refusal:
        count_tokens(usage, "openai")
    assert refusal.value.code == "usage_unreadable"
    assert refusal.value.param == f"data.usage.{param}".rstrip(".")
    assert refusal.value.message.startswith(f"{refusal.value.param}: ")


@pytest.mark.parametrize(
    ("stated", "usage", "tier"),
    [
        ("", None, None),
        ("", {"service_tier": "default"}, None),
        ("", {"service_tier": "Priority"}, "priority"),
        ("batch", {"service_tier": "standard"}, "batch"),
        ("standard", {"service_tier": "priority"}, None),
        ("standard_only", None, None),
        ("", {"service_tier": {"x": 1}}, None),
        ("", {"service_tier": "standard", "speed": "fast"}, "fast"),
        ("", {"service_tier": "standard", "inference_geo": "us"}, "inference-us"),
        ("", {"service_tier": "priority", "inference_geo": "us"}, "priority"),
        ("", {"service_tier": "standard", "inference_geo": "global"}, None),
        ("", {"inference_geo": "not_available"}, None),
    ],
)
def test_processing_tier_prefers_what_the_event_states(
    stated: str, usage: dict[str, Any] | None, tier: str | None
) -> None:
    """The event's field wins over the usage object's; the standard tier has no name."""
    assert processing_tier(stated, usage) == tier
