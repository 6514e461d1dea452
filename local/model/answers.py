"""What the simulated model answers: a pure function of the request, so a test can predict every token."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHARS_PER_TOKEN = 4
SMALLEST_CACHED_PROMPT_TOKENS = 1024  # as OpenAI documents prompt caching: from 1024 tokens on, in steps of 128
CACHE_STEP_TOKENS = 128
DEFAULT_OUTPUT_TOKENS = (20, 180)  # lowest, and how far the prompt's checksum may add to it
EMBEDDING_DIMENSIONS = 16
REASONING_PREFIXES = ("o1", "o3", "o4", "gpt-5")
SENTENCE = (
    "the budget holds and each call is counted once while tokens flow through a gate that keeps the promise of a "
    "price at its moment so every team can see what it spent and what is left before the month ends"
)
WORDS = tuple(SENTENCE.split())


@dataclass(frozen=True)
class Answer:
    """One chat answer: its words (one per token), the calls of tools it makes instead, and what it counts as usage."""

    words: tuple[str, ...]
    choices: int
    tool_name: str | None
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int

    @property
    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object with its details."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def prompt_text(body: Mapping[str, Any]) -> str:
    """Every text of the prompt in order, the tools' schemas included, as they too are billed as input."""
    texts = [_content_text(message.get("content")) for message in body.get("messages", [])]
    if body.get("tools"):
        texts.append(json.dumps(body["tools"], sort_keys=True))
    return "\n".join(texts)


def _content_text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def count_tokens(text: str) -> int:
    """Tokens of a text: its characters by four, rounded up, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def answer_chat(model: str, body: Mapping[str, Any], wanted_output_tokens: int | None, seen_before: bool) -> Answer:
    """The answer to one chat request; `seen_before` says that this very prompt was served already (prompt caching)."""
    prompt = prompt_text(body)
    prompt_tokens = count_tokens(prompt)
    cap = body.get("max_completion_tokens") or body.get("max_tokens")
    lowest, spread = DEFAULT_OUTPUT_TOKENS
    wanted = wanted_output_tokens or lowest + zlib.crc32(prompt.encode()) % spread
    output_tokens = min(wanted, cap) if cap else wanted
    choices = int(body.get("n") or 1)
    tool_name = _called_tool(body)
    reasoning = output_tokens // 2 if model.startswith(REASONING_PREFIXES) else 0
    finish_reason = "tool_calls" if tool_name else "length" if output_tokens < wanted else "stop"
    return Answer(
        words=_words(prompt, output_tokens - reasoning),
        choices=choices,
        tool_name=tool_name,
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens,
        cached_tokens=_cached_tokens(prompt_tokens) if seen_before else 0,
        completion_tokens=output_tokens * choices,
        reasoning_tokens=reasoning * choices,
    )


def embed(text: str) -> list[float]:
    """A small deterministic unit-free vector."""
    seed = zlib.crc32(text.encode())
    return [((seed >> (i % 24)) & 0xFF) / 255 - 0.5 for i in range(EMBEDDING_DIMENSIONS)]


def _cached_tokens(prompt_tokens: int) -> int:
    if prompt_tokens < SMALLEST_CACHED_PROMPT_TOKENS:
        return 0
    return prompt_tokens // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS


def _words(prompt: str, count: int) -> tuple[str, ...]:
    start = zlib.crc32(prompt.encode()) % len(WORDS)
    return tuple(WORDS[(start + i) % len(WORDS)] for i in range(count))


def _called_tool(body: Mapping[str, Any]) -> str | None:
    """The function this answer calls: the one tool_choice names, or any when one is required, or one the user names."""
    names = [tool["function"]["name"] for tool in body.get("tools") or [] if tool.get("type") == "function"]
    choice = body.get("tool_choice", "auto")
    if not names or choice == "none":
        return None
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    if choice == "required":
        return str(names[0])
    messages = body.get("messages") or [{}]
    asked = _content_text(messages[-1].get("content"))
    return next((str(name) for name in names if name in asked), None)
