"""The OpenAI SDK, unchanged, against a whole running copy: both client classes, streams, refusals, exact bills."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pydantic
import pytest

from local.options import BUILT_IN
from tests.support.laptop import start_laptop

MESSAGES = [{"role": "user", "content": "What is left of the budget?"}]
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
    "teams/rich.yaml": """
team: rich
identities: {subscriptions: [rich-prod]}
budgets: [{period: month, limit: 1000.00}]
""",
    "teams/leaver.yaml": """
team: leaver
identities: {subscriptions: [leaver-prod]}
budgets: [{period: month, limit: 1000.00}]
""",
    "teams/poor.yaml": """
team: poor
identities: {subscriptions: [poor-prod]}
budgets: [{period: month, limit: 0.02}]
""",
    "teams/tight.yaml": """
team: tight
identities: {subscriptions: [tight-prod]}
budgets: [{period: month, limit: 0.0015}]
""",
    "teams/thrifty.yaml": """
team: thrifty
identities: {subscriptions: [thrifty-prod]}
budgets:
  - {period: month, limit: 1.00, degrade: 0.0001, warn: 0.00005, disable_tools: [web_search],
     downgrade: [{from: gpt-4o, to: gpt-4o-mini}]}
""",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("laptop"), FILES, gateway=BUILT_IN) as laptop:
        yield laptop.stack


def client_of(stack, team, **options):
    # The way an application passes a subscription key that also works through API Management.
    base_url = f"{stack.options.gateway_url}/v1"
    return openai.OpenAI(base_url=base_url, api_key="unused", default_headers={"api-key": f"local-{team}"}, **options)


def azure_client_of(stack, team):
    return openai.AzureOpenAI(
        azure_endpoint=stack.options.gateway_url, api_key=f"local-{team}", api_version="2024-10-21"
    )


def until_refused(stack, team, times):
    """Wait until calls of the team were told so often that its budget is held."""
    deadline = time.monotonic() + 20
    while True:
        told = httpx.get(f"{stack.options.functions_url}/decisions", params={"limit": 500}).json()["decisions"]
        own = [each for each in told if each["scopes"].get("team") == team and each["reason"] == "budget_reserved"]
        if len(own) >= times:
            return
        assert time.monotonic() < deadline, own
        time.sleep(0.1)


def tokens_of(count):
    return {"x-sim-output-tokens": str(count)}


def test_the_openai_client_is_served(stack):
    """A call answers as the model would, with the budget's headers on it."""
    answer = client_of(stack, "rich").chat.completions.with_raw_response.create(
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


def test_a_bearer_key_works_too(stack):
    """The plain OpenAI class sends the key as a Bearer token."""
    client = openai.OpenAI(base_url=f"{stack.options.gateway_url}/v1", api_key="local-rich")
    assert client.chat.completions.create(model="gpt-4o", messages=MESSAGES).choices


def test_the_azure_client_is_served_by_deployment(stack):
    """AzureOpenAI calls name a deployment; the call is the deployment's model's."""
    client = azure_client_of(stack, "rich")
    assert client.chat.completions.create(model="gpt-4o-weu", messages=MESSAGES).model == "gpt-4o"
    stream = client.chat.completions.create(model="gpt-4o-weu", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_every_api_of_either_client_is_served(stack, kind):
    """Responses whole and streamed, embeddings, the list of models; on the paths that each class calls."""
    client = client_of(stack, "rich") if kind == "openai" else azure_client_of(stack, "rich")
    whole = client.responses.create(model="gpt-4o", input="How much?", instructions="Be brief.")
    assert len(whole.output_text.split()) == whole.usage.output_tokens
    events = list(client.responses.create(model="gpt-4o", input="How much?", stream=True))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert events[-1].response.usage.input_tokens > 0
    embedded = client.embeddings.create(model="text-embedding-3-small", input=["a" * 40, "b" * 8])
    assert (len(embedded.data), embedded.usage.prompt_tokens) == (2, 40 // 4 + 8 // 4)
    assert {"gpt-4o", "text-embedding-3-small"} <= {model.id for model in client.models.list()}


async def test_the_asynchronous_clients_are_served(stack):
    """Many calls of one connection pool at once, whole and streamed."""
    v1 = {"base_url": f"{stack.options.gateway_url}/v1", "api_key": "local-rich"}
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


def test_the_parse_helpers_work(stack):
    """Structured outputs and strict tools come back as the classes that were asked for, on both APIs."""
    client = client_of(stack, "rich")
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


def test_streams_have_a_usage_chunk_only_for_those_who_ask(stack):
    """The gateway's own need for usage is invisible."""
    create = client_of(stack, "rich").chat.completions.create
    plain = list(create(model="gpt-4o", messages=MESSAGES, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in plain)
    asked = list(create(model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert asked[-1].usage.prompt_tokens > 0


def test_a_client_may_name_only_the_scopes_its_tenant_lists(stack):
    """A session is allowed; a team in a header is a 403, whatever the key says."""
    create = client_of(stack, "rich").chat.completions.create
    assert create(model="gpt-4o", messages=MESSAGES, extra_headers={"x-budget-scope-session": "s-42"})
    with pytest.raises(openai.PermissionDeniedError) as raised:
        create(model="gpt-4o", messages=MESSAGES, extra_headers={"x-budget-scope-team": "poor"})
    assert raised.value.code == "scope_not_allowed"


def test_an_unknown_key_is_an_authentication_error(stack):
    """The SDK raises its own typed exception."""
    with pytest.raises(openai.AuthenticationError) as raised:
        client_of(stack, "nobody").chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert raised.value.code == "invalid_api_key"


def test_a_degraded_team_is_served_the_cheaper_model_without_its_tool(stack):
    """From degrade on the answer says what was asked for, what served it, and the disabled tool is gone."""
    create = client_of(stack, "thrifty").chat.completions.with_raw_response.create
    tools = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]
    fields = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Use web_search."}], "tools": tools}
    first = create(**fields, max_tokens=10, extra_headers=tokens_of(10))
    assert first.parse().choices[0].finish_reason == "tool_calls"
    deadline = time.monotonic() + 20
    while (answer := create(**fields, max_tokens=100, extra_headers=tokens_of(100))).headers[
        "x-budget-state"
    ] != "degraded":
        assert time.monotonic() < deadline
    assert answer.parse().model == "gpt-4o-mini"
    assert answer.parse().choices[0].message.tool_calls is None
    assert answer.headers["x-budget-disabled-tools"] == "web_search"
    assert answer.headers["x-requested-model"] == "gpt-4o"
    assert answer.headers["x-served-model"] == "gpt-4o-mini"


def test_a_spent_budget_is_a_typed_error_that_is_not_retried(stack):
    """The SDK raises APIStatusError with our code, sends the call once, and the error names budget and reset."""
    client = client_of(stack, "poor", max_retries=5)

    def call():
        fields = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 200}
        return client.chat.completions.create(**fields, extra_headers=tokens_of(200))

    def call_until_refused():
        for _ in range(60):
            call()

    with pytest.raises(openai.APIStatusError):
        call_until_refused()
    spent = spend_of(stack, "poor")["spent"]  # and nothing is in flight any more: a retry could not help
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


def test_a_budget_held_by_calls_in_flight_is_waited_for(stack):
    """The SDK obeys Retry-After: while a stream holds what is left its call is told to come back, then it is served.

    Of 0.0015 USD each call holds 100 tokens at 10.00 USD per million, 0.001; the stream then uses 10 of them.
    """
    fields = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 100}
    held = {**tokens_of(10), "x-sim-call-id": "holder", "x-sim-hold-after": "2"}
    with client_of(stack, "tight").chat.completions.create(**fields, stream=True, extra_headers=held) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as raised:
            client_of(stack, "tight", max_retries=0).chat.completions.create(**fields)
        assert (raised.value.code, raised.value.response.headers["retry-after"]) == ("budget_reserved", "1")
        with ThreadPoolExecutor(1) as other:
            create = client_of(stack, "tight", max_retries=30).chat.completions.with_raw_response.create
            patient = other.submit(create, **fields, extra_headers=tokens_of(10))
            try:
                until_refused(stack, "tight", times=2)
            finally:
                httpx.post(f"{stack.model_url}/sim/release/holder")
            assert all(chunk.choices for chunk in stream)
            assert patient.result(timeout=60).retries_taken > 0


def test_the_models_own_errors_are_the_sdks(stack):
    """What the model refuses is raised as the class of its status, with the field it named."""
    with pytest.raises(openai.BadRequestError) as raised:
        client_of(stack, "rich").chat.completions.create(model="gpt-4.1", messages=MESSAGES, temperature=3)
    assert (raised.value.param, raised.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as raised:
        client_of(stack, "rich").chat.completions.create(model="gpt-4.1", messages=MESSAGES, n=0)
    assert raised.value.param == "n"


def test_a_stream_that_was_broken_off_is_billed_by_estimate(stack):
    """A client that leaves in the middle is charged an estimate, marked as one; ledger and counter agree on it."""
    with client_of(stack, "leaver").chat.completions.create(
        model="gpt-4.1",
        messages=MESSAGES,
        stream=True,
        max_tokens=60,
        extra_headers={**tokens_of(60), "x-sim-chunk-ms": "50"},
    ) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 15
    while not (rows := summary(stack, group_by="team,model", team="leaver")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (rows[0]["model"], rows[0]["requests"], rows[0]["estimated_share"]) == ("gpt-4.1", 1, "1.0000")
    assert float(rows[0]["cost"]) > 0
    assert spend_of(stack, "leaver")["spent"] == rows[0]["cost"]


def test_bills_match_what_the_model_really_served(stack):
    """Token for token: the model's own count of what it served is what the ledger billed."""
    client = client_of(stack, "rich")
    for number in range(5):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, extra_headers=tokens_of(10 + number))
        client.embeddings.create(model="text-embedding-3-small", input=["a" * 400, "b" * 40])
    truth = served_by_model(stack)
    deadline = time.monotonic() + 15
    while (billed := {m: b for m, b in billed_by_model(stack).items() if m in truth}) != truth:
        assert time.monotonic() < deadline, (billed, truth)
        time.sleep(0.2)


def served_by_model(stack):
    usage = httpx.get(f"{stack.model_url}/sim/usage").json()
    return {
        model: (used["calls"], used["prompt_tokens"], used["completion_tokens"])
        for model, used in usage.items()
        if used["calls"]
    }


def billed_by_model(stack):
    billed = {}
    for row in summary(stack, group_by="model"):
        tokens = row["tokens"]
        prompt = tokens.get("input", 0) + tokens.get("cached_input", 0)
        billed[row["model"]] = (row["requests"], prompt, tokens.get("output", 0))
    return billed


def summary(stack, **params):
    url = f"{stack.options.functions_url}/usage/summary"
    return httpx.get(url, params={"tenant": "default", **params}, timeout=10).json()["rows"]


def spend_of(stack, team):
    """The team's counter once nothing is in flight."""
    deadline = time.monotonic() + 15
    while True:
        answer = httpx.get(f"{stack.options.functions_url}/spend", params={"tenant": "default", "scope_type": "team"})
        found = next(b for b in answer.json()["budgets"] if b["scope"] == f"team:{team}")
        if float(found["reserved"]) == 0:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
