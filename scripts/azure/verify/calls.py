"""The calls that are made: tiny, each to show several points at once."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import httpx

from scripts.azure.verify.seen import Answer, Piece

CHAT, RESPONSES, MODELS = "/openai/v1/chat/completions", "/openai/v1/responses", "/openai/v1/models"
API_VERSION = (
    "2025-04-01-preview"  # no released version knows max_completion_tokens, and reasoning models take no other cap
)
DATE = "2026-11-21T10:00:00.120+02:00"  # a text that JSON.NET takes for a date, and would write in another way
WORD = "café"  # a scope key beyond ASCII
NO_DEPLOYMENT = "tk-verify-no-such-deployment"
_FEW_TOKENS = 16  # the least that the Responses API takes
_STREAM_TOKENS = 160  # some 40 KB of chunks: more than a gateway that buffers sends at once
_THINKING_TOKENS = 1000  # what a reasoning model may think before it says anything, with little effort
_CHARS_PER_TOKEN = 3  # on the safe side, for the cost that is stated before
_BEYOND_BUFFER_BYTES = 4096
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Call:
    """One request."""

    name: str
    path: str
    body: Mapping[str, Any] | None = None  # None: a GET
    headers: Mapping[str, bytes] = field(default_factory=dict)
    credential: Literal["key", "unknown key", "token"] = "key"
    padding_bytes: int = 0  # white space in the body: length without tokens

    @property
    def content(self) -> bytes:
        """The body's bytes."""
        if self.body is None:
            return b""
        text = json.dumps(self.body, ensure_ascii=False).encode()
        return text[:1] + b" " * self.padding_bytes + text[1:]

    @property
    def input_tokens(self) -> int:
        """What the prompt counts, about."""
        return (len(self.content) - self.padding_bytes) // _CHARS_PER_TOKEN

    @property
    def output_tokens(self) -> int:
        """What the answer counts at most; 0 for a call that no model answers."""
        caps = ("max_completion_tokens", "max_output_tokens")
        body = (self.credential != "unknown key" and self.body) or {}
        return next((int(body[name]) for name in caps if name in body), 0)


def planned_calls(
    deployment: str, word: str, scope_type: str | None, buffer_bytes: int, *, reasons: bool = False
) -> dict[str, Call]:
    """Every call by name, in the order in which they are made. `word` stands in each prompt and nowhere else.

    `reasons`: the model would spend the few tokens of an answer on thinking, so it gets more and is told to be quick.
    """
    on_deployment = f"/openai/deployments/{quote(deployment, safe='')}/chat/completions?api-version={API_VERSION}"
    say = [{"role": "user", "content": f"Say ok. ({word})"}]
    repeat = f"Repeat the user's message exactly, once per line, on 20 lines. ({word})"
    thinking = _THINKING_TOKENS if reasons else 0
    quick: dict[str, Any] = {"reasoning_effort": "low"} if reasons else {}
    few = {"messages": say, "max_completion_tokens": _FEW_TOKENS + thinking, **quick}
    chat = {"model": deployment, **few}
    calls = [
        Call("whole", CHAT, chat, {f"x-budget-scope-{scope_type}": WORD.encode()} if scope_type else {}),
        Call(
            "stream",
            CHAT,
            {
                **chat,
                "messages": [{"role": "system", "content": repeat}, {"role": "user", "content": DATE}],
                "max_completion_tokens": _STREAM_TOKENS + thinking,
                "stream": True,
            },
        ),
        Call(
            "response stream",
            RESPONSES,
            {
                "model": deployment,
                "instructions": f"Say ok. ({word})",
                "input": "Now.",
                "max_output_tokens": _FEW_TOKENS + thinking,
                "stream": True,
                **({"reasoning": {"effort": "low"}} if reasons else {}),
            },
        ),
        Call("deployment stream", on_deployment, {**few, "stream": True}),
        Call(
            "unread", on_deployment, {"model": NO_DEPLOYMENT, **few}, padding_bytes=buffer_bytes + _BEYOND_BUFFER_BYTES
        ),
        # A stream that the model answers whole: it takes temperatures up to 2.
        Call("refused stream", CHAT, {**chat, "stream": True, "temperature": 9}),
        Call("unknown key", CHAT, chat, credential="unknown key"),
    ]
    return {call.name: call for call in calls}


class Caller:
    """Makes calls through the gateway, and notes when each piece of an answer arrives."""

    def __init__(self, url: str, key: str, token: str = "", headers: Mapping[str, str] | None = None) -> None:
        """`headers` go with every call, for a gateway behind something that asks for one."""
        # HTTP/2 where it is offered: the length of a body is told differently there.
        self._client = httpx.Client(base_url=url, headers=dict(headers or {}), timeout=_TIMEOUT_SECONDS, http2=True)
        self._key = key
        self.token = token

    def ask(self, call: Call) -> Answer:
        """The answer; a connection that fails is one too."""
        started, clock = datetime.now(UTC), time.perf_counter()
        pieces: list[Piece] = []
        body = bytearray()
        try:
            with self._client.stream(
                "GET" if call.body is None else "POST",
                call.path,
                content=call.content,
                headers=[
                    (b"Content-Type", b"application/json"),
                    (b"Accept-Encoding", b"identity"),
                    *self._credential(call),
                    *((name.encode(), value) for name, value in call.headers.items()),
                ],
            ) as answer:
                for piece in answer.iter_raw():
                    pieces.append(Piece(time.perf_counter() - clock, len(piece)))
                    body += piece
        except httpx.HTTPError as error:
            failure = f"{type(error).__name__}: {error}"
            return Answer(0, started=started, ended=datetime.now(UTC), failure=failure)
        return Answer(
            answer.status_code,
            {name.lower(): value for name, value in answer.headers.items()},
            body.decode("utf-8", "replace"),
            tuple(pieces),
            started,
            datetime.now(UTC),
            answer.http_version,
        )

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _credential(self, call: Call) -> list[tuple[bytes, bytes]]:
        if call.credential == "token":
            return [(b"Authorization", f"Bearer {self.token}".encode())]
        return [(b"api-key", b"tk-verify-unknown" if call.credential == "unknown key" else self._key.encode())]
