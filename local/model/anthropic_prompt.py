"""What a request to Anthropic's Messages API asks, how much of it the cache knows, and why it may be refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from local.model.answers import Prompt, count_tokens

SMALLEST_CACHED_TOKENS = 1024  # of a prefix that Anthropic keeps
VERSION_HEADER = "anthropic-version"
_FIELDS = {
    *("cache_control", "container", "diagnostics", "inference_geo", "max_tokens", "messages", "metadata", "model"),
    *("output_config", "service_tier", "speed", "stop_sequences", "stream", "system", "temperature", "thinking"),
    *("tool_choice", "tools", "top_k", "top_p"),
}
_PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")


class Cached(NamedTuple):
    """How much of a prompt was read from the cache or written to it."""

    read_tokens: int = 0
    written_tokens: int = 0
    written_1h_tokens: int = 0  # of those: to be kept for an hour


def problem_with(body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> str | None:
    """What Anthropic would refuse this request for, in its own words as far as those are stable."""
    if body is None:
        return "The request body is not valid JSON"
    if VERSION_HEADER not in headers:
        return f"{VERSION_HEADER}: header is required"
    if unknown := sorted(body.keys() - _FIELDS):
        return f"{unknown[0]}: Extra inputs are not permitted"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        return "max_tokens: Field required"
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        return "messages: at least one message is required"
    if not 0 <= body.get("temperature", 1) <= 1:
        return "temperature: range: 0..1"
    return _unreadable(turns) or _unpaired(turns, has_tools=bool(body.get("tools")))


def prompt_of(body: Mapping[str, Any]) -> Prompt:
    """The prompt: the tools first, then the system prompt, then the turns, as Anthropic's cache reads them."""
    tools = [tool for tool in body.get("tools") or [] if "input_schema" in tool]
    choice = body.get("tool_choice") or {"type": "auto"}
    format_ = (body.get("output_config") or {}).get("format") or {}
    last = body["messages"][-1]
    return Prompt(
        text="\n".join(text for text, _ in _parts(body)),
        last_words=tuple(" ".join(_text_in(block) for block in _blocks(last.get("content"))).split()),
        images=sum(block.get("type") == "image" for turn in body["messages"] for block in _blocks(turn.get("content"))),
        tool_names=() if choice.get("type") == "none" else tuple(str(tool["name"]) for tool in tools),
        chosen_tool=choice.get("name") if choice.get("type") == "tool" else None,
        tool_required=choice.get("type") == "any",
        output_cap_tokens=body["max_tokens"],
        schema=format_.get("schema"),
        tool_schemas={str(tool["name"]): tool["input_schema"] for tool in tools},
    )


def cached(body: Mapping[str, Any], seen_before: Callable[[str], bool]) -> Cached:
    """What the cache has of this prompt. Every mark ends a prefix; the longest one that was seen is read, and what
    stands between that and the last mark is written. `seen_before` remembers what it is asked.
    """
    texts: list[str] = []
    read = last = hour = 0
    for text, mark in _parts(body):
        texts.append(text)
        if mark is None:
            continue
        prefix = "\n".join(texts)
        tokens = count_tokens(prefix)
        if tokens < SMALLEST_CACHED_TOKENS:
            continue
        if seen_before(prefix):
            read = tokens
        elif mark.get("ttl") == "1h":
            hour += tokens - max(read, last)
        last = tokens
    return Cached(read, last - read, hour)


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """(text, mark of the cache or None) of everything in a prompt, in the cache's order."""
    for tool in body.get("tools") or []:
        yield json.dumps({**tool, "cache_control": None}, sort_keys=True), tool.get("cache_control")
    blocks = _blocks(body.get("system"))
    for turn in body["messages"]:
        blocks += _blocks(turn.get("content"))
    for position, block in enumerate(blocks, start=1):
        mark = block.get("cache_control")
        yield _text_in(block), body.get("cache_control") if mark is None and position == len(blocks) else mark


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or [] if isinstance(block, dict)]


def _text_in(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "tool_result":
        return "\n".join(_text_in(part) for part in _blocks(block.get("content")))
    if kind == "tool_use":
        return json.dumps(block.get("input"))
    if kind == "document":
        source = block.get("source") or {}
        return str(source.get("data", "")) if source.get("type") == "text" else ""
    return str(block.get("text") or block.get("thinking") or "")


def _unreadable(turns: list[Any]) -> str | None:
    """A text that says nothing, a picture of another kind."""
    for index, turn in enumerate(turns):
        for block in _blocks(turn.get("content")):
            if block.get("type") == "text" and not str(block.get("text") or "").strip():
                return "messages: text content blocks must contain non-whitespace text"
            source = block.get("source") or {}
            if (
                block.get("type") == "image"
                and source.get("type") == "base64"
                and source["media_type"] not in _PICTURES
            ):
                return f"messages.{index}.content: media_type: Input should be one of {', '.join(_PICTURES)}"
    return None


def _unpaired(turns: list[Any], *, has_tools: bool) -> str | None:
    """Each result of a tool must stand right behind the turn that called it, and all of a turn's in one."""
    called: set[Any] = set()
    for index, turn in enumerate(turns):
        blocks = _blocks(turn.get("content"))
        results = {block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"}
        if results - called:
            return f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks"
        if called - results:
            return f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after"
        called = {block.get("id") for block in blocks if block.get("type") == "tool_use"}
        if called and not has_tools:
            return "tools: Requests which have `tool_use` blocks must define tools"
    return None
