"""Clients as people install them, against the built-in gateway: only address and key differ."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import httpx
import openai
import pytest
from pydantic import BaseModel, SecretStr

from bench import litellm_runner
from local.options import BUILT_IN
from tests.support.laptop import API_VERSION, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import configuration, team_file
from tests.support.node_sdk import run_node

MESSAGES = [{"role": "user", "content": "What is left of the budget?"}]
TOOL_MESSAGES = [{"role": "user", "content": "Please use web_search."}]
TOOLS = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]
LITELLM_CLIENT = Path(__file__).parent.parent / "support" / "litellm_client.py"
FILES = configuration(rich=team_file("rich", "1000.00"), poor=team_file("poor", "0.0005"))


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


@pytest.mark.parametrize(("kind", "model"), [("openai", "gpt-4o"), ("azure", "gpt-4o-weu")])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_the_node_sdk_chats(laptop, call, kind, model, streamed):
    """Both client classes, whole and streamed, billed at once as the model counted."""
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


# --- LiteLLM ---


def test_litellm_is_a_client(laptop):
    """completion, streams, tools, Azure's paths, embeddings, responses, its Router, asyncio, and a refusal."""
    if not litellm_runner.PYTHON.exists():
        pytest.skip("LiteLLM is not installed: make litellm-client")
    told = {
        "url": laptop.url,
        "key": "local-rich",
        "poor_key": "local-poor",
        "azure_version": API_VERSION,
    }
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # no download of a price list
    ended = subprocess.run(
        [str(litellm_runner.PYTHON), str(LITELLM_CLIENT)],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = json.loads(ended.stdout.splitlines()[-1])
    for name in ("whole", "stream", "responses"):
        text, output_tokens = said[name]
        assert len(text.split()) == output_tokens == laptop.served(f"litellm-{name}")["completion_tokens"] == 12
    assert said["tool"] == "web_search"
    assert said["azure"] == said["async"] == 12
    assert said["embedding"] == [16, 10]
    assert said["router"][1] == 12
    assert said["refused"]["status"] == 402
    assert "team:poor" in said["refused"]["message"]
