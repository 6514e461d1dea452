"""The kinds of fields that events are made of."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_IDENTIFIER_CHARS = 512
MAX_LABEL_CHARS = 128

Label = Annotated[str, Meta(max_length=MAX_LABEL_CHARS)]
Identifier = Annotated[str, Meta(min_length=1, max_length=MAX_IDENTIFIER_CHARS)]
DerivedIdentifier = Annotated[str, Meta(min_length=1, max_length=MAX_IDENTIFIER_CHARS + 32)]  # with attempt, suffix
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
