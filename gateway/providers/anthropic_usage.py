"""Anthropic's usage object: merged over a stream for the bill, and as OpenAI's clients read it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.usage.tokens import told_tier

Json = dict[str, Any]


def merged_usage(begun: Mapping[str, Any], ended: Mapping[str, Any]) -> Json:
    """The usage of a stream so far: its events count up from the beginning, so a later count replaces an earlier one.

    What a later event does not name, or names as null, stays: the split of what was written to the cache by its time to
    live, for one, comes at the beginning only. So does a count that a later one would lower: servers that speak this
    API without being Anthropic say 0 of what they told before.
    """
    merged = dict(begun)
    for name, value in ended.items():
        told = merged.get(name)
        is_lower = isinstance(value, int) and isinstance(told, int) and value < told
        if value is not None and not is_lower:
            merged[name] = value
    return merged


def processing_tier(usage: Mapping[str, Any]) -> str:
    """The tier that the price depends on; empty where the usage says none."""
    tier = told_tier(usage)
    return tier if isinstance(tier, str) else ""


def client_tier(usage: Mapping[str, Any]) -> str | None:
    """The tier in OpenAI's words."""
    return {"standard": "default", "priority": "priority"}.get(str(usage.get("service_tier")))


def client_usage(usage: Mapping[str, Any]) -> Json:
    """The same counts in OpenAI's shape: cached tokens are inside the prompt's there, thinking is inside the output's.

    Only for the client to see: the bill is made from Anthropic's own object.
    """
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    prompt, output = _count(usage, "input_tokens") + read + written, _count(usage, "output_tokens")
    shown: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }
    details = usage.get("output_tokens_details")
    if isinstance(details, dict):
        shown["completion_tokens_details"] = {"reasoning_tokens": _count(details, "thinking_tokens")}
    return shown


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
