"""An answer in the shape of OpenAI's Responses API, whole or as the typed events of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local.model.answers import Answer
from local.model.pieces import Piece, event

# What a response repeats from its request, with OpenAI's defaults where the request says nothing.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_STILL_TO_COME: dict[str, dict[str, Any]] = {"message": {"content": []}, "function_call": {"arguments": ""}}


def response(
    response_id: str, created: int, model: str, body: Mapping[str, Any], answer: Answer, filler: str = ""
) -> dict[str, Any]:
    """A finished response object; `filler` is text beyond what is counted, for tests of large bodies."""
    items = [_reasoning(response_id)] if answer.reasoning_tokens else []
    items.append(_call(response_id, answer) if answer.tool_name else _message(response_id, answer, filler))
    cut = answer.cut_short
    return {
        **_head(response_id, created, model, body, answer),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": items,
        "usage": usage(answer),
    }


def usage(answer: Answer) -> dict[str, Any]:
    """The usage object in Responses' own names."""
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def events(
    response_id: str, created: int, model: str, body: Mapping[str, Any], answer: Answer, *, include_usage: bool = True
) -> Iterator[Piece]:
    """The stream of a response: every event numbered, the last one holding the whole response with its usage."""
    finished = response(response_id, created, model, body, answer)
    if not include_usage:
        finished["usage"] = None
    begun = {**_head(response_id, created, model, body, answer), "status": "in_progress", "output": [], "usage": None}
    end = "response.incomplete" if answer.cut_short else "response.completed"
    steps: list[tuple[str, dict[str, Any], int]] = [
        ("response.created", {"response": begun}, 0),
        ("response.in_progress", {"response": begun}, 0),
    ]
    for index, item in enumerate(finished["output"]):
        at = {"output_index": index}
        steps.append(("response.output_item.added", {**at, "item": _unfinished(item)}, 0))
        steps += [(name, {**at, "item_id": item["id"], **data}, tokens) for name, data, tokens in _inside(item, answer)]
        steps.append(("response.output_item.done", {**at, "item": item}, 0))
    steps.append((end, {"response": finished}, 0))
    for number, (name, data, tokens) in enumerate(steps):
        yield event({"type": name, "sequence_number": number, **data}, tokens, name=name)


def _head(response_id: str, created: int, model: str, body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    repeated = {name: default if body.get(name) is None else body[name] for name, default in _REPEATED.items()}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "model": model,
        "error": None,
        "incomplete_details": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": answer.service_tier,
        **repeated,
    }


def _reasoning(response_id: str) -> dict[str, Any]:
    return {"id": f"rs_{response_id}", "type": "reasoning", "summary": []}


def _message(response_id: str, answer: Answer, filler: str) -> dict[str, Any]:
    return {
        "id": f"msg_{response_id}",
        "type": "message",
        "role": "assistant",
        "status": "incomplete" if answer.cut_short else "completed",
        "content": [_text_part(answer.text + filler)],
    }


def _call(response_id: str, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"fc_{response_id}",
        "type": "function_call",
        "call_id": "call_sim_1",
        "name": answer.tool_name,
        "arguments": answer.tool_arguments,
        "status": "completed",
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _unfinished(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is announced: without what is still to come."""
    still_to_come = _STILL_TO_COME.get(item["type"])
    return item if still_to_come is None else {**item, **still_to_come, "status": "in_progress"}


def _inside(item: dict[str, Any], answer: Answer) -> Iterator[tuple[str, dict[str, Any], int]]:
    """The events between an item's first and last: (type, data, tokens)."""
    if item["type"] == "message":
        at, text = {"content_index": 0}, item["content"][0]["text"]
        yield "response.content_part.added", {**at, "part": _text_part("")}, 0
        for delta, tokens in answer.pieces():
            yield "response.output_text.delta", {**at, "delta": delta, "logprobs": []}, tokens
        yield "response.output_text.done", {**at, "text": text, "logprobs": []}, 0
        yield "response.content_part.done", {**at, "part": item["content"][0]}, 0
    elif item["type"] == "function_call":
        arguments = item["arguments"]
        yield "response.function_call_arguments.delta", {"delta": arguments}, len(answer.words)
        yield "response.function_call_arguments.done", {"arguments": arguments, "name": item["name"]}, 0
