"""What the simulated model answers: a pure function of the request, so a test can predict every token."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.model.json_answers import asked_schema, example_of

CHARS_PER_TOKEN = 4
IMAGE_TOKENS = 85  # what an image of low detail costs at OpenAI, however many bytes it has
SMALLEST_CACHED_PROMPT_TOKENS = 1024  # as OpenAI documents prompt caching: from 1024 tokens on, in steps of 128
CACHE_STEP_TOKENS = 128
DEFAULT_OUTPUT_TOKENS = (20, 180)  # lowest, and how far the prompt's checksum may add to it
MOST_PIECES = 60  # of one stream: longer answers carry more words per piece, so that they stay quick to relay
REASONING_PREFIXES = ("o1", "o3", "o4", "gpt-5")
SERVICE_TIERS = ("default", "flex", "priority", "scale")
SENTENCE = (
    "the budget holds and each call is counted once while tokens flow through a gate that keeps the promise of a "
    "price at its moment so every team can see what it spent and what is left before the month ends"
)
WORDS = tuple(SENTENCE.split())


@dataclass(frozen=True)
class Prompt:
    """What a request asks, whichever API it came by."""

    text: str  # every text in order, the tools' schemas included, as they too are billed as input
    last_words: tuple[str, ...]  # of the last message
    images: int
    tool_names: tuple[str, ...]  # functions the answer may call
    chosen_tool: str | None  # the one the caller insists on
    tool_required: bool
    output_cap_tokens: int | None
    choices: int = 1
    service_tier: str = "default"
    schema: Mapping[str, Any] | None = None  # of the JSON that the caller wants for an answer
    tool_schemas: Mapping[str, Any] = field(default_factory=dict)  # what each function takes

    @property
    def tokens(self) -> int:
        """What the prompt counts."""
        return count_tokens(self.text) + self.images * IMAGE_TOKENS


@dataclass(frozen=True)
class Answer:
    """One answer: its words (one per token), the tool it calls instead, and what it counts as usage."""

    words: tuple[str, ...]
    choices: int
    tool_name: str | None
    cut_short: bool  # by the caller's cap on output tokens
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int  # of all choices, reasoning included
    reasoning_tokens: int
    service_tier: str = "default"
    tool_example: Any = None  # arguments that fit the called tool, when it wants more than a query

    @property
    def text(self) -> str:
        """The answer as text."""
        return " ".join(self.words)

    @property
    def tool_arguments(self) -> str:
        """The arguments of the tool call, as JSON."""
        return json.dumps({"query": self.text} if self.tool_example is None else self.tool_example)

    def pieces(self) -> Iterator[tuple[str, int]]:
        """The text in the pieces of a stream, each with the tokens it carries."""
        size = -(-len(self.words) // MOST_PIECES) or 1
        for start in range(0, len(self.words), size):
            words = self.words[start : start + size]
            yield (" " if start else "") + " ".join(words), len(words)


def chat_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a chat completion request."""
    contents = [message.get("content") for message in body.get("messages", []) if isinstance(message, dict)]
    functions = [tool["function"] for tool in body.get("tools") or [] if tool.get("type") == "function"]
    choice = body.get("tool_choice", "auto")
    cap = body.get("max_completion_tokens") or body.get("max_tokens")
    function = choice.get("function") if isinstance(choice, dict) else None
    named = str(function.get("name")) if isinstance(function, dict) else None
    return _prompt(contents, body, functions, named, cap, choices=int(body.get("n") or 1))


def responses_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a Responses request: its instructions, then its input, one text or a list of items."""
    asked = body.get("input")
    items = asked if isinstance(asked, list) else [{"content": asked}]
    contents = [body.get("instructions") or ""]
    contents += [_item_content(item) for item in items if isinstance(item, dict)]
    functions = [tool for tool in body.get("tools") or [] if tool.get("type") == "function"]
    choice = body.get("tool_choice", "auto")
    named = str(choice.get("name")) if isinstance(choice, dict) else None
    return _prompt(contents, body, functions, named, body.get("max_output_tokens"))


def answer_to(
    model: str, prompt: Prompt, wanted_output_tokens: int | None, *, seen_before: bool, echo: bool = False
) -> Answer:
    """The answer to a prompt; `seen_before`: it was served already (prompt caching); `echo`: begin with its words."""
    lowest, spread = DEFAULT_OUTPUT_TOKENS
    start = zlib.crc32(prompt.text.encode())
    tool_name = _called_tool(prompt)
    structure = None if prompt.schema is None or tool_name else json.dumps(example_of(prompt.schema)).split(" ")
    # Filler would break the JSON, so what is asked for decides its length.
    wanted = len(structure) if structure else wanted_output_tokens or lowest + start % spread
    cap = prompt.output_cap_tokens
    output_tokens = min(wanted, cap) if cap else wanted
    reasoning = output_tokens // 2 if model.startswith(REASONING_PREFIXES) and not structure else 0
    said = structure or (prompt.last_words if echo else ())
    filler = (WORDS[(start + i) % len(WORDS)] for i in range(output_tokens - reasoning))
    return Answer(
        words=(*said, *filler)[: output_tokens - reasoning],
        choices=prompt.choices,
        tool_name=tool_name,
        tool_example=_tool_example(prompt.tool_schemas.get(tool_name or "")),
        cut_short=output_tokens < wanted,
        prompt_tokens=prompt.tokens,
        cached_tokens=_cached_tokens(prompt.tokens) if seen_before else 0,
        completion_tokens=output_tokens * prompt.choices,
        reasoning_tokens=reasoning * prompt.choices,
        service_tier=prompt.service_tier,
    )


def count_tokens(text: str) -> int:
    """Tokens of a text: its characters by four, rounded up, at least one."""
    return max(1, -(-len(text) // CHARS_PER_TOKEN))


def _prompt(
    contents: list[Any],
    body: Mapping[str, Any],
    functions: list[Any],
    named: str | None,
    cap: Any,
    choices: int = 1,
) -> Prompt:
    texts = [_text_in(content) for content in contents]
    last_words = tuple(texts[-1].split()) if texts else ()
    if body.get("tools"):
        texts.append(json.dumps(body["tools"], sort_keys=True))
    tier = body.get("service_tier")
    unwanted = body.get("tool_choice") == "none"
    return Prompt(
        text="\n".join(texts),
        last_words=last_words,
        images=sum(_images_in(content) for content in contents),
        tool_names=() if unwanted else tuple(str(function["name"]) for function in functions),
        chosen_tool=named,
        tool_required=body.get("tool_choice") == "required",
        output_cap_tokens=cap if isinstance(cap, int) and cap > 0 else None,
        choices=choices,
        service_tier=tier if tier in SERVICE_TIERS else "default",
        schema=asked_schema(body),
        tool_schemas={str(function["name"]): function.get("parameters") for function in functions},
    )


def _item_content(item: Mapping[str, Any]) -> Any:
    """What is said in an input item: a message's content, what a tool answered, or what it was called with."""
    for name in ("content", "output", "arguments"):
        if item.get(name) is not None:
            return item[name]
    return ""


def _text_in(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _images_in(content: Any) -> int:
    parts = content if isinstance(content, list) else []
    return sum(isinstance(part, dict) and part.get("type") in ("image_url", "input_image") for part in parts)


def _cached_tokens(prompt_tokens: int) -> int:
    if prompt_tokens < SMALLEST_CACHED_PROMPT_TOKENS:
        return 0
    return prompt_tokens // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS


def _tool_example(schema: Any) -> Any:
    """Arguments for a function that wants others than a query; None when a query will do."""
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return None if not properties or "query" in properties else example_of(schema)


def _called_tool(prompt: Prompt) -> str | None:
    """The function this answer calls: the one insisted on, any when one is required, or one that the user names."""
    if not prompt.tool_names:
        return None
    if prompt.chosen_tool is not None:
        return prompt.chosen_tool
    if prompt.tool_required:
        return prompt.tool_names[0]
    asked = " ".join(prompt.last_words)
    return next((name for name in prompt.tool_names if name in asked), None)
