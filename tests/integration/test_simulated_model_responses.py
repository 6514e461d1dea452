"""The simulated model's Responses API, read by the real OpenAI client into its own types."""

import httpx
import openai
import pytest
from openai.types.responses import Response

from local.model.answers import count_tokens

PROMPT = "How much of the budget is left?"
TOOLS = [{"type": "function", "name": "web_search", "parameters": {"type": "object"}, "strict": False}]


@pytest.fixture(scope="module")
def client(model_url):
    # Strict: an answer that misses a field of OpenAI's schema is an error here, not a None found later.
    base_url = f"{model_url}/openai/v1"
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, _strict_response_validation=True) as client:
        yield client


def ask(client, output_tokens=40, headers=None, **fields):
    knobs = {"x-sim-output-tokens": str(output_tokens)}
    fields = {"model": "gpt-4o", "input": PROMPT, **fields}
    return client.responses.create(extra_headers={**knobs, **(headers or {})}, **fields)


def test_an_answer_is_a_response_with_usage_in_its_own_names(client):
    """The SDK parses it strictly; tokens follow from the request, instructions and tools counted as input."""
    answer = ask(client, instructions="Be brief.", tools=TOOLS)
    assert answer.status == "completed"
    assert len(answer.output_text.split()) == answer.usage.output_tokens == 40
    assert answer.usage.input_tokens > count_tokens(f"Be brief.\n{PROMPT}")
    assert answer.usage.total_tokens == answer.usage.input_tokens + 40
    assert answer.usage.input_tokens_details.cached_tokens == 0
    assert answer.usage.output_tokens_details.reasoning_tokens == 0


def test_a_list_of_input_items_counts_what_its_texts_do(client):
    """Messages, parts of text and answers of tools are all prompt."""
    items = [
        {"role": "user", "content": "abcd"},
        {"role": "user", "content": [{"type": "input_text", "text": "efgh"}]},
        {"type": "function_call", "call_id": "c", "name": "web_search", "arguments": "ijkl"},
        {"type": "function_call_output", "call_id": "c", "output": "mnop"},
    ]
    assert ask(client, input=items).usage.input_tokens == count_tokens("\nabcd\nefgh\nijkl\nmnop")


def test_an_answer_cut_short_says_why(client):
    """max_output_tokens ends it as incomplete, stream or not."""
    cut = ask(client, 300, max_output_tokens=100)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.usage.output_tokens == 100
    last = list(ask(client, 300, max_output_tokens=100, stream=True))[-1]
    assert (last.type, last.response.usage.output_tokens) == ("response.incomplete", 100)


def test_reasoning_is_inside_the_output(client):
    """A reasoning model's answer has its reasoning item and counts it once."""
    answer = ask(client, model="o4-mini")
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert (answer.usage.output_tokens, answer.usage.output_tokens_details.reasoning_tokens) == (40, 20)
    assert len(answer.output_text.split()) == 20


def test_a_function_is_called_when_the_user_names_it(client):
    """The call comes as an item of its own, stream or not, and never against the caller's wish."""
    call = ask(client, input="Use web_search.", tools=TOOLS).output[0]
    assert (call.type, call.name) == ("function_call", "web_search")
    events = list(ask(client, input="Use web_search.", tools=TOOLS, stream=True))
    done = next(event for event in events if event.type == "response.function_call_arguments.done")
    assert done.arguments == call.arguments
    assert events[-1].response.output[0].arguments == call.arguments
    assert ask(client, input="Use web_search.", tools=TOOLS, tool_choice="none").output[0].type == "message"


def test_a_stream_is_typed_events_that_end_with_the_whole_response(client):
    """Numbered without a gap, deltas add up to the text, and the last event holds the usage."""
    events = list(ask(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text == ask(client).output_text
    assert events[-1].response.usage.output_tokens == 40
    assert events[0].response.usage is None


def test_the_client_can_gather_a_stream_itself(client):
    """The SDK's own stream helper, which follows every event, ends with the same response."""
    with client.responses.stream(model="gpt-4o", input=PROMPT, extra_headers={"x-sim-output-tokens": "12"}) as stream:
        final = stream.get_final_response()
    assert isinstance(final, Response)
    assert final.output_text == ask(client, 12).output_text


def test_a_stream_without_usage_can_be_asked_for(client):
    """x-sim-no-usage-chunk leaves the usage out, as a provider may."""
    events = list(ask(client, headers={"x-sim-no-usage-chunk": "1"}, stream=True))
    assert (events[-1].type, events[-1].response.usage) == ("response.completed", None)


def test_there_are_no_responses_by_deployment(model_url):
    """Azure OpenAI serves this API on v1 paths alone."""
    answer = httpx.post(f"{model_url}/openai/deployments/gpt-4o-weu/responses", json={"input": PROMPT})
    assert answer.status_code == 404


def test_an_empty_input_is_an_openai_error(model_url):
    """The field is named."""
    answer = httpx.post(f"{model_url}/v1/responses", json={"model": "gpt-4o"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
