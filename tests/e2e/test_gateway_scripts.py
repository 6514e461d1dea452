"""What scripts use: the calls of docs/gateway.md, run as they are written there, and POST /chat to the nano-dollar."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from bench import litellm_runner
from local.options import BUILT_IN, PROJECT
from tests.support.laptop import API_VERSION, eventually, start_laptop
from tests.support.laptop_config import team_file
from tests.support.node_sdk import E2E, node_script

SHIPPED = {str(path.relative_to(PROJECT / "config")): path.read_text() for path in (PROJECT / "config").rglob("*.yaml")}
DEGRADES = ", warn: 0.000001, degrade: 0.000002, disable_tools: [web_search]"
DOWNGRADES = ", downgrade: [{from: gpt-4o, to: gpt-4o-mini}]"
FILES = {
    **SHIPPED,
    "teams/poor.yaml": team_file("poor", "0.0005"),
    "teams/thrifty.yaml": team_file("thrifty", "10.00", more=DEGRADES + DOWNGRADES),
}
LITELLM_CLIENT = PROJECT / "tests" / "support" / "litellm_client.py"
LITELLM_ENVIRONMENT = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # no download of a price list
DOCUMENTED = "http://127.0.0.1:8080"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (PROJECT / "docs" / "gateway.md").read_text(), re.MULTILINE | re.DOTALL)


# README.md shows one call as well, in an indented block.
README_COMMANDS = re.findall(r"^ {4}(curl .*/chat .*)$", (PROJECT / "README.md").read_text(), re.MULTILINE)


def snippets(language: str, mark: str) -> list[str]:
    """The document's blocks in a language that hold a mark; a document that lost one fails the tests on it."""
    found = [text for kind, text in BLOCKS if kind == language and mark in text]
    assert found, f"docs/gateway.md has no {language} block with {mark!r}"
    return found


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("scripts"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


@pytest.fixture
def call():
    """A name under which the model counts the calls of this test."""
    return f"c-{uuid.uuid4().hex[:12]}"


def served_calls(laptop) -> int:
    """How many calls the model served so far."""
    return sum(used["calls"] for used in httpx.get(f"{laptop.model_url}/sim/usage").json().values())


def run(command: list[str] | str, **options) -> str:
    """What a command prints on standard output; it must succeed."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


@pytest.mark.parametrize(
    "command", [*snippets("sh", "curl"), *README_COMMANDS], ids=["chat_completions", "chat", "readme_chat"]
)
def test_the_documented_curl_commands_work(laptop, command):
    """Copied from the page with another address: a reader's first call is served."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install curl")
    served = served_calls(laptop)
    answer = run(command.replace(DOCUMENTED, laptop.url).replace("curl ", "curl -sS --fail-with-body "), shell=True)
    assert '"content":' in answer or '"reply":' in answer
    assert served_calls(laptop) == served + 1


@pytest.mark.parametrize(
    "snippet",
    [*snippets("python", "from openai import"), *snippets("python", "langchain_openai")],
    ids=["OpenAI", "AzureOpenAI", "ChatOpenAI"],
)
def test_the_documented_python_works(laptop, snippet, capsys):
    """The classes OpenAI and AzureOpenAI, and LangChain's: each prints what the model said or used."""
    served = served_calls(laptop)
    exec(compile(snippet.replace(DOCUMENTED, laptop.url), "docs/gateway.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) > 5
    assert served_calls(laptop) == served + 1


@pytest.fixture
def litellm() -> str:
    """The Python in which LiteLLM is installed: not ours, for it pins another OpenAI SDK."""
    if not litellm_runner.PYTHON.exists():
        pytest.skip("LiteLLM is not installed: make litellm-client")
    return str(litellm_runner.PYTHON)


def test_the_documented_litellm_call_works(laptop, litellm):
    """As it is written."""
    (snippet,) = snippets("python", "litellm")
    said = run([litellm, "-c", snippet.replace(DOCUMENTED, laptop.url)], env=LITELLM_ENVIRONMENT)
    assert len(said.split()) > 5


def test_litellm_is_a_client(laptop, litellm):
    """completion, streams, tools, Azure's paths, embeddings, responses, its Router, asyncio, and a refusal."""
    told = {"url": laptop.url, "key": "local-support", "poor_key": "local-poor", "azure_version": API_VERSION}
    said = json.loads(run([litellm, str(LITELLM_CLIENT)], input=json.dumps(told), env=LITELLM_ENVIRONMENT))
    for name in ("whole", "stream", "responses"):
        text, output_tokens = said[name]
        assert len(text.split()) == output_tokens == laptop.served(f"litellm-{name}")["completion_tokens"] == 12
    assert said["tool"] == "web_search"
    assert said["azure"] == said["async"] == 12
    assert said["embedding"] == [16, 10]
    assert said["router"][1] == 12
    assert said["refused"]["status"] == 402
    assert "team:poor" in said["refused"]["message"]


def test_the_documented_node_call_works(laptop):
    """The module is read from standard input, where the packages of its folder are found."""
    (snippet,) = snippets("js", "openai")
    program = node_script(E2E / "node", "call.mjs", "the OpenAI SDK for Node.js (once, a few seconds)")[0]
    said = run(
        [program, "--input-type=module", "-"], input=snippet.replace(DOCUMENTED, laptop.url), cwd=Path(E2E / "node")
    )
    assert len(said.split()) > 5


# --- POST /chat ---


def ask(laptop, team: str, body: dict, call: str = "", **headers: str) -> httpx.Response:
    """A prompt as a team; further headers by keyword."""
    return laptop.post(team, "/chat", body, call=call or None, x_sim_output_tokens="40", **headers)


def row_of(laptop, answer: httpx.Response):
    """The one row that the call left in the ledger."""
    (row,) = eventually(lambda: laptop.rows(answer)).values()
    return row


@pytest.mark.parametrize("text", ["Hello", "budget " * 1000], ids=["short", "cached"])
def test_the_cost_of_a_reply_is_what_the_ledger_bills(laptop, call, text):
    """To the nano-dollar, at the price of the model that answered; cached tokens of a repeated prompt at theirs."""
    ask(laptop, "support", {"prompt": text, "model": "gpt-4.1-mini"})
    answer = ask(laptop, "support", {"prompt": text, "model": "gpt-4.1-mini"}, call).raise_for_status()
    said, truth = answer.json(), laptop.served(call)
    row = row_of(laptop, answer)
    assert said["usage"]["prompt_tokens"] == truth["prompt_tokens"]
    assert len(said["reply"].split()) == said["usage"]["completion_tokens"] == truth["completion_tokens"] == 40
    assert Decimal(said["cost"]) * 10**9 == row.cost_nano_usd > 0
    assert bool(row.tokens.get("cached_input")) == (text != "Hello")
    assert (said["model"], row.model, row.operation) == ("gpt-4.1-mini", "gpt-4.1-mini", "chat")


def test_without_a_model_the_cheapest_capable_one_answers(laptop, call):
    """Nobody had to name one; the answer says which it was, and that is what is billed."""
    answer = ask(laptop, "support", {"prompt": "Hello"}, call).raise_for_status()
    row = row_of(laptop, answer)
    assert answer.json()["model"] == row.model == answer.headers["x-served-model"]
    assert Decimal(answer.json()["cost"]) * 10**9 == row.cost_nano_usd
    named = ask(laptop, "support", {"prompt": "Hello", "model": "gpt-4o"}).raise_for_status()
    assert Decimal(answer.json()["cost"]) < Decimal(named.json()["cost"])


def test_a_fallback_is_billed_at_its_own_price(laptop, call):
    """Every deployment of the model fails: the attempts cost nothing, the reply what the model cost that gave it."""
    failing = {"x_sim_at": "gpt-4o-weu,gpt-4o-swc", "x_sim_status": "500"}
    answer = ask(laptop, "support", {"prompt": "Hello", "model": "gpt-4o"}, call, **failing).raise_for_status()
    assert (answer.json()["model"], answer.headers["x-tollkeeper-attempts"]) == ("gpt-4o-mini", "3")
    rows = eventually(lambda: found if len(found := rows_of_attempts(laptop, answer)) == 3 else None)
    assert [row.cost_nano_usd for row in rows[:2]] == [0, 0]
    assert Decimal(answer.json()["cost"]) * 10**9 == rows[2].cost_nano_usd > 0


def rows_of_attempts(laptop, answer: httpx.Response):
    """The rows of a call in the order of its attempts."""
    return sorted(laptop.rows_by_request()[answer.headers["x-request-id"]], key=lambda row: row.attempt)


def test_a_named_scope_is_charged(laptop):
    """x-budget-scope-type and -key are a scope of the row; a type that the tenant does not list is refused."""
    scope = {"x_budget_scope_type": "session", "x_budget_scope_key": "nightly"}
    answer = ask(laptop, "support", {"prompt": "Hello", "model": "gpt-4o-mini"}, **scope)
    assert row_of(laptop, answer).scopes["session"] == "nightly"
    stolen = ask(laptop, "support", {"prompt": "Hello"}, x_budget_scope_type="team", x_budget_scope_key="poor")
    assert (stolen.status_code, stolen.json()["error"]["code"]) == (403, "scope_not_allowed")
    both = ask(laptop, "support", {"prompt": "Hello"}, **scope, x_budget_scope_task="t")
    assert (both.status_code, both.json()["error"]["param"]) == (400, "x-budget-scope-type")


def test_a_degraded_team_gets_the_cheaper_model_without_its_tool(laptop, call):
    """Tools by name are switched off like any other; the cost is that of the model that answered."""
    body = {"prompt": "Use web_search.", "model": "gpt-4o", "tools": ["web_search"]}
    first = ask(laptop, "thrifty", body).raise_for_status().json()
    assert (first["reply"], first["tool_calls"][0]["function"]["name"]) == (None, "web_search")
    eventually(lambda: ask(laptop, "thrifty", body).headers["x-budget-state"] == "degraded")
    answer = ask(laptop, "thrifty", body, call)
    assert (answer.headers["x-budget-disabled-tools"], answer.headers["x-served-model"]) == (
        "web_search",
        "gpt-4o-mini",
    )
    assert "tool_calls" not in answer.json()
    row = row_of(laptop, answer)
    assert (answer.json()["model"], row.model, row.decision) == ("gpt-4o-mini", "gpt-4o-mini", "downgrade")
    assert Decimal(answer.json()["cost"]) * 10**9 == row.cost_nano_usd


def test_a_spent_budget_says_what_remains(laptop, call):
    """402 with `remaining` beside OpenAI's error; no model is asked."""
    too_long = "budget " * 4000  # 7,000 tokens at 0.15 USD per million are 0.00105, of 0.0005
    answer = ask(laptop, "poor", {"prompt": too_long, "model": "gpt-4o-mini"}, call)
    said = answer.json()
    assert (answer.status_code, said["error"]["code"]) == (402, "budget_exhausted")
    assert said["remaining"] == said["budget"]["remaining"] == "0.0005"
    assert answer.headers["x-should-retry"] == "false"
    assert laptop.served(call)["attempts"] == 0


def test_what_is_wrong_is_named(laptop, call):
    """A missing prompt, no key, and a model's own error keep OpenAI's shape."""
    assert ask(laptop, "support", {"text": "Hello"}).json()["error"]["param"] == "prompt"
    nobody = httpx.post(f"{laptop.url}/chat", json={"prompt": "Hello"})
    assert (nobody.status_code, nobody.json()["error"]["type"]) == (401, "authentication_error")
    hot = ask(laptop, "support", {"prompt": "Hello", "model": "gpt-4o-mini", "temperature": 3}, call)
    assert (hot.status_code, hot.json()["error"]["param"]) == (400, "temperature")
