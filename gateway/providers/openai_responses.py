"""A streamed answer of the Responses API on its way through: typed events, the last of which holds the usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.stream import EventWatch, text_bytes

_ENDS = ("response.completed", "response.incomplete", "response.failed")
_MOST_EVENT_BYTES = 16 * 1024 * 1024  # the last event repeats the whole answer, images made by the model included
# What an item of the output was generated as, by the names its type gives them.
_ITEM_TEXTS = ("arguments", "input", "code", "name")
_PART_TEXTS = ("text", "refusal", "transcript")


class ResponsesWatch(EventWatch):
    """Passes every event unchanged. Usage and tier stand in the response object of the last one."""

    most_held_bytes = _MOST_EVENT_BYTES

    def _noted(self, chunk: dict[str, Any], event: bytes) -> bytes:
        kind = chunk.get("type")
        response = chunk.get("response")
        if isinstance(response, dict) and isinstance(tier := response.get("service_tier"), str):
            self.tier = tier  # told from the first event on: of a stream that breaks off there is no other
        if kind == "error" or chunk.get("error"):
            self.failed, self.error = True, chunk.get("error") or chunk
        elif kind in _ENDS:
            self._end(kind, response)
        elif isinstance(delta := chunk.get("delta"), str):
            self._count(text_bytes(delta))
        return event

    def _end(self, kind: str, response: Any) -> None:
        self.finished = True
        self.failed = kind == "response.failed"
        if isinstance(response, dict):
            self.error = response.get("error")
            self._tell(response.get("usage"))


def generated_in_output(output: list[Any]) -> int:
    """UTF-8 bytes of what the model generated in the items of a whole answer: text, arguments, visible reasoning."""
    return sum(_item_bytes(item) for item in output if isinstance(item, dict))


def _item_bytes(item: Mapping[str, Any]) -> int:
    size = sum(text_bytes(item.get(name)) for name in _ITEM_TEXTS)
    for parts in (item.get("content"), item.get("summary")):
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                size += sum(text_bytes(part.get(name)) for name in _PART_TEXTS)
    return size
