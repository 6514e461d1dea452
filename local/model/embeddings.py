"""Embeddings of the simulated model: every form of input that OpenAI's API takes, and both forms it answers in."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from local.model.answers import count_tokens

DIMENSIONS = 16


def embedding_inputs(asked: Any) -> list[tuple[str, int]] | None:
    """(what is embedded, its tokens) of each input; None when there is none to be understood.

    An input is a text or, as LangChain sends it, a list of token numbers; a request has one of them or many.
    """
    many = asked if isinstance(asked, list) and asked and not isinstance(asked[0], int) else [asked]
    if any(not isinstance(each, str | list) or not each for each in many):
        return None
    return [(str(each), count_tokens(each) if isinstance(each, str) else len(each)) for each in many]


def embed(text: str) -> list[float]:
    """A small deterministic unit-free vector."""
    seed = zlib.crc32(text.encode())
    return [((seed >> (i % 24)) & 0xFF) / 255 - 0.5 for i in range(DIMENSIONS)]


def embedding_base64(vector: list[float]) -> str:
    """The vector as the OpenAI SDK asks for it unless told otherwise: 32-bit floats, little-endian, in Base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
