"""The OpenAI SDK, unchanged, on a model of Anthropic: a whole running copy, tools, streams, errors, exact bills."""

import json

import httpx
import openai
import pytest

from local.model.answers import count_tokens
from local.options import BUILT_IN
from tests.support.laptop import MODEL, eventually, start_laptop

CLAUDE = "claude-sonnet-5"
FILES = {
    "tenants.yaml": "tenants: [{id: default}]",
    "models.yaml": f"""
endpoints:
  - {{id: claude, provider: anthropic, url: {MODEL}/anthropic, key: ANTHROPIC_API_KEY}}
models:
  - {{id: {CLAUDE}, provider: anthropic, capabilities: [chat, tools, vision, json], max_output_tokens: 2000}}
""",
    "prices.yaml": f"""
prices:
  - model: {CLAUDE}
    provider: anthropic
    effective_from: 2026-01-01
    usd_per_million: {{input: 3.00, cached_input: 0.30, cache_write: 3.75, cache_write_1h: 6.00, output: 15.00}}
""",
    "teams/search.yaml": """
team: search
identities: {subscriptions: [search-prod], apps: [11112222-3333-4444-8555-666677778888]}
budgets: [{period: month, limit: 1000.00}]
""",
}
APP = "11112222-3333-4444-8555-666677778888"
RULES = "Rules of the house. " * 300
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "web_search",
            "description": "Search the web.",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("laptop"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


@pytest.fixture
def client(laptop):
    return laptop.client("search", base_url=f"{laptop.url}/v1", max_retries=0)


def billed_nano_usd(laptop, request_id: str) -> int:
    """What the ledger charges for a call, once it is there."""
    rows = eventually(lambda: laptop.rows_by_request().get(request_id))
    return sum(row.charge_nano_usd for row in rows)


def test_a_conversation_with_tools_and_a_cache_is_streamed_and_billed_exactly(laptop, client):
    """The first turn writes its rules to the cache for an hour and calls a tool, the second reads them back: each is
    billed by Anthropic's own counts, which stand beside each other and not inside each other."""
    system = {"role": "system", "content": RULES, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    asked = {"role": "user", "content": "Ask web_search what is left."}

    def turn(messages):
        answer = client.chat.completions.with_raw_response.create(
            model=CLAUDE,
            messages=messages,
            tools=TOOLS,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-sim-output-tokens": "40"},
        )
        chunks = list(answer.parse())
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices == []
        return answer.headers["x-request-id"], chunks

    request_id, chunks = turn([system, asked])
    [named, *rest] = [call for chunk in chunks[:-1] for call in chunk.choices[0].delta.tool_calls or []]
    arguments = "".join(call.function.arguments for call in (named, *rest))
    assert named.function.name == "web_search"
    assert json.loads(arguments)["query"]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "tool_calls"
    usage = chunks[-1].usage
    written = usage.prompt_tokens_details.cache_write_tokens
    assert written > count_tokens(RULES)  # the tools stand in front of the rules
    assert (usage.prompt_tokens_details.cached_tokens, usage.completion_tokens) == (0, 40)
    # 3 USD a million is 3,000 nano-USD a token: input at 3, written for an hour at 6, output at 15.
    anew = usage.prompt_tokens - written
    assert billed_nano_usd(laptop, request_id) == anew * 3_000 + written * 6_000 + 40 * 15_000

    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": named.id, "type": "function", "function": {"name": "web_search", "arguments": arguments}}
        ],
    }
    result = {"role": "tool", "tool_call_id": named.id, "content": "Eight dollars."}
    request_id, chunks = turn([system, asked, called, result])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.cache_write_tokens) == (written, 0)
    # Read back it costs a tenth of the input: 0.30 USD a million.
    anew = usage.prompt_tokens - written
    assert billed_nano_usd(laptop, request_id) == anew * 3_000 + written * 300 + 40 * 15_000


def test_a_whole_answer_is_billed_as_its_stream_would_be(laptop, client):
    """The default cap of an answer is what config says the model writes, where the client names none."""
    answer = client.chat.completions.with_raw_response.create(
        model=CLAUDE,
        messages=[{"role": "user", "content": "hi"}],
        reasoning_effort="low",
        extra_headers={"x-sim-output-tokens": "30", "x-sim-call-id": "whole"},
    )
    completion = answer.parse()
    assert (completion.model, completion.choices[0].finish_reason) == (CLAUDE, "stop")
    assert completion.usage.completion_tokens_details.reasoning_tokens == 15
    assert completion.choices[0].message.model_extra["reasoning_content"]
    [received] = laptop.received(call="whole")
    assert received["path"] == "/anthropic/v1/messages"
    assert json.loads(received["body"])["max_tokens"] == 2000
    assert not {"api-key", "authorization", "x-api-key"} & set(received["header_names"])
    charged = billed_nano_usd(laptop, answer.headers["x-request-id"])
    assert charged == completion.usage.prompt_tokens * 3_000 + 30 * 15_000


def test_a_stream_that_breaks_is_billed_for_what_it_read_and_wrote(laptop, client):
    """What Anthropic said at the start about its cache is known; what it wrote is counted until the break."""
    messages = [
        {"role": "system", "content": RULES, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"role": "user", "content": "Tell me all."},
    ]
    client.chat.completions.create(model=CLAUDE, messages=messages)
    answer = client.chat.completions.with_raw_response.create(
        model=CLAUDE,
        messages=messages,
        stream=True,
        extra_headers={
            "x-sim-output-tokens": "400",
            "x-sim-fault": "cut",
            "x-sim-fault-after": "20",
            "x-sim-call-id": "broken",
        },
    )
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(answer.parse())
    charged = billed_nano_usd(laptop, answer.headers["x-request-id"])
    prompt = count_tokens(f"{RULES}\nTell me all.")
    read, anew = count_tokens(RULES), prompt - count_tokens(RULES)
    written = laptop.served("broken")["aborted_completion_tokens"]
    assert 100 < written < 200  # what the model knows, and the gateway estimates from the bytes that went by
    assert written / 2 * 15_000 < charged - anew * 3_000 - read * 300 < written * 2 * 15_000


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [(429, "rate_limit_error", openai.RateLimitError), (529, "overloaded_error", openai.InternalServerError)],
)
def test_errors_of_anthropic_are_raised_by_openais_sdk(client, status, code, raised):
    """The SDK sees a status it knows, and Anthropic's name for what happened."""
    with pytest.raises(raised) as error:
        client.chat.completions.create(
            model=CLAUDE, messages=[{"role": "user", "content": "hi"}], extra_headers={"x-sim-status": str(status)}
        )
    assert error.value.code == code


def test_what_anthropic_cannot_serve_is_refused_before_it_is_asked(laptop, client):
    """A clear 400 that names the field, nothing sent, nothing billed."""
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model=CLAUDE,
            messages=[{"role": "user", "content": "hi"}],
            logprobs=True,
            extra_headers={"x-sim-call-id": "refused"},
        )
    assert (error.value.code, error.value.param) == ("unsupported_parameter", "logprobs")
    assert laptop.served("refused")["attempts"] == 0


def test_an_app_calls_with_its_token_of_entra_id(laptop):
    """The plain client takes the token for its key: whoever the directory says is calling pays, and nobody else."""
    token = laptop.token(azp=APP, oid="99992222-3333-4444-8555-666677778888")
    client = openai.OpenAI(base_url=f"{laptop.url}/v1", api_key=token, max_retries=0)
    answer = client.chat.completions.with_raw_response.create(
        model=CLAUDE, messages=[{"role": "user", "content": "hi"}], extra_headers={"x-sim-output-tokens": "30"}
    )
    assert answer.headers["x-budget-scope"] == "team:search"
    [row] = eventually(lambda: laptop.rows_by_request().get(answer.headers["x-request-id"]))
    assert (row.scopes["team"], row.scopes["app"]) == ("search", APP)
    for flaw, claims in (("expired", {"azp": APP}), ("wrong_audience", {"azp": APP}), ("unknown_key", {"azp": APP})):
        refused = laptop.token(flaw=flaw, **claims)
        with pytest.raises(openai.AuthenticationError) as error:
            client.with_options(api_key=refused).models.list()
        assert error.value.code == "invalid_api_key"
        assert error.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.PermissionDeniedError) as error:
        client.with_options(api_key=laptop.token(azp="a-stranger")).chat.completions.create(
            model=CLAUDE, messages=[{"role": "user", "content": "hi"}]
        )
    assert error.value.code == "identity_unknown"
