"""What images and sound in a request count as input tokens, since their Base64 is no text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shared.usage.estimate import tokens_of_text

# A large image at full detail is 765 to 1,600 tokens with most models. Providers charge by its size, which nobody here
# unpacks; what was really used is billed either way.
IMAGE_TOKENS = 1_600
# Speech is 10 to 20 tokens a second, at up to 16 times the price of text, in 11 kB of Base64 a second and more.
AUDIO_BASE64_BYTES_PER_TOKEN = 64

_MARKS = (b'"image_url"', b'"input_image"', b'"input_audio"')


def may_hold_media(raw: bytes) -> bool:
    """Whether it is worth looking for media in a request's body."""
    return any(mark in raw for mark in _MARKS)


def content_parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of all messages, or of a response's input items, that come in parts, such as images beside text."""
    items = body.get("messages") if "messages" in body else body.get("input")
    for item in items if isinstance(items, list) else ():
        content = item.get("content") if isinstance(item, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield part


def input_tokens_with_media(body: Mapping[str, Any], body_bytes: int) -> int:
    """An estimate: the text by its bytes, each image as a large one, sound by its length."""
    text_bytes, media_tokens = body_bytes, 0
    for part in content_parts(body):
        kind = part.get("type")
        if kind in ("image_url", "input_image"):
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            text_bytes -= len(url) if isinstance(url, str) else 0
            media_tokens += IMAGE_TOKENS
        elif kind == "input_audio":
            sound = part.get("input_audio")
            data = sound.get("data") if isinstance(sound, dict) else None
            size = len(data) if isinstance(data, str) else 0
            text_bytes -= size
            media_tokens += -(-size // AUDIO_BASE64_BYTES_PER_TOKEN)
    return tokens_of_text(max(0, text_bytes)) + media_tokens
