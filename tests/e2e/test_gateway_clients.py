"""Clients as people install them, against the built-in gateway: only address and key differ."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import openai
import pytest
import yaml
from pydantic import BaseModel, SecretStr

from local.options import BUILT_IN, PROJECT
from tests.support.laptop import API_VERSION, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import configuration, team_file
from tests.support.node_sdk import E2E, node_script, run_node, run_script

MESSAGES = [{"role": "user", "content": "What is left of the budget?"}]
TOOL_MESSAGES = [{"role": "user", "content": "Please use web_search."}]
TOOLS = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]
LIBRECHAT = PROJECT / "samples" / "librechat" / "librechat.yaml"
PERSON, CONVERSATION = "665f1c0ffee1c0ffee1c0ffe", "0b1c2d3e-conversation"
TENANTS = """
tenants:
  - {id: default, client_asserted_scopes: [session, person]}
  - {id: late, client_asserted_scopes: [session], exhausted_status: 429}
"""
FILES = {
    **configuration(TENANTS, rich=team_file("rich", "1000.00"), poor=team_file("poor", "0.0005")),
    "teams/late.yaml": "tenant: late\n" + team_file("late", "0.0005"),
    "budgets.yaml": "budgets: [{scope: 'person:*', period: day, limit: 5.00}]",
}


class Verdict(BaseModel):
    """What is left, as a model is asked to say it."""

    scope: str
    is_spent: bool
    remaining: list[float]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("clients"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


@pytest.fixture
def call():
    """A name under which the model counts the calls of this test."""
    return f"c-{uuid.uuid4().hex[:12]}"


def knobs(call, output_tokens=20):
    return {"x-sim-call-id": call, "x-sim-output-tokens": str(output_tokens)}


def assert_billed(laptop, call, answered_id=None):
    """One row with the tokens that the model counted for the call."""
    truth = laptop.served(call)
    assert (truth["calls"], truth["attempts"]) == (1, 1)
    if answered_id is not None:
        (row,) = eventually(lambda: laptop.rows(answered_id)).values()
        assert (row.kind, row.measured, row.scopes["team"]) == ("usage", True, "rich")
        assert prompt_and_output(row) == (truth["prompt_tokens"], truth["completion_tokens"])


# --- OpenAI's SDK for Node.js ---


@pytest.mark.parametrize(("kind", "model", "streamed"), [("openai", "gpt-4o", True), ("azure", "gpt-4o-weu", False)])
def test_the_node_sdk_chats(laptop, call, kind, model, streamed):
    """Both client classes, one of them streamed, billed at once as the model counted."""
    body = {"model": model, "messages": MESSAGES, "stream": streamed}
    *chunks, end = run_node(laptop, kind, "rich", "chat", body, knobs(call))
    assert (end["status"], end["sent"]) == (200, 1)
    if streamed:
        choices = [choice for line in chunks for choice in line["chunk"]["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
    else:
        text = end["answer"]["choices"][0]["message"]["content"]
    assert len(text.split()) == 20
    assert_billed(laptop, call, end["headers"]["x-request-id"])


def test_the_node_sdk_reads_the_other_apis(laptop, call):
    """Streamed responses, embeddings, the list of models, and a structured output that it parses itself."""
    *events, end = run_node(
        laptop, "openai", "rich", "responses", {"model": "gpt-4o", "input": "Hi", "stream": True}, knobs(call)
    )
    assert events[-1]["chunk"]["type"] == "response.completed"
    assert_billed(laptop, call, end["headers"]["x-request-id"])
    body = {"model": "text-embedding-3-small", "input": "a" * 40}
    (end,) = run_node(laptop, "azure", "rich", "embeddings", body, {})
    assert end["answer"]["usage"]["prompt_tokens"] == 10
    (end,) = run_node(laptop, "openai", "rich", "models", {}, {})
    assert "gpt-4o" in {model["id"] for model in end["answer"]["data"]}
    schema = {"name": "verdict", "strict": True, "schema": Verdict.model_json_schema()}
    body = {
        "model": "gpt-4o",
        "messages": MESSAGES,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "tools": [],
    }
    (end,) = run_node(laptop, "openai", "rich", "parse", body, {})
    assert json.loads(end["answer"]["choices"][0]["message"]["content"])["remaining"] == [0.5]


def test_the_node_sdk_does_not_repeat_what_cannot_help(laptop, call):
    """A spent budget is one request, although three retries are allowed."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 2000}
    (end,) = run_node(laptop, "openai", "poor", "chat", body, knobs(call))
    assert (end["error"]["status"], end["error"]["code"], end["sent"]) == (402, "budget_exhausted", 1)
    assert laptop.served(call)["attempts"] == 0


# --- LangChain ---


def langchain(laptop, call, kind="ChatOpenAI", team="rich", **options):
    """A model class of langchain_openai; imported here, because that takes seconds."""
    import langchain_openai

    if kind.startswith("Azure"):
        place = {"azure_endpoint": laptop.url, "api_version": API_VERSION, "azure_deployment": "gpt-4o-weu"}
    else:
        place = {"base_url": f"{laptop.url}/v1"} | ({} if "model" in options else {"model": "gpt-4o"})
    headers = knobs(call)
    return getattr(langchain_openai, kind)(
        **place, api_key=SecretStr(f"local-{team}"), default_headers=headers, **options
    )


@pytest.mark.parametrize("kind", ["ChatOpenAI", "AzureChatOpenAI"])
def test_langchain_invokes(laptop, call, kind):
    """Its usage_metadata is what the model counted and what the ledger bills."""
    message = langchain(laptop, call, kind, include_response_headers=True).invoke("What is left?")
    truth = laptop.served(call)
    assert message.usage_metadata["input_tokens"] == truth["prompt_tokens"]
    assert message.usage_metadata["output_tokens"] == truth["completion_tokens"] == len(message.content.split())
    assert_billed(laptop, call, message.response_metadata["headers"]["x-request-id"])


@pytest.mark.parametrize("options", [{}, {"use_responses_api": True}], ids=["chat", "responses"])
async def test_langchain_streams_with_usage(laptop, call, options):
    """Chunks add up to the answer and its usage, asynchronously too, on either of OpenAI's APIs."""
    whole = None
    async for chunk in langchain(laptop, call, stream_usage=True, **options).astream("What is left?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.usage_metadata["output_tokens"] == laptop.served(call)["completion_tokens"] == 20
    assert len(whole.text.split()) == 20


def test_langchain_calls_tools(laptop, call):
    """bind_tools sends them, the call comes back parsed."""

    def web_search(query: str) -> str:
        """Search the web."""
        return query

    message = langchain(laptop, call).bind_tools([web_search]).invoke("Please use web_search.")
    assert [(each["name"], list(each["args"])) for each in message.tool_calls] == [("web_search", ["query"])]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_parses_structured_output(laptop, call, method):
    """Both ways LangChain has of asking for one."""
    verdict = langchain(laptop, call).with_structured_output(Verdict, method=method).invoke("What is left?")
    assert verdict == Verdict(scope="budget", is_spent=True, remaining=[0.5])


def test_langchain_embeds_texts_and_tokens(laptop, call, monkeypatch):
    """It counts tokens itself and sends their numbers; with that off, as for other models, it sends texts."""
    import tiktoken

    letters = tiktoken.Encoding(
        "letters", pat_str=r".", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda model: letters)  # the real one downloads its words
    embeddings = langchain(laptop, call, "OpenAIEmbeddings", model="text-embedding-3-small")
    assert len(embeddings.embed_query("budget")) == 16
    assert laptop.served(call)["prompt_tokens"] == len("budget")
    sent = json.loads(laptop.received(call=call)[0]["body"])
    assert (sent["input"], sent["encoding_format"]) == ([list(b"budget")], "base64")
    plain = langchain(
        laptop, f"{call}-t", "OpenAIEmbeddings", model="text-embedding-3-small", check_embedding_ctx_length=False
    )
    assert len(plain.embed_documents(["a" * 40, "b" * 8])) == 2
    assert laptop.served(f"{call}-t")["prompt_tokens"] == 40 // 4 + 8 // 4


def test_langchain_raises_a_refusal_at_once(laptop, call):
    """The SDK's own exception with our code, after one request."""
    sent = []
    http = httpx.Client(event_hooks={"request": [sent.append]})
    model = langchain(laptop, call, team="poor", max_retries=5, max_tokens=2000, http_client=http)
    with pytest.raises(openai.APIStatusError) as raised:
        model.invoke("What is left?")
    assert (raised.value.status_code, raised.value.code, len(sent)) == (402, "budget_exhausted", 1)


# --- LibreChat: the sample against its own schema, and every request that it makes ---


def librechat(laptop, steps: str, call: str = "", *, team: str = "rich", **more: Any) -> list[dict[str, Any]]:
    """What LibreChat's client prints for its steps: chunks, and an answer or an error for each."""
    command = node_script(E2E / "librechat", "endpoint.mjs", "LibreChat's schema and client (once, ten seconds)")
    described = {
        "yaml": str(LIBRECHAT),
        "env": {"TOLLKEEPER_URL": f"{laptop.url}/v1", "TOLLKEEPER_KEY": f"local-{team}"},
        "extraHeaders": {"x-sim-call-id": call, "x-sim-output-tokens": "37"},
        "person": PERSON,
        "conversation": CONVERSATION,
        "model": "gpt-4o",
        "text": "What is left of the budget?",
        "steps": steps.split(),
    }
    return run_script(command, {**described, **more})


def test_librechat_streams_a_conversation(laptop, call):
    """In pieces with usage; the row's session is the conversation. What dropParams names does not reach the model."""
    *chunks, end = librechat(laptop, "chat", call, dropParams=["temperature"])
    assert len([line for line in chunks if line["chunk"]]) > 5
    assert len(end["answer"]["content"].split()) == end["answer"]["usage"]["output_tokens"] == 37
    (received,) = laptop.received(call=call)
    body = json.loads(received["body"])
    assert (body["stream"], body["user"], body["top_p"], "temperature" in body) == (True, PERSON, 1, False)
    assert laptop.served(call)["completion_tokens"] == 37
    (row,) = eventually(lambda: [row for row in laptop.all_rows() if row.tokens.get("output") == 37])
    assert row.scopes == {"session": CONVERSATION, "subscription": "rich-prod", "team": "rich"}
    assert row.measured


def test_librechat_lists_models_and_writes_titles_before_a_conversation_has_an_id(laptop, call):
    """It sends its header empty then. Both kinds of titles come from the cheap model that the sample names."""
    models, title, structured = librechat(laptop, "models title structured_title", call, conversation=None)
    assert {"auto", "gpt-4o", "gpt-4o-mini"} <= set(models["answer"]["models"])
    assert len(title["answer"]["content"].split()) == 37
    assert structured["answer"]["content"] == {"title": "budget"}
    asked_for = [json.loads(received["body"])["model"] for received in laptop.received(call=call)]
    assert [name.removesuffix("-weu") for name in asked_for] == ["gpt-4o-mini", "gpt-4o-mini"]


@pytest.mark.parametrize(("team", "status"), [("poor", 402), ("late", 429)])
def test_librechat_shows_a_refusal_as_a_sentence(laptop, call, team, status):
    """The error's message is what it shows: budget and reset. The request is sent once, whichever status it has."""
    (end,) = librechat(laptop, "chat", call, team=team, text="word " * 2000)
    assert (end["error"]["status"], end["sent"]) == (status, 1)
    assert f"Budget team:{team}" in end["error"]["message"]
    assert "resets at" in end["error"]["message"]
    assert laptop.served(call)["attempts"] == 0


def test_librechat_gives_each_person_a_budget_by_one_more_header(laptop, call):
    """The line that the sample has as a comment, where the tenant lists `person`."""
    commented = next(line for line in LIBRECHAT.read_text().splitlines() if "x-budget-scope-person" in line)
    header = yaml.safe_load(commented.strip().removeprefix("# "))
    *_, end = librechat(laptop, "chat", call, extraHeaders={**header, "x-sim-call-id": call})
    assert "error" not in end
    found = eventually(lambda: [b for b in laptop.budgets() if b["scope"] == f"person:{PERSON}" and float(b["spent"])])
    assert found[0]["limit"] == "5.00"
