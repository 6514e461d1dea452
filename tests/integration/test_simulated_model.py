"""The simulated model, spoken to by the real OpenAI client over real HTTP."""

import time

import httpx
import openai
import pytest

from local.model.answers import count_tokens

PROMPT = "How much of the budget is left?"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def client(model_url):
    with openai.OpenAI(base_url=f"{model_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, output_tokens=None, headers=None, **fields):
    knobs = {} if output_tokens is None else {"x-sim-output-tokens": str(output_tokens)}
    fields = {"model": "gpt-4o", "messages": MESSAGES, **fields}
    return client.chat.completions.create(extra_headers={**knobs, **(headers or {})}, **fields)


def test_answers_and_counts_are_a_function_of_the_request(client):
    """Asking twice gives the same text and tokens, so a test can predict a bill."""
    first, second = ask(client), ask(client)
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.usage.prompt_tokens == count_tokens(PROMPT) == -(-len(PROMPT) // 4)
    assert first.usage.completion_tokens == len(first.choices[0].message.content.split())


def test_output_is_what_was_asked_for_up_to_the_cap(client):
    """x-sim-output-tokens sets the length, max_tokens cuts it and says so."""
    assert ask(client, 300).usage.completion_tokens == 300
    cut = ask(client, 300, max_tokens=100)
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (100, "length")
    assert ask(client, 300, max_completion_tokens=200, n=2).usage.completion_tokens == 2 * 200


def test_a_stream_carries_usage_only_when_asked(client):
    """As at OpenAI: a last chunk without choices holds usage, and only with include_usage."""
    chunks = list(ask(client, 40, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 40
    assert all(chunk.usage is None for chunk in chunks[:-1])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == ask(client, 40).choices[0].message.content
    assert all(chunk.choices and chunk.usage is None for chunk in ask(client, 40, stream=True))


def test_chunks_come_while_the_answer_is_made(client):
    """The first chunk arrives long before the last: the stream is a stream."""
    started = time.monotonic()
    arrivals = [time.monotonic() - started for _ in ask(client, 10, {"x-sim-chunk-ms": "50"}, stream=True)]
    assert arrivals[0] < arrivals[-1] / 2


def test_repeated_long_prompts_are_cached(client):
    """From 1024 tokens on a repeated prompt reports cached tokens in steps of 128, inside the prompt's tokens."""
    messages = [{"role": "user", "content": "word " * 1000}]
    first, second = ask(client, messages=messages), ask(client, messages=messages)
    tokens = -(-5000 // 4)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == tokens // 128 * 128
    assert second.usage.prompt_tokens == tokens


def test_tools_are_called_when_the_user_names_one(client):
    """A tool call comes back with its name and JSON arguments, stream or not."""
    tools = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]
    messages = [{"role": "user", "content": "Please use web_search."}]
    choice = ask(client, messages=messages, tools=tools).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls[0].function.name) == ("tool_calls", "web_search")
    assert ask(client, messages=messages, tools=tools, tool_choice="none").choices[0].message.tool_calls is None


def test_embeddings_are_deterministic_and_counted(client):
    """Equal texts get equal vectors; tokens are summed over the texts."""
    answer = client.embeddings.create(model="text-embedding-3-small", input=["abcd", "abcdefgh", "abcd"])
    assert answer.data[0].embedding == answer.data[2].embedding != answer.data[1].embedding
    assert answer.usage.prompt_tokens == 1 + 2 + 1


def test_azure_clients_are_served_by_deployment(model_url):
    """The deployment in the path is the model."""
    azure = openai.AzureOpenAI(azure_endpoint=model_url, api_key="none", api_version="2024-10-21")
    answer = azure.chat.completions.create(model="gpt-4o-weu", messages=MESSAGES)
    assert answer.model == "gpt-4o-weu"


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_errors_come_when_asked_for(client, status, error):
    """x-sim-status answers with that error, OpenAI-shaped."""
    with pytest.raises(error) as raised:
        ask(client, headers={"x-sim-status": str(status)})
    assert raised.value.code == "simulated_error"


def test_a_malformed_request_is_an_openai_error(model_url):
    """Bad JSON is a 400 the SDK can read."""
    answer = httpx.post(f"{model_url}/v1/chat/completions", content=b"{")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_what_was_served_can_be_read_back(model_url, client):
    """/sim/usage adds up exactly what the answers said, cut streams apart."""
    asked = [ask(client, tokens, model="gpt-4.1").usage for tokens in (10, 20, 30)]
    with ask(client, 50, {"x-sim-chunk-ms": "20"}, model="gpt-4.1", stream=True) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 5
    while (served := httpx.get(f"{model_url}/sim/usage").json()["gpt-4.1"])["aborted"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert served["calls"] == len(asked)
    assert served["completion_tokens"] == 10 + 20 + 30
    assert served["prompt_tokens"] == sum(usage.prompt_tokens for usage in asked)
    assert served["aborted_completion_tokens"] < 50


def test_a_stream_can_be_cut_by_the_model(client):
    """x-sim-break-after breaks the connection in the middle, for tests of broken streams."""
    with pytest.raises(openai.APIConnectionError):
        list(ask(client, 20, {"x-sim-break-after": "3"}, stream=True))
