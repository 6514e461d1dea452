"""What images and sound in a request count as input tokens, since their Base64 is no text. Pure.

`apim-policies/fragments/tk-read-request.xml` counts alike, and reads the needs of a call alike: change both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shared.usage.estimate import tokens_of_text

# A large image at full detail is 765 to 1,600 tokens with most models. Providers charge by its size, which nobody here
# unpacks; what was really used is billed either way.
IMAGE_TOKENS = 1_600
# Speech is 10 to 20 tokens a second, at up to 16 times the price of text, in 11 kB of Base64 a second and more.
AUDIO_BASE64_BYTES_PER_TOKEN = 64

_MARKS = (b'"image_url"', b'"input_image"', b'"image"', b'"image_generation_call"', b'"input_audio"')
_IMAGES = ("image_url", "input_image", "computer_screenshot", "image", "image_generation_call")


def may_hold_media(raw: bytes) -> bool:
    """Whether it is worth looking for media in a request's body."""
    return any(mark in raw for mark in _MARKS)


def content_parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of all messages, or of a response's input items, that come in parts, such as images beside text: what
    was said, what tools put out, and images that a model made earlier on.
    """
    items = body.get("messages") if "messages" in body else body.get("input")
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            continue
        for held in (item.get("content"), item.get("output"), [item]):
            for part in held if isinstance(held, list) else [held]:
                if isinstance(part, dict):
                    yield part


def input_tokens_with_media(body: Mapping[str, Any], body_bytes: int) -> int:
    """An estimate: the text by its bytes, each image as a large one, sound by its length."""
    text_bytes, media_tokens = body_bytes, 0
    for part in content_parts(body):
        kind = part.get("type")
        if kind in _IMAGES:
            text_bytes -= _image_chars(part)
            media_tokens += IMAGE_TOKENS
        elif kind == "input_audio":
            size = _chars(part.get("input_audio"), "data")
            text_bytes -= size
            media_tokens += -(-size // AUDIO_BASE64_BYTES_PER_TOKEN)
    return tokens_of_text(max(0, text_bytes)) + media_tokens


def _image_chars(part: Mapping[str, Any]) -> int:
    """How long the image is in the body: a URL, or its Base64 where Anthropic's API and made images have that."""
    url = part.get("image_url")
    if isinstance(url, str):
        return len(url)
    return _chars(url, "url") + _chars(part.get("source"), "data") + _chars(part, "result")


def _chars(held: Any, name: str) -> int:
    value = held.get(name) if isinstance(held, dict) else None
    return len(value) if isinstance(value, str) else 0
