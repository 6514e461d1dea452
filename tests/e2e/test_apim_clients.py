"""The OpenAI SDKs for Python and Node.js, and curl, unchanged, through the executed policies and back to /spend."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from decimal import Decimal

import httpx
import openai
import pytest

from tests.support.laptop import API_VERSION, CHAT, Laptop, eventually, prompt_and_output, start_laptop
from tests.support.laptop_config import configuration, team_file
from tests.support.node_sdk import run_node

APP, PERSON, GROUP = (str(uuid.UUID(int=number, version=4)) for number in (1, 2, 3))
MESSAGES = [{"role": "user", "content": "What is left of the budget?"}]
TOOL_MESSAGES = [{"role": "user", "content": "Please use web_search."}]
TOOLS = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]
FLAT_TOOLS = [{"type": "function", "name": "web_search", "parameters": {"type": "object"}, "strict": False}]
IMPATIENT = {"timeout": 15, "max_retries": 0}  # of a stream that never begins: shorter than the model holds it
DEGRADES = (
    ", warn: 0.000001, degrade: 0.000002, disable_tools: [web_search], downgrade: [{from: gpt-4o, to: gpt-4o-mini}]"
)
FILES = configuration(
    rich=team_file("rich", "1000.00"),
    streamer=team_file("streamer", "1000.00"),
    entra=team_file("entra", "1000.00", identities=f", apps: [{APP}], users: [{PERSON}], groups: [{GROUP}]"),
    poor=team_file("poor", "0.0005"),
    thrifty=team_file("thrifty", "10.00", more=DEGRADES),
)


@pytest.fixture(scope="module")
def laptop(mono, tmp_path_factory):
    with start_laptop(tmp_path_factory.mktemp("clients"), FILES, APIM_LLM_LOG_DELAY_SECONDS="0.5") as laptop:
        yield laptop


@pytest.fixture
def call():
    """A name under which the model counts the calls of this test."""
    return f"c-{uuid.uuid4().hex[:12]}"


def knobs(call: str, output_tokens: int = 20, **more: str) -> dict[str, str]:
    more = {name.replace("_", "-"): value for name, value in more.items()}
    return {"x-sim-call-id": call, "x-sim-output-tokens": str(output_tokens), **more}


def assert_billed(laptop: Laptop, request_id: str, call: str, *, team: str = "rich", model: str = "gpt-4o") -> None:
    """The call's one row has the tokens that the model counted for it."""
    rows = eventually(lambda: laptop.rows(request_id))
    truth = laptop.served(call)
    assert list(rows) == ["usage"]
    assert (truth["calls"], truth["attempts"]) == (1, 1)
    assert prompt_and_output(rows["usage"]) == (truth["prompt_tokens"], truth["completion_tokens"])
    assert (rows["usage"].measured, rows["usage"].scopes["team"], rows["usage"].model) == (True, team, model)


def assert_trued_up(laptop: Laptop, request_id: str, call: str) -> None:
    """An accrual, its reversal, and a row with the tokens that the model counted."""
    rows = eventually(lambda: laptop.rows(request_id) if "true_up" in laptop.rows(request_id) else None)
    truth = laptop.served(call)
    assert set(rows) == {"accrual", "reversal", "true_up"}
    assert (rows["accrual"].measured, rows["true_up"].measured) == (False, True)
    assert rows["accrual"].charge_nano_usd == -rows["reversal"].charge_nano_usd > 0
    assert prompt_and_output(rows["true_up"]) == (truth["prompt_tokens"], truth["completion_tokens"])
    assert (truth["calls"], truth["attempts"]) == (1, 1)


def test_the_openai_client_is_served_and_billed(laptop, call):
    """The answer is the model's, the budget's headers are on it, and the ledger has what the model counted."""
    answer = laptop.client("rich").chat.completions.with_raw_response.create(
        model="gpt-4o", messages=MESSAGES, extra_headers=knobs(call, 30)
    )
    assert (answer.parse().model, answer.parse().usage.completion_tokens) == ("gpt-4o", 30)
    assert (answer.headers["x-budget-state"], answer.headers["x-budget-scope"]) == ("active", "team:rich")
    assert 0 < float(answer.headers["x-budget-remaining"]) <= 1000
    assert answer.headers["x-budget-resets-at"].endswith("Z")
    assert "x-served-model" not in answer.headers
    assert_billed(laptop, answer.headers["x-request-id"], call)


def test_the_model_sees_the_gateways_identity_and_no_credential_of_the_caller(laptop, call):
    """A managed identity's token goes to the backend; the subscription key and the budget's matters do not."""
    laptop.client("rich").chat.completions.create(
        model="gpt-4o", messages=MESSAGES, extra_headers=knobs(call) | {"x-budget-scope-session": "s-1"}
    )
    (received,) = laptop.received(call=call)
    assert received["authorization"] == "Bearer local-managed-identity"
    kept_back = [name for name in received["header_names"] if name in ("api-key", "ocp-apim-subscription-key")]
    assert kept_back == []
    assert "local-rich" not in json.dumps(received)


async def test_the_asynchronous_client_is_served_and_streams(laptop, call):
    """Whole answers and streams, side by side on one event loop."""
    async with laptop.async_client("rich") as client:
        whole = await client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=MESSAGES, extra_headers=knobs(call)
        )
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True, extra_headers=knobs(f"{call}-stream")
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert len(whole.parse().choices[0].message.content.split()) == len(text.split()) == 20
    assert laptop.served(f"{call}-stream")["completion_tokens"] == 20


def test_the_azure_client_is_served_by_deployment(laptop, call):
    """AzureOpenAI names the deployment in the path; the model's row is its model's."""
    create = laptop.azure_client("rich").chat.completions.with_raw_response.create
    answer = create(model="gpt-4o-weu", messages=MESSAGES, extra_headers=knobs(call))
    assert answer.parse().model == "gpt-4o"
    (received,) = laptop.received(call=call)
    assert received["path"] == "/openai/deployments/gpt-4o-weu/chat/completions"
    assert received["query"] == f"api-version={API_VERSION}"
    assert_billed(laptop, answer.headers["x-request-id"], call)


def test_the_azure_client_streams(laptop, call):
    """The same path with stream: true."""
    create = laptop.azure_client("rich").chat.completions.with_raw_response.create
    answer = create(model="gpt-4o-weu", messages=MESSAGES, stream=True, extra_headers=knobs(call))
    words = "".join(chunk.choices[0].delta.content or "" for chunk in answer.parse() if chunk.choices).split()
    assert len(words) == 20
    assert_trued_up(laptop, answer.headers["x-request-id"], call)


def test_tools_are_called_through_the_gateway(laptop, call):
    """Tool calls come back whole and in a stream."""
    create = laptop.client("rich").chat.completions.create
    fields = {"model": "gpt-4o", "messages": TOOL_MESSAGES, "tools": TOOLS, "extra_headers": knobs(call)}
    (tool_call,) = create(**fields).choices[0].message.tool_calls
    assert (tool_call.function.name, len(json.loads(tool_call.function.arguments)["query"].split())) == (
        "web_search",
        20,
    )
    deltas = [chunk.choices[0].delta for chunk in create(**fields, stream=True) if chunk.choices]
    called = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    assert called[0].function.arguments == tool_call.function.arguments


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_the_responses_api_is_served_and_billed(laptop, call, kind):
    """Usage in Responses' own names reaches the ledger, a function call arrives as one; on either client's path."""
    client = laptop.client("rich") if kind == "openai" else laptop.azure_client("rich")
    create = client.responses.with_raw_response.create
    answer = create(model="gpt-4o", input="How much?", instructions="Be brief.", extra_headers=knobs(call, 15))
    assert len(answer.parse().output_text.split()) == 15
    assert_billed(laptop, answer.headers["x-request-id"], call)
    fields = {"model": "gpt-4o", "input": "Use web_search.", "tools": FLAT_TOOLS}
    item = create(**fields, extra_headers=knobs(f"{call}-tool")).parse().output[0]
    assert (item.type, item.name) == ("function_call", "web_search")


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_the_models_are_listed(laptop, kind):
    """On the path of either client, without a budget being asked."""
    client = laptop.client("rich") if kind == "openai" else laptop.azure_client("rich")
    assert "gpt-4o" in {model.id for model in client.models.list()}


def test_a_response_streams_typed_events(laptop, call):
    """Every event arrives, and the request went to the model as it was: no stream_options, which it would refuse."""
    create = laptop.client("rich").responses.with_raw_response.create
    answer = create(model="gpt-4o", input="How much?", stream=True, extra_headers=knobs(call))
    events = list(answer.parse())
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert events[-1].response.usage.output_tokens == 20
    assert "stream_options" not in laptop.received(call=call)[0]["body"]
    assert_trued_up(laptop, answer.headers["x-request-id"], call)


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_embeddings_are_served_and_billed(laptop, call, kind):
    """Input tokens alone, on v1 and deployment paths."""
    client = laptop.client("rich") if kind == "openai" else laptop.azure_client("rich")
    answer = client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=["a" * 40, "b" * 8], extra_headers={"x-sim-call-id": call}
    )
    assert len(answer.parse().data) == 2
    assert answer.parse().usage.prompt_tokens == 12
    assert_billed(laptop, answer.headers["x-request-id"], call, model="text-embedding-3-small")


@pytest.mark.parametrize(
    "claims",
    [{"azp": APP}, {"oid": PERSON}, {"oid": str(uuid.uuid4()), "groups": [GROUP]}],
    ids=["app", "user", "group"],
)
def test_an_entra_token_is_a_caller(laptop, call, claims):
    """A Bearer token alone, with the plain client and with Azure's; the claims say whose spend it is."""
    token = laptop.token(**claims)
    plain = openai.OpenAI(base_url=f"{laptop.url}/openai/v1", api_key=token)
    azure = openai.AzureOpenAI(
        azure_endpoint=laptop.url, api_version=API_VERSION, azure_ad_token_provider=lambda: token
    )
    for number, (client, model) in enumerate([(plain, "gpt-4o"), (azure, "gpt-4o-weu")]):
        name = f"{call}-{number}"
        answer = client.chat.completions.with_raw_response.create(
            model=model, messages=MESSAGES, extra_headers=knobs(name)
        )
        assert answer.headers["x-budget-scope"] == "team:entra"
        assert_billed(laptop, answer.headers["x-request-id"], name, team="entra")
        assert token not in json.dumps(laptop.received(call=name))


def test_a_caller_without_credentials_is_refused_as_the_sdk_knows_it(laptop):
    """AuthenticationError with our code, whatever is wrong."""
    for client in (
        laptop.client("nobody", max_retries=0),
        openai.OpenAI(base_url=f"{laptop.url}/openai/v1", api_key="local-rich"),  # a key is no Bearer token
        openai.OpenAI(base_url=f"{laptop.url}/openai/v1", api_key=laptop.token(flaw="expired", azp=APP)),
    ):
        with pytest.raises(openai.AuthenticationError) as raised:
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert raised.value.code == "invalid_api_key"


def degrade(laptop: Laptop) -> None:
    """Spend a little as the thrifty team, so that its next call is served by the cheaper model."""
    eventually(
        lambda: (
            laptop.post("thrifty", CHAT, {"model": "gpt-4o", "messages": MESSAGES}).headers["x-budget-state"]
            == "degraded"
        )
    )


def test_a_degraded_team_is_served_the_cheaper_model_without_its_tool(laptop, call):
    """The SDK sees the other model, what was asked for, and which tool is gone, on both kinds of path."""
    degrade(laptop)
    fields = {"messages": TOOL_MESSAGES, "tools": TOOLS}
    paths = ((laptop.client("thrifty"), "gpt-4o"), (laptop.azure_client("thrifty"), "gpt-4o-weu"))
    for number, (client, model) in enumerate(paths):
        name = f"{call}-{number}"
        answer = client.chat.completions.with_raw_response.create(model=model, **fields, extra_headers=knobs(name))
        assert answer.parse().model == "gpt-4o-mini"
        assert answer.parse().choices[0].message.tool_calls is None
        assert (answer.headers["x-requested-model"], answer.headers["x-served-model"]) == ("gpt-4o", "gpt-4o-mini")
        assert answer.headers["x-budget-disabled-tools"] == "web_search"
        assert not json.loads(laptop.received(call=name)[0]["body"]).get("tools")
        assert_billed(laptop, answer.headers["x-request-id"], name, team="thrifty", model="gpt-4o-mini")
        assert laptop.rows(answer)["usage"].decision == "downgrade"


def test_the_cheapest_model_answers_auto(laptop, call):
    """The check resolves the name, the policies send the call where it says; what answered is told and billed."""
    create = laptop.client("rich").chat.completions.with_raw_response.create
    answer = create(model="auto", messages=MESSAGES, extra_headers=knobs(call))
    assert answer.parse().model == answer.headers["x-served-model"] == "gpt-4o-mini"
    assert answer.headers["x-requested-model"] == "auto"
    assert_billed(laptop, answer.headers["x-request-id"], call, model="gpt-4o-mini")


def test_a_downgraded_stream_comes_from_the_cheaper_model(laptop, call):
    """Every chunk of it, and of a streamed response."""
    degrade(laptop)
    client = laptop.client("thrifty")
    chunks = list(
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, extra_headers=knobs(call))
    )
    assert {chunk.model for chunk in chunks} == {"gpt-4o-mini"}
    events = list(client.responses.create(model="gpt-4o", input="Hi", stream=True, extra_headers=knobs(f"{call}-r")))
    assert events[-1].response.model == "gpt-4o-mini"


def spent_budget(laptop: Laptop) -> None:
    """Spend most of what the poor team has, so that its next call does not fit."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 20}
    laptop.post("poor", CHAT, body, x_sim_output_tokens="20")
    laptop.settled_spend("poor")


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_a_spent_budget_is_a_typed_error_that_is_not_retried(laptop, call, kind):
    """Our code and message in the SDK's own exception; one request leaves the client, none reaches the model."""
    spent_budget(laptop)
    sent = []
    http = httpx.Client(event_hooks={"request": [sent.append]})
    options = {"max_retries": 5, "http_client": http}
    client = laptop.client("poor", **options) if kind == "openai" else laptop.azure_client("poor", **options)
    for stream in (False, True):
        sent.clear()
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, max_tokens=2000, stream=stream, extra_headers=knobs(call)
            )
        refused = raised.value
        assert (refused.status_code, refused.code, refused.type) == (402, "budget_exhausted", "budget")
        assert "team:poor" in refused.message
        assert refused.response.headers["x-should-retry"] == "false"
        budget = refused.response.json()["budget"]
        assert (budget["scope"], budget["limit"]) == ("team:poor", "0.0005")
        assert budget["resets_at"].endswith("Z")
        assert len(sent) == 1
    assert laptop.served(call)["attempts"] == 0


def test_a_refused_call_is_on_the_live_list_and_counts_as_refused(laptop):
    """Seconds later /decisions names it with its estimate; a flush later the ledger says what it spared."""
    spent_budget(laptop)

    def refused():
        told = httpx.get(f"{laptop.functions_url}/decisions", params={"limit": 500}).raise_for_status().json()
        found = (each for each in told["decisions"] if each["scopes"].get("team") == "poor")
        return [each for each in found if each["reason"] == "budget_exhausted"]

    def sums():
        params = {"team": "poor", "decision": "refuse", "group_by": "requested_model"}
        told = httpx.get(f"{laptop.functions_url}/usage/summary", params=params).raise_for_status().json()
        return [row for row in told["rows"] if row["refused"]]

    count = len(refused())
    with pytest.raises(openai.APIStatusError):
        laptop.client("poor").chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=2000)
    newest = eventually(lambda: found if len(found := refused()) > count else None)[0]
    assert (newest["decision"], newest["requested_model"], newest["budget"]) == ("refuse", "gpt-4o", "team:poor")
    assert Decimal(newest["estimate"]) > 0
    (row,) = eventually(sums, 40)
    assert (row["requested_model"], row["requests"], row["cost"]) == ("gpt-4o", 0, "0.00")
    assert Decimal(row["saved"]) >= Decimal(newest["estimate"])


def test_the_first_token_arrives_before_the_last_is_made(laptop, call):
    """The model holds the stream until the client confirms what it has: by order, whatever the time it takes.

    Then the call is in /spend, and after the LLM log in /usage/summary as measured, with the model's own count.
    """
    before = float(laptop.spend("streamer")["spent"])
    with laptop.client("streamer", **IMPATIENT).chat.completions.create(
        model="gpt-4o",
        messages=MESSAGES,
        stream=True,
        extra_headers=knobs(call, 40, x_sim_hold_after="3"),
    ) as stream:
        chunks = iter(stream)
        first = [next(chunks).choices[0].delta.content for _ in range(3)]
        assert "".join(first)
        assert laptop.served(call)["calls"] == 0
        laptop.release(call)
        rest = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(("".join(first) + "".join(rest)).split()) == 40
    assert float(laptop.settled_spend("streamer")["spent"]) > before
    truth = laptop.served(call)

    def measured():
        rows = laptop.summary(group_by="team", team="streamer")
        return rows if rows and rows[0]["measured_share"] == "1.0000" else None

    (row,) = eventually(measured)
    assert (row["requests"], row["tokens"]) == (
        1,
        {"input": truth["prompt_tokens"], "output": truth["completion_tokens"]},
    )
    assert laptop.settled_spend("streamer")["spent"] == row["cost"]


def test_a_streamed_response_is_not_held_back_either(laptop, call):
    """The Responses API, whose events are larger."""
    with laptop.client("rich", **IMPATIENT).responses.create(
        model="gpt-4o", input="Hi", stream=True, extra_headers=knobs(call, 30, x_sim_hold_after="6")
    ) as stream:
        events = iter(stream)
        assert [next(events).type for _ in range(6)][-1] == "response.output_text.delta"
        assert laptop.served(call)["calls"] == 0
        laptop.release(call)
        assert list(events)[-1].type == "response.completed"


@pytest.mark.parametrize(("kind", "model"), [("openai", "gpt-4o"), ("azure", "gpt-4o-weu")])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_the_node_sdk_is_served(laptop, call, kind, model, streamed):
    """Both client classes of the SDK for Node.js, whole and streamed, billed as the model counted."""
    body = {"model": model, "messages": MESSAGES, "stream": streamed}
    *chunks, end = run_node(laptop, kind, "rich", "chat", body, knobs(call))
    assert (end["status"], end["sent"]) == (200, 1)
    assert end["headers"]["x-budget-scope"] == "team:rich"
    if streamed:
        choices = [choice for line in chunks for choice in line["chunk"]["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        assert_trued_up(laptop, end["headers"]["x-request-id"], call)
    else:
        text = end["answer"]["choices"][0]["message"]["content"]
        assert_billed(laptop, end["headers"]["x-request-id"], call)
    assert len(text.split()) == 20


def test_the_node_sdk_reads_responses_and_embeddings(laptop, call):
    """The other two APIs."""
    body = {"model": "gpt-4o", "input": "How much?", "stream": True}
    *events, end = run_node(laptop, "openai", "rich", "responses", body, knobs(call))
    assert events[-1]["chunk"]["type"] == "response.completed"
    assert end["status"] == 200
    body = {"model": "text-embedding-3-small", "input": "a" * 40}
    (end,) = run_node(laptop, "azure", "rich", "embeddings", body, knobs(f"{call}-e"))
    assert end["answer"]["usage"]["prompt_tokens"] == 10


def test_the_node_sdk_sees_a_downgrade(laptop, call):
    """The other model and the headers."""
    degrade(laptop)
    body = {"model": "gpt-4o", "messages": MESSAGES}
    (end,) = run_node(laptop, "openai", "thrifty", "chat", body, knobs(call))
    assert end["answer"]["model"] == end["headers"]["x-served-model"] == "gpt-4o-mini"
    assert end["headers"]["x-requested-model"] == "gpt-4o"


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_the_node_sdk_raises_a_typed_error_and_does_not_retry(laptop, call, kind):
    """APIError with our status, code and message; sent once, and never at the model."""
    spent_budget(laptop)
    body = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 2000}
    (end,) = run_node(laptop, kind, "poor", "chat", body, knobs(call))
    error = end["error"]
    assert (error["name"], error["status"], error["code"]) == ("APIError", 402, "budget_exhausted")
    assert "team:poor" in error["message"]
    assert end["sent"] == 1
    assert laptop.served(call)["attempts"] == 0


def curl(*arguments: str) -> str:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [program, "-sS", "--noproxy", "*", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=True).stdout


def test_curl_is_served_and_refused(laptop, call):
    """The header that Azure's documentation shows, and the status and body a person sees when the money is spent."""
    body = json.dumps({"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 2000})
    arguments = ("-i", f"{laptop.url}{CHAT}", "-H", "content-type: application/json", "-d", body)
    served = curl(*arguments, "-H", "api-key: local-rich", "-H", f"x-sim-call-id: {call}")
    head, _, answer = served.partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert json.loads(answer)["usage"]["completion_tokens"] == laptop.served(call)["completion_tokens"] > 0
    spent_budget(laptop)
    head, _, answer = curl(*arguments, "-H", "api-key: local-poor").partition("\n\n")
    assert head.startswith("HTTP/1.1 402")
    assert json.loads(answer)["error"]["code"] == "budget_exhausted"
