"""What callers say to models is found nowhere but at the model.

A word that occurs nowhere else is put into prompts, tools, embeddings and answers, into calls that are served,
streamed, downgraded, refused, malformed, aborted and failed. Then everything that the running copy has written is
searched for it: both hubs, tables, blobs, Redis and logs. Once as it should be set up, and once with a diagnostic
setting that puts the texts of messages into the LLM log: then they are in that hub, and still nowhere else.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest
from azure.data.tables import TableServiceClient
from azure.eventhub import EventData, EventHubProducerClient

from tests.support.everywhere import everything_stored, places_of
from tests.support.laptop import CHAT, EMBEDDINGS, RESPONSES, Laptop, eventually, start_laptop
from tests.support.laptop_config import configuration, team_file

DEPLOYMENT = "/openai/deployments/gpt-4o-weu/chat/completions?api-version=2024-10-21"
FILES = configuration(
    rich=team_file("rich", "1000.00"),
    poor=team_file("poor", "0.000001"),
    thrifty=team_file(
        "thrifty",
        "10.00",
        more=", warn: 0.000001, degrade: 0.000002, disable_tools: [web_search],"
        " downgrade: [{from: gpt-4o, to: gpt-4o-mini}]",
    ),
)


class Said:
    """A running copy after all calls, the word in them, and everything it has written."""

    def __init__(self, laptop: Laptop, *, messages_logged: bool) -> None:
        self.laptop = laptop
        self.messages_logged = messages_logged
        self.word = f"canary-{uuid.uuid4().hex}"
        self.request_ids: list[str] = []
        self.answers: list[str] = []
        self.speak()
        if messages_logged:
            self.send_broken_records()
        self.wait_until_billed()
        self.found = everything_stored(laptop)

    def speak(self) -> None:
        """Every way a word may take."""
        word = self.word
        messages = [
            {"role": "system", "content": f"You are {word}."},
            {"role": "user", "content": [{"type": "text", "text": f"Say {word} again with tool_{word[7:]}: {word}"}]},
        ]
        function = {"name": f"tool_{word[7:]}", "description": word, "parameters": {"title": word, "type": "object"}}
        tools = [{"type": "function", "function": function}]
        chat = {"model": "gpt-4o", "messages": messages, "user": "u-1"}
        responses = {"model": "gpt-4o", "input": word, "instructions": f"Say {word}.", "metadata": {"note": word}}
        for stream in ({}, {"stream": True}):
            self.post("rich", CHAT, {**chat, **stream})
            self.post("rich", CHAT, {**chat, **stream, "tools": tools, "tool_choice": "required"})
            self.post("rich", DEPLOYMENT, {**chat, **stream})
            self.post("rich", RESPONSES, {**responses, **stream})
            self.post("thrifty", CHAT, {**chat, **stream, "tools": [*tools, {"type": "web_search"}]})
            self.post("poor", CHAT, {**chat, **stream, "max_tokens": 50}, expected=402)
            self.post("rich", CHAT, {**chat, **stream}, expected=500, x_sim_status="500")
        self.post("rich", EMBEDDINGS, {"model": "text-embedding-3-small", "input": [word, f"{word} twice"]})
        self.post("rich", CHAT, {**chat, "stream": word}, expected=400)
        self.post("rich", CHAT, {**chat, "n": word}, expected=400)
        self.post("nobody", CHAT, chat, expected=401)
        self.post_raw(json.dumps(chat)[:-20].encode())
        self.post_raw(b'"' + word.encode() + b'"')
        large = [{"role": "user", "content": f"{word} " * 60_000}]
        self.post("rich", DEPLOYMENT, {**chat, "messages": large})
        self.post("rich", CHAT, {**chat, "messages": large}, expected=413)
        self.leave_a_stream({**chat, "stream": True})

    def post(self, team: str, path: str, body: dict, expected: int = 200, **headers: str) -> None:
        answer = self.laptop.post(team, path, body, x_sim_echo="1", x_sim_output_tokens="30", **headers)
        assert answer.status_code == expected, answer.text[:300]
        if answer.status_code < 400:
            self.request_ids.append(answer.headers["x-request-id"])
            self.answers.append(answer.text)

    def post_raw(self, body: bytes) -> None:
        headers = {**self.laptop.headers("rich"), "content-type": "application/json"}
        assert httpx.post(f"{self.laptop.url}{CHAT}", content=body, headers=headers).status_code == 400

    def leave_a_stream(self, body: dict) -> None:
        headers = self.laptop.headers("rich", x_sim_echo="1", x_sim_output_tokens="60", x_sim_chunk_ms="50")
        with httpx.stream("POST", f"{self.laptop.url}{CHAT}", json=body, headers=headers) as answer:
            next(answer.iter_bytes())
            self.request_ids.append(answer.headers["x-request-id"])

    def send_broken_records(self) -> None:
        """Messages of the LLM log that nobody can match or read: if kept at all, then without the texts in them."""
        record = {"category": "GatewayLlmLogs", "properties": {"requestMessages": self.word, "promptTokens": "many"}}
        broken = [
            json.dumps({"records": [record, {**record, "correlationId": 7}]}),
            json.dumps({"records": self.word}),
            json.dumps(record),
            f'{{"records": [{{"properties": {{"responseMessages": "{self.word}"',
        ]
        producer = EventHubProducerClient.from_connection_string(self.laptop.hub_connection, eventhub_name="llm-logs")
        with producer:
            producer.send_batch([EventData(body) for body in broken])
        eventually(lambda: len(letters) >= 3 if (letters := self.dead_letters()) else None)

    def dead_letters(self) -> list[Any]:
        with TableServiceClient.from_connection_string(self.laptop.storage_connection) as service:
            return list(service.get_table_client("tollkeeperdeadletters").list_entities())

    def wait_until_billed(self) -> None:
        """Until every served call is in the ledger, and every stream but the one that was left is trued up."""

        def billed() -> bool:
            rows = self.laptop.rows_by_request()
            kinds = [{row.kind for row in rows.get(request_id, [])} for request_id in self.request_ids]
            pending = [each for each in kinds if not each or ("accrual" in each and "true_up" not in each)]
            return len(pending) <= 2  # the stream that was left, and an answer too large to be read for its usage

        eventually(billed)
        for team in ("rich", "thrifty"):
            self.laptop.settled_spend(team)


@pytest.fixture(scope="module", params=[False, True], ids=["no-messages", "messages-in-the-llm-log"])
def said(mono, request, tmp_path_factory):
    settings = {"APIM_LLM_LOG_DELAY_SECONDS": "0.3", "APIM_LLM_LOG_MESSAGES": "1" if request.param else "0"}
    with start_laptop(tmp_path_factory.mktemp("canary"), FILES, **settings) as laptop:
        yield Said(laptop, messages_logged=request.param)


def test_the_word_was_said_and_answered(said):
    """It reached the model and came back to the callers: the search below is for something that went through."""
    assert len(said.laptop.received(containing=said.word)) >= len(said.request_ids) > 10
    assert sum(said.word in answer for answer in said.answers) > 8


def test_the_search_finds_what_is_there(said):
    """Ids of requests are in the hub and in the ledger, teams in Redis: the search looks into all of them."""
    request_id = said.request_ids[0]
    places = {place.split(" ")[0] + " " + place.split(" ")[1] for place in places_of(request_id, said.found)}
    assert {"hub usage", "hub llm-logs", "table tollkeeperledger"} <= places
    assert any(place.startswith("redis ") for place in places_of("team:rich", said.found))
    assert any(place.startswith("blob ") for place in said.found)
    assert {f"file {name}.log" for name in ("functions", "gateway", "model", "event-hub")} <= set(said.found)


def test_the_word_is_nowhere_but_at_the_model(said):
    """No message, row, blob, key or log line holds it; with messages in the LLM log, that hub alone does."""
    places = places_of(said.word, said.found)
    kept = [place for place in places if not place.startswith("hub llm-logs ")]
    assert kept == []
    assert bool(places) == said.messages_logged


def test_no_key_or_token_is_written_anywhere(said):
    """Callers' keys and the gateway's own token are in no message, row, blob, Redis key or log."""
    for secret in ("local-rich", "local-thrifty", "local-poor", "local-managed-identity"):
        assert places_of(secret, said.found) == []
