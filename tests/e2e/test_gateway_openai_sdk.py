"""The OpenAI SDK, unchanged, against a whole running copy: both client classes, streams, refusals, exact bills."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pydantic
import pytest

from local.options import BUILT_IN
from tests.support.laptop import eventually, start_laptop
from tests.support.laptop_config import team_file

MESSAGES = [{"role": "user", "content": "What is left of the budget?"}]
DEGRADES = """, degrade: 0.0001, warn: 0.00005, disable_tools: [web_search],
     downgrade: [{from: gpt-4o, to: gpt-4o-mini}]"""
FILES = {
    "tenants.yaml": "tenants: [{id: default, client_asserted_scopes: [session]}]",
    "models.yaml": """
models:
  - {id: gpt-4o, deployments: [gpt-4o-weu], capabilities: [chat, tools]}
  - {id: gpt-4o-mini, deployments: [gpt-4o-mini-weu], capabilities: [chat, tools]}
  - {id: gpt-4.1, capabilities: [chat, tools]}
  - {id: text-embedding-3-small, capabilities: [embeddings]}
""",
    "prices.yaml": """
prices:
  - {model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.50, cached_input: 1.25, output: 10.00}}
  - {model: gpt-4o-mini, effective_from: 2026-01-01, usd_per_million: {input: 0.15, cached_input: 0.075, output: 0.60}}
  - {model: text-embedding-3-small, effective_from: 2026-01-01, usd_per_million: {input: 0.02}}
""",
    "teams/rich.yaml": team_file("rich", "1000.00"),
    "teams/poor.yaml": team_file("poor", "0.02"),
    "teams/tight.yaml": team_file("tight", "0.0015"),
    "teams/thrifty.yaml": team_file("thrifty", "1.00", more=DEGRADES),
}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("laptop"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop


def client_of(laptop, team, **options):
    # The way an application passes a subscription key that also works through API Management.
    return laptop.client(team, base_url=f"{laptop.url}/v1", **options)


def until_held(laptop, team, times):
    """Wait until calls of the team were told so often that its budget is held."""

    def is_told():
        told = httpx.get(f"{laptop.functions_url}/decisions", params={"limit": 500}).json()["decisions"]
        own = [each for each in told if each["scopes"].get("team") == team and each["reason"] == "budget_reserved"]
        return len(own) >= times

    eventually(is_told)


def tokens_of(count):
    return {"x-sim-output-tokens": str(count)}


def test_the_openai_client_is_served(laptop):
    """A call answers as the model would, with the budget's headers on it."""
    answer = client_of(laptop, "rich").chat.completions.with_raw_response.create(
        model="gpt-4o", messages=MESSAGES, extra_headers=tokens_of(30)
    )
    completion = answer.parse()
    assert completion.usage.completion_tokens == 30
    assert completion.model == "gpt-4o"
    assert answer.headers["x-budget-state"] == "active"
    assert answer.headers["x-budget-scope"] == "team:rich"
    assert 0 < float(answer.headers["x-budget-remaining"]) <= 1000
    assert answer.headers["x-budget-resets-at"].endswith("Z")
    assert answer.headers["x-request-id"]


def test_a_bearer_key_works_too(laptop):
    """The plain OpenAI class sends the key as a Bearer token."""
    client = openai.OpenAI(base_url=f"{laptop.url}/v1", api_key="local-rich")
    assert client.chat.completions.create(model="gpt-4o", messages=MESSAGES).choices


def test_the_azure_client_is_served_by_deployment(laptop):
    """AzureOpenAI calls name a deployment; the call is the deployment's model's."""
    client = laptop.azure_client("rich")
    assert client.chat.completions.create(model="gpt-4o-weu", messages=MESSAGES).model == "gpt-4o"
    stream = client.chat.completions.create(model="gpt-4o-weu", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_every_api_of_either_client_is_served(laptop, kind):
    """Responses whole and streamed, embeddings, the list of models; on the paths that each class calls."""
    client = client_of(laptop, "rich") if kind == "openai" else laptop.azure_client("rich")
    whole = client.responses.create(model="gpt-4o", input="How much?", instructions="Be brief.")
    assert len(whole.output_text.split()) == whole.usage.output_tokens
    events = list(client.responses.create(model="gpt-4o", input="How much?", stream=True))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert events[-1].response.usage.input_tokens > 0
    embedded = client.embeddings.create(model="text-embedding-3-small", input=["a" * 40, "b" * 8])
    assert (len(embedded.data), embedded.usage.prompt_tokens) == (2, 40 // 4 + 8 // 4)
    assert {"gpt-4o", "text-embedding-3-small"} <= {model.id for model in client.models.list()}


async def test_the_asynchronous_clients_are_served(laptop):
    """Many calls of one connection pool at once, whole and streamed."""
    v1 = {"base_url": f"{laptop.url}/v1", "api_key": "local-rich"}
    async with openai.AsyncOpenAI(**v1) as client:

        async def whole():
            answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=5)
            return answer.usage.completion_tokens

        async def streamed():
            stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=5, stream=True)
            return len("".join([chunk.choices[0].delta.content or "" async for chunk in stream]).split())

        assert await asyncio.gather(*(call() for call in [whole, streamed] * 5)) == [5] * 10


class Verdict(pydantic.BaseModel):
    """What is left, as a model is asked to say it."""

    scope: str
    is_spent: bool


class Lookup(pydantic.BaseModel):
    """The arguments of a tool."""

    team: str
    days: int


def test_the_parse_helpers_work(laptop):
    """Structured outputs and strict tools come back as the classes that were asked for, on both APIs."""
    client = client_of(laptop, "rich")
    parsed = client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Verdict)
    assert parsed.choices[0].message.parsed == Verdict(scope="budget", is_spent=True)
    tool = openai.pydantic_function_tool(Lookup)
    called = client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, tools=[tool], tool_choice="required")
    assert called.choices[0].message.tool_calls[0].function.parsed_arguments == Lookup(team="budget", days=1)
    response = client.responses.parse(model="gpt-4o", input="What is left?", text_format=Verdict)
    assert response.output_parsed == Verdict(scope="budget", is_spent=True)
    with client.chat.completions.stream(model="gpt-4o", messages=MESSAGES, response_format=Verdict) as stream:
        stream.until_done()
    assert stream.get_final_completion().choices[0].message.parsed == Verdict(scope="budget", is_spent=True)


def test_streams_have_a_usage_chunk_only_for_those_who_ask(laptop):
    """The gateway's own need for usage is invisible."""
    create = client_of(laptop, "rich").chat.completions.create
    plain = list(create(model="gpt-4o", messages=MESSAGES, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in plain)
    asked = list(create(model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert asked[-1].usage.prompt_tokens > 0


def test_a_client_may_name_only_the_scopes_its_tenant_lists(laptop):
    """A session is allowed; a team in a header is a 403, whatever the key says."""
    create = client_of(laptop, "rich").chat.completions.create
    assert create(model="gpt-4o", messages=MESSAGES, extra_headers={"x-budget-scope-session": "s-42"})
    with pytest.raises(openai.PermissionDeniedError) as raised:
        create(model="gpt-4o", messages=MESSAGES, extra_headers={"x-budget-scope-team": "poor"})
    assert raised.value.code == "scope_not_allowed"


def test_an_unknown_key_is_an_authentication_error(laptop):
    """The SDK raises its own typed exception."""
    with pytest.raises(openai.AuthenticationError) as raised:
        client_of(laptop, "nobody").chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert raised.value.code == "invalid_api_key"


def test_a_degraded_team_is_served_the_cheaper_model_without_its_tool(laptop):
    """From degrade on the answer says what was asked for, what served it, and the disabled tool is gone."""
    create = client_of(laptop, "thrifty").chat.completions.with_raw_response.create
    tools = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]
    fields = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Use web_search."}], "tools": tools}
    first = create(**fields, max_tokens=10, extra_headers=tokens_of(10))
    assert first.parse().choices[0].finish_reason == "tool_calls"

    def degraded():
        answer = create(**fields, max_tokens=100, extra_headers=tokens_of(100))
        return answer if answer.headers["x-budget-state"] == "degraded" else None

    answer = eventually(degraded)
    assert answer.parse().model == "gpt-4o-mini"
    assert answer.parse().choices[0].message.tool_calls is None
    assert answer.headers["x-budget-disabled-tools"] == "web_search"
    assert answer.headers["x-requested-model"] == "gpt-4o"
    assert answer.headers["x-served-model"] == "gpt-4o-mini"


def test_a_spent_budget_is_a_typed_error_that_is_not_retried(laptop):
    """The SDK raises APIStatusError with our code, sends the call once, and the error names budget and reset."""
    client = client_of(laptop, "poor", max_retries=5)

    def call():
        fields = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 200}
        return client.chat.completions.create(**fields, extra_headers=tokens_of(200))

    def call_until_refused():
        for _ in range(60):
            call()

    with pytest.raises(openai.APIStatusError):
        call_until_refused()
    spent = laptop.settled_spend("poor")["spent"]  # and nothing is in flight any more: a retry could not help
    with pytest.raises(openai.APIStatusError) as raised:
        call()
    refused = raised.value
    assert (refused.status_code, refused.code) == (402, "budget_exhausted")
    assert refused.request.headers["x-stainless-retry-count"] == "0"
    assert refused.response.headers["x-should-retry"] == "false"
    budget = refused.response.json()["budget"]
    assert (budget["scope"], budget["limit"]) == ("team:poor", "0.02")
    assert budget["resets_at"].endswith("Z")
    one_call = -(-len(MESSAGES[0]["content"]) // 4) * 2.5e-6 + 200 * 10e-6
    assert 0.02 - 1.2 * one_call < float(spent) <= 0.02


def test_a_budget_held_by_calls_in_flight_is_waited_for(laptop):
    """The SDK obeys Retry-After: while a stream holds what is left its call is told to come back, then it is served.

    Of 0.0015 USD each call holds 100 tokens at 10.00 USD per million, 0.001; the stream then uses 10 of them.
    """
    fields = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 100}
    held = {**tokens_of(10), "x-sim-call-id": "holder", "x-sim-hold-after": "2"}
    with client_of(laptop, "tight").chat.completions.create(**fields, stream=True, extra_headers=held) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as raised:
            client_of(laptop, "tight", max_retries=0).chat.completions.create(**fields)
        assert (raised.value.code, raised.value.response.headers["retry-after"]) == ("budget_reserved", "1")
        with ThreadPoolExecutor(1) as other:
            create = client_of(laptop, "tight", max_retries=30).chat.completions.with_raw_response.create
            patient = other.submit(create, **fields, extra_headers=tokens_of(10))
            try:
                until_held(laptop, "tight", times=2)
            finally:
                httpx.post(f"{laptop.model_url}/sim/release/holder")
            assert all(chunk.choices for chunk in stream)
            assert patient.result(timeout=60).retries_taken > 0


def test_the_models_own_errors_are_the_sdks(laptop):
    """What the model refuses is raised as the class of its status, with the field it named."""
    with pytest.raises(openai.BadRequestError) as raised:
        client_of(laptop, "rich").chat.completions.create(model="gpt-4.1", messages=MESSAGES, temperature=3)
    assert (raised.value.param, raised.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as raised:
        client_of(laptop, "rich").chat.completions.create(model="gpt-4.1", messages=MESSAGES, n=0)
    assert raised.value.param == "n"


def test_bills_match_what_the_model_really_served(laptop):
    """Token for token: the model's own count of what it served is what the ledger billed."""
    client = client_of(laptop, "rich")
    for number in range(5):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, extra_headers=tokens_of(10 + number))
        client.embeddings.create(model="text-embedding-3-small", input=["a" * 400, "b" * 40])
    truth = served_by_model(laptop)
    eventually(lambda: {model: billed_by_model(laptop).get(model) for model in truth} == truth)


def served_by_model(laptop):
    usage = httpx.get(f"{laptop.model_url}/sim/usage").json()
    return {
        model: (used["calls"], used["prompt_tokens"], used["completion_tokens"])
        for model, used in usage.items()
        if used["calls"]
    }


def billed_by_model(laptop):
    billed = {}
    for row in laptop.summary(group_by="model"):
        tokens = row["tokens"]
        prompt = tokens.get("input", 0) + tokens.get("cached_input", 0)
        billed[row["model"]] = (row["requests"], prompt, tokens.get("output", 0))
    return billed
