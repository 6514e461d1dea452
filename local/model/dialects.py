"""How providers that follow OpenAI's API differ from it, so that a gateway meets their ways before their customers do.

* OpenRouter: comments while a stream waits, usage with a cost on every answer, names of its own beside OpenAI's;
* Databricks: fields it does not know are refused by name, errors have a shape of their own, every chunk tells usage,
  and models that reason answer in parts;
* plain: a compatible server that refuses `stream_options` and tells no usage at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from local.model.answers import Answer
from local.model.chat import usage
from local.model.pieces import Piece, event

Json = dict[str, Any]
_DATA = b"data: "


class Dialect:
    """OpenAI's own way: nothing is different."""

    def refusal(self, body: Mapping[str, Any]) -> Response | None:
        """The answer to a request that this provider does not take."""
        return None

    def failure(self, status: int, message: str, headers: Mapping[str, str]) -> Response | None:
        """An error in this provider's shape; None where that is OpenAI's."""
        return None

    def completion(self, completion: Json, answer: Answer) -> Json:
        """A whole chat completion as this provider sends it."""
        return completion

    def pieces(self, pieces: Iterable[Piece], answer: Answer) -> Iterator[Piece]:
        """A stream's pieces as this provider sends them."""
        yield from pieces


class OpenRouter(Dialect):
    """https://openrouter.ai/api/v1."""

    def failure(self, status: int, message: str, headers: Mapping[str, str]) -> Response | None:
        """Codes are numbers here, and there is neither type nor param."""
        return JSONResponse({"error": {"code": status, "message": message}, "user_id": "user_sim"}, status, headers)

    def completion(self, completion: Json, answer: Answer) -> Json:
        """With the host that served it, and the cost in credits."""
        choices = [self._choice(choice) for choice in completion["choices"]]
        return {**completion, "provider": "Simulated", "choices": choices, "usage": self._usage(answer)}

    def pieces(self, pieces: Iterable[Piece], answer: Answer) -> Iterator[Piece]:
        """A comment first; usage at the end, asked for or not."""
        yield Piece(b": OPENROUTER PROCESSING\n\n")
        head: Json = {}
        for piece in pieces:
            if (chunk := _chunk(piece)) is None:
                yield event({**head, "provider": "Simulated", "choices": [], "usage": self._usage(answer)})
                yield piece
            elif chunk["choices"]:
                head = {name: chunk[name] for name in ("id", "object", "created", "model")}
                choices = [self._choice(choice) for choice in chunk["choices"]]
                yield event({**chunk, "provider": "Simulated", "choices": choices}, piece.tokens)

    def _choice(self, choice: Json) -> Json:
        return {**choice, "native_finish_reason": choice["finish_reason"]}

    def _usage(self, answer: Answer) -> Json:
        return {
            **usage(answer),
            "cost": 0.95,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": None},
        }


class Databricks(Dialect):
    """Serving endpoints of a workspace."""

    _known = frozenset(
        (
            *("messages", "input", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop", "n", "tools"),
            *("tool_choice", "response_format", "logprobs", "top_logprobs", "reasoning_effort"),
        )
    )

    def refusal(self, body: Mapping[str, Any]) -> Response | None:
        """The first field that it does not know."""
        unknown = next((name for name in body if name not in self._known), None)
        if unknown is None:
            return None
        message = f"Bad request: json: unknown field {json.dumps(unknown)}\n"
        return JSONResponse({"error_code": "BAD_REQUEST", "message": message}, 400)

    def failure(self, status: int, message: str, headers: Mapping[str, str]) -> Response | None:
        """Codes in capitals beside the message, without an object around them."""
        code = "REQUEST_LIMIT_EXCEEDED" if status == 429 else "INTERNAL_ERROR"
        return JSONResponse({"error_code": code, "message": message}, status, headers)

    def completion(self, completion: Json, answer: Answer) -> Json:
        """Content in parts where the model reasons."""
        if answer.reasoning_tokens:
            for choice in completion["choices"]:
                _in_parts(choice["message"])
        return completion

    def pieces(self, pieces: Iterable[Piece], answer: Answer) -> Iterator[Piece]:
        """Usage so far on every chunk."""
        whole, tokens = usage(answer), 0
        for piece in pieces:
            if (chunk := _chunk(piece)) is None:
                yield piece
                continue
            tokens += piece.tokens
            is_last = any(choice["finish_reason"] for choice in chunk["choices"])
            so_far = {**whole, "completion_tokens": tokens, "total_tokens": whole["prompt_tokens"] + tokens}
            if answer.reasoning_tokens:
                for choice in chunk["choices"]:
                    _in_parts(choice["delta"])
            yield event({**chunk, "usage": whole if is_last else so_far}, piece.tokens)


class Plain(Dialect):
    """A compatible server that does no more than it must."""

    def refusal(self, body: Mapping[str, Any]) -> Response | None:
        """It does not know the field by which usage of streams is asked for."""
        if "stream_options" not in body:
            return None
        message = "Unrecognized request argument supplied: stream_options"
        return JSONResponse({"object": "error", "message": message, "type": "invalid_request_error", "code": 400}, 400)

    def failure(self, status: int, message: str, headers: Mapping[str, str]) -> Response | None:
        """A text where others have an object."""
        return JSONResponse({"error": message}, status, headers)

    def completion(self, completion: Json, answer: Answer) -> Json:
        """Without usage."""
        return {name: value for name, value in completion.items() if name != "usage"}


OPENAI, OPENROUTER, DATABRICKS, PLAIN = Dialect(), OpenRouter(), Databricks(), Plain()


def _chunk(piece: Piece) -> Json | None:
    """The chunk in a piece; None for the end of the stream."""
    data = piece.content.removeprefix(_DATA)
    if data.startswith(b"[DONE]"):
        return None
    chunk: Json = json.loads(data)
    return chunk


def _in_parts(message: Json) -> None:
    """Text as a list of typed parts, the first of them a thought."""
    if isinstance(message.get("content"), str):
        thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
        message["content"] = [thought, {"type": "text", "text": message["content"]}]
