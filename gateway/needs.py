"""What a call needs of the model that serves it, read from its body. Pure; asked only where there is a choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import ModelCall
from gateway.media import content_parts

_JSON_FORMATS = ("json_object", "json_schema")
_NEED_OF_PART = {
    "image_url": "vision",
    "input_image": "vision",
    "computer_screenshot": "vision",
    "image": "vision",
    "input_audio": "audio",
}


def capabilities_needed(call: ModelCall) -> frozenset[str]:
    """Capabilities, as models.yaml names them, without which the call cannot be served."""
    needs = {"embeddings" if call.operation == "embeddings" else "chat"}
    if call.tools:
        needs.add("tools")
    if _wants_json(call.body):
        needs.add("json")
    needs.update(need for part in content_parts(call.body) if (need := _NEED_OF_PART.get(str(part.get("type")))))
    return frozenset(needs)


def _wants_json(body: Mapping[str, Any]) -> bool:
    text = body.get("text")
    formats = (body.get("response_format"), text.get("format") if isinstance(text, dict) else None)
    return any(isinstance(wanted, dict) and wanted.get("type") in _JSON_FORMATS for wanted in formats)
