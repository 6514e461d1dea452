"""LibreChat at the built-in gateway: the sample against LibreChat's own schema, and every request that it makes."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import yaml

from local.options import BUILT_IN
from tests.support.laptop import eventually, start_laptop
from tests.support.laptop_config import configuration, team_file
from tests.support.node_sdk import E2E, node_script, run_script

SAMPLE = E2E.parent.parent / "samples" / "librechat" / "librechat.yaml"
TENANT = "tenants: [{id: default, client_asserted_scopes: [session, person]}]"
PER_PERSON = "budgets: [{scope: 'person:*', period: day, limit: 5.00}]"
FILES = {
    **configuration(TENANT, rich=team_file("rich", "1000.00"), poor=team_file("poor", "0.0005")),
    "budgets.yaml": PER_PERSON,
}
PERSON, CONVERSATION = "665f1c0ffee1c0ffee1c0ffe", "0b1c2d3e-conversation"
TEXT = "What is left of the budget?"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("librechat"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


@pytest.fixture
def call():
    """A name under which the model counts the calls of this test."""
    return f"c-{uuid.uuid4().hex[:12]}"


def librechat(laptop, step: str, call: str = "", *, team: str = "rich", **more: Any) -> list[dict[str, Any]]:
    """What LibreChat's client prints for one step: chunks, then the answer or the error."""
    command = node_script(E2E / "librechat", "endpoint.mjs", "LibreChat's schema and client (once, ten seconds)")
    described = {
        "yaml": str(SAMPLE),
        "env": {"TOLLKEEPER_URL": f"{laptop.url}/v1", "TOLLKEEPER_KEY": f"local-{team}"},
        "extraHeaders": {"x-sim-call-id": call, "x-sim-output-tokens": "20"},
        "person": PERSON,
        "conversation": CONVERSATION,
        "model": "gpt-4o",
        "text": TEXT,
        "step": step,
    }
    return run_script(command, {**described, **more})


def test_a_conversation_streams_and_is_billed_to_its_session(laptop, call):
    """The stream arrives in pieces with its usage; the conversation is a scope of the ledger's row, as the team is."""
    *chunks, end = librechat(laptop, "chat", call, extraHeaders={"x-sim-call-id": call, "x-sim-output-tokens": "37"})
    assert len([line for line in chunks if line["chunk"]]) > 5
    assert len(end["answer"]["content"].split()) == end["answer"]["usage"]["output_tokens"] == 37
    (request,) = end["requests"]
    assert (request["stream"], request["stream_options"], request["user"]) == (True, {"include_usage": True}, PERSON)
    assert laptop.served(call)["completion_tokens"] == 37
    (row,) = eventually(lambda: [row for row in laptop.all_rows() if row.tokens.get("output") == 37])
    assert row.scopes == {"session": CONVERSATION, "subscription": "rich-prod", "team": "rich"}
    assert row.measured


def test_parameters_can_be_dropped(laptop, call):
    """What dropParams names does not reach the model; what it does not name does."""
    *_, end = librechat(laptop, "chat", call, dropParams=["temperature", "user"])
    assert "error" not in end
    body = json.loads(laptop.received(call=call)[0]["body"])
    assert not {"temperature", "user"} & set(body)
    assert body["top_p"] == 1


@pytest.mark.parametrize("step", ["title", "structured_title"])
def test_titles_are_written_by_the_cheap_model(laptop, call, step):
    """Before a conversation has an id too, when LibreChat sends its header empty; the schema of a title is kept."""
    (end,) = librechat(laptop, step, call, conversation=None)
    said = end["answer"]["content"]
    assert said == {"title": "budget"} if step == "structured_title" else len(said.split()) == 20
    (received,) = laptop.received(call=call)
    assert json.loads(received["body"])["model"].startswith("gpt-4o-mini")


def test_the_models_to_choose_from_are_the_gateways(laptop):
    """GET /v1/models with the key as a Bearer token and the conversation's header still empty."""
    (end,) = librechat(laptop, "models", conversation=None)
    assert {"gpt-4o", "gpt-4o-mini"} <= set(end["answer"]["models"])


def test_a_refusal_is_a_sentence_for_the_person(laptop, call):
    """LibreChat shows the error's message: it names budget and reset. The request is sent once."""
    (end,) = librechat(laptop, "chat", call, team="poor", text="word " * 2000)
    assert (end["error"]["status"], end["sent"]) == (402, 1)
    assert "Budget team:poor" in end["error"]["message"]
    assert "resets at" in end["error"]["message"]
    assert laptop.served(call)["attempts"] == 0


def test_a_budget_per_person_needs_one_more_header(laptop, call):
    """The line that the sample has as a comment, where the tenant lists `person`: the person is a scope with a budget."""
    commented = next(line for line in SAMPLE.read_text().splitlines() if "x-budget-scope-person" in line)
    header = yaml.safe_load(commented.strip().removeprefix("# "))
    *_, end = librechat(laptop, "chat", call, extraHeaders={**header, "x-sim-call-id": call})
    assert "error" not in end
    found = eventually(lambda: [b for b in laptop.budgets() if b["scope"] == f"person:{PERSON}" and float(b["spent"])])
    assert found[0]["limit"] == "5.00"
