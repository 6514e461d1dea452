"""An answer in the shape of OpenAI's chat completions, whole or as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from local.model.answers import Answer
from local.model.pieces import Piece, event

DONE = Piece(b"data: [DONE]\n\n")


def completion(answer_id: str, created: int, model: str, answer: Answer, filler: str = "") -> dict[str, Any]:
    """A chat completion object; `filler` is text beyond what is counted, for tests of large bodies."""
    choices = [_choice(answer, index, filler) for index in range(answer.choices)]
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage(answer),
        "service_tier": answer.service_tier,
        "system_fingerprint": "fp_simulated",
    }


def usage(answer: Answer) -> dict[str, Any]:
    """OpenAI's usage object with its details."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chunks(answer_id: str, created: int, model: str, answer: Answer, *, include_usage: bool) -> Iterator[Piece]:
    """The stream of a chat completion, the usage chunk last when it was asked for."""
    head: dict[str, Any] = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "service_tier": answer.service_tier,
    }
    if include_usage:
        head["usage"] = None  # as OpenAI does: every chunk but the last carries a null
    for delta, tokens, finish_reason in _deltas(answer):
        choices = [{"index": index, "delta": delta, "finish_reason": finish_reason} for index in range(answer.choices)]
        yield event({**head, "choices": choices}, tokens * answer.choices)
    if include_usage:
        yield event({**head, "choices": [], "usage": usage(answer)})
    yield DONE


def _finish_reason(answer: Answer) -> str:
    if answer.tool_name:
        return "tool_calls"
    return "length" if answer.cut_short else "stop"


def _tool_calls(answer: Answer) -> list[dict[str, Any]]:
    function = {"name": answer.tool_name, "arguments": answer.tool_arguments}
    return [{"id": "call_sim_1", "type": "function", "function": function}]


def _choice(answer: Answer, index: int, filler: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text + filler, "refusal": None, "annotations": []}
    if answer.tool_name:
        message |= {"content": None, "tool_calls": _tool_calls(answer)}
    return {"index": index, "message": message, "finish_reason": _finish_reason(answer), "logprobs": None}


def _deltas(answer: Answer) -> Iterator[tuple[dict[str, Any], int, str | None]]:
    """The stream's pieces: (delta, tokens of one choice, finish reason on the last)."""
    yield {"role": "assistant", "content": ""}, 0, None
    if answer.tool_name:
        yield {"tool_calls": [{"index": 0, **call} for call in _tool_calls(answer)]}, len(answer.words), None
    else:
        for text, tokens in answer.pieces():
            yield {"content": text}, tokens, None
    yield {}, 0, _finish_reason(answer)
