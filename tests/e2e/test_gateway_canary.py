"""What callers say to models through the built-in gateway is found nowhere but at the model, whatever goes wrong.

A word that occurs nowhere else is put into prompts, tools, images, embeddings and answers, into calls that are served,
streamed, translated, refused, malformed, left by the client, and broken by the backend in every way it knows; then into
calls while the hub is away, whose events wait on disk. Then everything that the running copy has written is searched.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx
import pytest

from local.model.faults import FAULTS
from tests.support import gateway_rig
from tests.support.everywhere import everything_stored, places_of
from tests.support.gateway_rig import CHAT, FILES, TEAM, Gateway, Rig, open_rig
from tests.support.laptop import MODEL, eventually
from tests.support.laptop_config import team_file

CLAUDE = f"""
  - {{id: claude, provider: anthropic, url: {MODEL}/anthropic, key: ANTHROPIC_API_KEY}}
models: [{{id: claude, provider: anthropic, capabilities: [chat, tools]}},"""
PLACES = {
    "teams/poor.yaml": team_file("poor", "0.000001"),
    "models.yaml": FILES["models.yaml"].replace("\nmodels: [", CLAUDE),
}
FAULTY = [fault for fault in FAULTS if fault != "stall"]  # which ends as `cut` does, some seconds later


class Said:
    """A gateway after all calls, and the word in them."""

    def __init__(self, rig: Rig, gateway: Gateway) -> None:
        self.rig, self.gateway = rig, gateway
        self.word = f"canary-{uuid.uuid4().hex}"
        self.statuses: set[int] = set()
        self.answers: list[str] = []
        self.speak()
        self.spooled = self.speak_without_hub()
        self.found = self.everything()

    @property
    def messages(self) -> list[Any]:
        """Words in every role and part."""
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{self.word[7:]}"}}
        text = {"type": "text", "text": f"Say {self.word} again: {self.word}"}
        return [{"role": "system", "content": f"You are {self.word}."}, {"role": "user", "content": [text, image]}]

    def speak(self) -> None:
        """Every way a word may take."""
        word, messages = self.word, self.messages
        function = {"name": f"tool_{word[7:]}", "description": word, "parameters": {"title": word, "type": "object"}}
        tools = [{"type": "function", "function": function}]
        for stream in (False, True):
            for model in ("calm", "claude", "auto"):
                said = [{"role": "user", "content": word}] if model == "auto" else messages  # none here sees images
                asked = {"model": model, "messages": said, "stream": stream, "max_tokens": 100}
                self.post(CHAT, asked, expected=200)
                self.post(CHAT, {**asked, "tools": tools, "tool_choice": "required"}, expected=200)
            self.post(CHAT, {"model": "calm", "messages": messages, "stream": stream}, team="poor", expected=402)
            self.post("/v1/responses", {"model": "calm", "input": word, "stream": stream}, expected=200)
        self.post("/v1/embeddings", {"model": "calm", "input": [word, f"{word} twice"]})
        self.post("/chat", {"prompt": word, "tools": [f"tool_{word[7:]}"], "model": "calm"}, expected=200)
        self.post("/route", {"model": "calm", "messages": messages}, expected=200)
        self.misspeak()  # before breakers open
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda way: self.fail(*way), [(f, s) for f in FAULTY for s in (False, True)]))
            list(clients.map(self.fail_by_status, (400, 401, 403, 404, 408, 429, 500, 503)))
        self.leave()

    def fail(self, fault: str, stream: bool) -> None:
        """The backend breaks before its answer, and in the middle of it."""
        for model, after in (("early", None), ("middle", 4), ("claude", 4)):
            knobs = {"x-sim-fault": fault} | ({} if after is None else {"x-sim-fault-after": str(after)})
            self.post(CHAT, {"model": model, "messages": self.messages, "stream": stream}, knobs)

    def fail_by_status(self, status: int) -> None:
        """The backend refuses."""
        for model in ("storm", "claude"):
            self.post(CHAT, {"model": model, "messages": self.messages}, {"x-sim-status": str(status)})

    def misspeak(self) -> None:
        """Requests that nobody can read or serve."""
        word, messages = self.word, self.messages
        good = {"model": "calm", "messages": messages}
        wrong: tuple[dict[str, Any], ...] = (
            {**good, "stream": word},
            {**good, "n": word},
            {**good, "max_tokens": word},
            {**good, "tools": word},
            {**good, "stream_options": word},
            {"model": "claude", "messages": word},
            {"model": "claude", "messages": [{"role": word, "content": word}]},
            {"model": "claude", "messages": [*messages, {"role": "assistant", "tool_calls": [{"function": word}]}]},
            {"model": "claude", "messages": messages, "response_format": {"type": word}},
            {"model": "claude", "messages": messages, "tool_choice": word, "tools": [{"type": "x", "name": word}]},
            {"model": ["calm", word], "messages": messages},
        )
        for body in wrong:
            self.post(CHAT, body, expected=400)
        self.post("/chat", {"prompt": [word]}, expected=400)
        self.post("/chat", {"prompt": word, "tools": word}, expected=400)
        self.post("/route", {"capabilities": word}, expected=400)
        self.post(CHAT, good, {"api-key": "wrong"}, expected=401)
        for raw in (
            json.dumps(good)[:-20].encode(),
            b'"' + word.encode() + b'"',
            word.encode() + b"\xff\xfe",
            b"[" * 5_000 + word.encode(),
            b'{"a": "' + word.encode() + b'"' + b",[]" * 500_000,
        ):
            self.send(CHAT, raw, expected=400)

    def leave(self) -> None:
        """Clients that go while they ask, and while they are answered."""
        url = urlsplit(self.gateway.url)
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\napi-key: local-{TEAM}\r\ncontent-length: 9999\r\n\r\n"
        with socket.create_connection((url.hostname, url.port)) as connection:
            connection.sendall(f'{head}{{"messages": "{self.word}'.encode())
        body = {"model": "calm", "messages": self.messages, "stream": True}
        headers = self.gateway.headers("left", x_sim_echo=1, x_sim_output_tokens=60, x_sim_chunk_ms=50)
        with httpx.stream("POST", f"{self.gateway.url}{CHAT}", json=body, headers=headers) as answer:
            next(answer.iter_bytes())

    def speak_without_hub(self) -> bytes:
        """What waits on disk while the hub is away."""
        self.rig.hub.set("refusing")
        for stream in (False, True):
            self.post(CHAT, {"model": "hub", "messages": self.messages, "stream": stream}, expected=200)

        def spooled() -> bytes:
            return b"".join(path.read_bytes() for path in self.rig.spool.rglob("*.events"))

        waiting = eventually(lambda: content if (content := spooled()).count(b'"hub"') >= 2 else None)
        self.rig.hub.set("up")
        eventually(lambda: self.gateway.health()["pending_events"] == 0)
        return waiting

    def post(
        self,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str] | None = None,
        *,
        team: str = TEAM,
        expected: int | None = None,
    ) -> None:
        known = {"api-key": f"local-{team}"}
        self.send(path, json.dumps(body).encode(), known | (headers or {}), expected=expected)

    def send(
        self, path: str, raw: bytes, headers: dict[str, str] | None = None, *, expected: int | None = None
    ) -> None:
        known = self.gateway.headers("canary", x_sim_echo=1, x_sim_output_tokens=30)
        headers = {**known, "content-type": "application/json", **(headers or {})}
        answer = httpx.post(f"{self.gateway.url}{path}", content=raw, headers=headers, timeout=60)
        assert expected in (None, answer.status_code), (path, answer.text[:300])
        assert "Traceback" not in answer.text
        self.statuses.add(answer.status_code)
        self.answers.append(answer.text)

    def everything(self) -> dict[str, bytes]:
        """All that was written anywhere."""
        found = everything_stored(self.rig.laptop)
        found |= {f"log {log.name}": log.read_bytes() for log in self.rig.directory.glob("*.log")}
        found |= {f"spool {path.name}": path.read_bytes() for path in self.rig.spool.rglob("*") if path.is_file()}
        return found | {"spool while the hub was away": self.spooled}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    with (
        patch.dict(gateway_rig.FILES, PLACES),
        open_rig(tmp_path_factory.mktemp("canary")) as rig,
    ):
        yield Said(rig, rig.start_gateway())


def test_the_calls_met_everything_that_can_happen(said: Said) -> None:
    """The word was in answers and at the model; events were on the hub and on disk: there was something to find."""
    assert {200, 400, 401, 402, 502} <= said.statuses
    assert sum(said.word in answer for answer in said.answers) > 10
    assert said.rig.laptop.received(containing=said.word)
    assert any(place.startswith("hub usage ") for place in said.found)
    assert any(place.startswith("log rig-") for place in said.found)
    assert said.found["spool while the hub was away"]


def test_the_word_is_nowhere_but_at_the_model(said: Said) -> None:
    """No event, row, blob, key, spool file or log line holds it."""
    assert places_of(said.word, said.found) == []
    assert places_of(said.word[7:], said.found) == []  # as the name of a tool has it


def test_no_key_is_written_anywhere(said: Said) -> None:
    """Neither callers' keys nor what they tried as one."""
    for secret in (f"local-{TEAM}", "local-poor"):
        assert places_of(secret, said.found) == []


def test_nothing_that_a_client_or_a_backend_did_was_a_defect(said: Said) -> None:
    """A traceback in the log is one, and what stands in it is not in anybody's hand."""
    assert [place for place, content in said.found.items() if "rig-" in place and b"Traceback" in content] == []
