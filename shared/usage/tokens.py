"""The provider's own usage object, in any of the shapes understood, as disjoint counts that can each be priced once.

Providers nest differently: OpenAI counts cached tokens inside the input and reasoning inside the output, Anthropic
reports cache reads and writes beside the input. Adding or subtracting the wrong way bills tokens twice or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.usage.rejected import EventRejected

Tokens = dict[str, int]
"""Tokens by kind, zeros left out: the disjoint `PRICED_KINDS`, and `reasoning`, which informs and is inside output."""

PRICED_KINDS = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "output",
    "output_audio",
    "output_image",
)
MAX_TOKENS = 10**12
_NONE: Mapping[str, Any] = {}
_ANYWHERE = frozenset({"", "global", "not_available"})
STANDARD_TIERS = frozenset({"", "default", "standard", "standard_only", "auto"})
"""What providers and requests call the processing tier that needs no name, in lower case."""


def count_tokens(usage: Mapping[str, Any] | None, provider: str) -> Tokens | None:
    """Tokens by kind; None when the provider reported nothing, `{}` when it reported zero.

    Raises EventRejected `usage_unreadable` for a shape not understood and for numbers that contradict each other:
    clamping them to something possible would hide money.
    """
    if usage is None or all(value is None for value in usage.values()):
        return None
    if usage.get("prompt_tokens") is not None:
        return _inclusive(usage, "prompt_tokens", "completion_tokens")
    if usage.get("input_tokens") is not None:
        beside = "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage
        if beside or provider.lower() == "anthropic":
            return _anthropic(usage)
        return _inclusive(usage, "input_tokens", "output_tokens")
    raise _unreadable("expected prompt_tokens or input_tokens", "")


def processing_tier(stated: str, usage: Mapping[str, Any] | None) -> str | None:
    """The price tier in lower case (`batch`, `priority`, `flex`, ...); None for the standard one.

    `stated` is the event's own field and wins; else what the usage object tells.
    """
    tier = stated or told_tier(usage or {})
    if not isinstance(tier, str) or len(tier) > 128:
        return None
    tier = tier.strip().lower()
    return None if tier in STANDARD_TIERS else tier


def told_tier(told: Mapping[str, Any]) -> Any:
    """What a usage object, or a request, says of the tier that its price depends on: `service_tier`, or what Anthropic
    has a price of its own for beside that, `fast` answers and those bound to one geography's data centres.
    """
    if told.get("speed") == "fast":
        return "fast"
    tier, geo = told.get("service_tier"), told.get("inference_geo")
    is_bound = isinstance(geo, str) and geo.lower() not in _ANYWHERE
    return f"inference-{geo}" if is_bound and tier in (None, *STANDARD_TIERS) else tier


def _inclusive(usage: Mapping[str, Any], input_field: str, output_field: str) -> Tokens:
    """OpenAI and Azure OpenAI, chat, Responses and embeddings: the details are parts of the input and the output."""
    inside, inside_path = _details(usage, input_field + "_details")
    outside, outside_path = _details(usage, output_field + "_details")
    total_input = _count(usage, input_field)
    reasoning = _count(outside, "reasoning_tokens", outside_path)

    cached = _count(inside, "cached_tokens", inside_path) or _count(usage, "cache_read_input_tokens")
    write = (
        _count(inside, "cache_write_tokens", inside_path)
        or _count(inside, "cache_creation_tokens", inside_path)
        or _count(usage, "cache_creation_input_tokens")
    )
    total_output = _output(usage, total_input, output_field, reasoning, has_cache=bool(cached or write))
    audio = _count(inside, "audio_tokens", inside_path)
    image = _count(inside, "image_tokens", inside_path)
    if cached and (audio or image) and isinstance(of_cached := inside.get("cached_tokens_details"), dict):
        path = f"{inside_path}cached_tokens_details."  # what the cache served is priced as cached, whatever it carried
        audio = _rest(audio, f"{inside_path}audio_tokens", _count(of_cached, "audio_tokens", path))
        image = _rest(image, f"{inside_path}image_tokens", _count(of_cached, "image_tokens", path))

    audio_out = _count(outside, "audio_tokens", outside_path)
    image_out = _count(outside, "image_tokens", outside_path)
    if reasoning > total_output:
        raise _unreadable(f"{reasoning} is more than all output, {total_output}", f"{outside_path}reasoning_tokens")
    return _nonzero(
        input=_rest(total_input, input_field, cached, write, audio, image),
        cached_input=cached,
        cache_write=write,
        input_audio=audio,
        input_image=image,
        output=_rest(total_output, output_field, audio_out, image_out),
        output_audio=audio_out,
        output_image=image_out,
        reasoning=reasoning,
    )


def _output(usage: Mapping[str, Any], total_input: int, field: str, reasoning: int, *, has_cache: bool) -> int:
    """All output tokens. The total bears witness where the output is missing, or counted without its reasoning."""
    total = _count(usage, "total_tokens")
    if usage.get(field) is None:  # embeddings
        return _rest(total, "total_tokens", total_input) if total else 0
    output = _count(usage, field)
    if reasoning and total == total_input + output + reasoning:
        return output + reasoning  # some OpenAI-compatible providers report reasoning beside the output
    if not reasoning and not has_cache and total > total_input + output:
        return total - total_input  # Gemini's thoughts stand in the total only, and are most of what it bills
    return output


def _anthropic(usage: Mapping[str, Any]) -> Tokens:
    """Anthropic: cache reads and writes stand beside the input; thinking is inside the output."""
    written = _count(usage, "cache_creation_input_tokens")
    by_life = usage.get("cache_creation")
    one_hour = 0
    if isinstance(by_life, dict):
        one_hour = _count(by_life, "ephemeral_1h_input_tokens", "cache_creation.")
        parts = one_hour + _count(by_life, "ephemeral_5m_input_tokens", "cache_creation.")
        if usage.get("cache_creation_input_tokens") is None:
            written = parts
        _rest(written, "cache_creation_input_tokens", parts)
    details, path = _details(usage, "output_tokens_details")
    output = _count(usage, "output_tokens")
    reasoning = _count(details, "reasoning_tokens", path) or _count(details, "thinking_tokens", path)
    _rest(output, "output_tokens", reasoning)
    return _nonzero(
        input=_count(usage, "input_tokens"),
        cached_input=_count(usage, "cache_read_input_tokens"),
        cache_write=written - one_hour,
        cache_write_1h=one_hour,
        output=output,
        reasoning=reasoning,
    )


def _details(usage: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The details object of a count, empty when null or absent, and its path for messages."""
    details = usage.get(name)
    if details is None:
        name = name.replace("tokens_", "token_")  # as the realtime API spells it
        details = usage.get(name)
    if details is None:
        return _NONE, ""
    if not isinstance(details, dict):
        raise _unreadable("expected an object", name)
    return details, name + "."


def _count(counts: Mapping[str, Any], name: str, path: str = "") -> int:
    """A token count, 0 when null or absent. JSON has one number type, so 12.0 counts as 12."""
    value = counts.get(name)
    if value is None:
        return 0
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    raise _unreadable(f"expected a whole number from 0 to {MAX_TOKENS}, got {_shown(value)}", f"{path}{name}")


def _shown(value: object) -> str:
    """A number as it is, anything else by its type: it may be long, nested or private."""
    if isinstance(value, int | float) and abs(value) < 1e30:
        return repr(value)
    return type(value).__name__


def _rest(whole: int, name: str, *parts: int) -> int:
    """What the parts leave of the whole; parts that pass it contradict it."""
    rest = whole - sum(parts)
    if rest < 0:
        raise _unreadable(f"{whole} is less than the sum of its parts, {sum(parts)}", name)
    return rest


def _nonzero(**counts: int) -> Tokens:
    return {kind: count for kind, count in counts.items() if count}


def _unreadable(detail: str, field: str) -> EventRejected:
    path = f"data.usage.{field}" if field else "data.usage"
    return EventRejected(f"{path}: {detail}", code="usage_unreadable", param=path)
