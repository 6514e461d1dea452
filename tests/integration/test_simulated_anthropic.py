"""The simulated Anthropic endpoint, called by Anthropic's own SDK: what it answers, streams, caches and refuses."""

import anthropic
import pytest

from local.model.answers import count_tokens

HELLO = [{"role": "user", "content": "How much of the budget is left?"}]
TOOLS = [{"name": "web_search", "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}}}]
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "web_search", "input": {}}]}
HOUR = {"type": "ephemeral", "ttl": "1h"}


@pytest.fixture(scope="module")
def client(model_url):
    with anthropic.Anthropic(base_url=f"{model_url}/anthropic", api_key="none", max_retries=0) as client:
        yield client


def options(output_tokens=40, messages=HELLO, **fields):
    headers = {"x-sim-output-tokens": str(output_tokens), **fields.pop("headers", {})}
    return {"model": "claude-sonnet-5", "max_tokens": 500, "messages": messages, "extra_headers": headers, **fields}


def test_an_answer_is_a_message_with_anthropics_counts(client):
    """Input and output follow from the request, nothing of it cached."""
    said = client.messages.create(**options())
    assert (said.type, said.role, said.stop_reason) == ("message", "assistant", "end_turn")
    assert said.usage.input_tokens == count_tokens(HELLO[0]["content"])
    assert said.usage.output_tokens == len(said.content[0].text.split()) == 40
    assert (said.usage.cache_creation_input_tokens, said.usage.cache_read_input_tokens) == (0, 0)


def test_a_stream_adds_up_to_the_same_message(client):
    """The SDK accumulates the events to what the whole answer would have been."""
    whole = client.messages.create(**options(messages=[{"role": "user", "content": "call web_search"}], tools=TOOLS))
    with client.messages.stream(
        **options(messages=[{"role": "user", "content": "call web_search"}], tools=TOOLS)
    ) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].to_dict() | {"id": ""} == whole.content[0].to_dict() | {"id": ""}
    assert (streamed.stop_reason, streamed.usage) == ("tool_use", whole.usage)


def test_thinking_is_a_signed_block_inside_the_output(client):
    """Half of the words are thought; the output counts them once."""
    with client.messages.stream(**options(thinking={"type": "adaptive"})) as stream:
        said = stream.get_final_message()
    assert [block.type for block in said.content] == ["thinking", "text"]
    assert said.content[0].signature
    assert (said.usage.output_tokens, said.usage.output_tokens_details.thinking_tokens) == (40, 20)


def test_marked_prefixes_are_written_once_and_read_again(client):
    """What stands before a mark is written the first time and read the second; what follows it is neither."""
    rules = "Rules of the house. " * 300
    system = [{"type": "text", "text": rules, "cache_control": HOUR}]
    first = client.messages.create(**options(system=system)).usage
    again = client.messages.create(**options(system=system, messages=[{"role": "user", "content": "And?"}])).usage
    kept = count_tokens(rules)
    assert (first.cache_creation.ephemeral_1h_input_tokens, first.cache_read_input_tokens) == (kept, 0)
    assert (again.cache_creation_input_tokens, again.cache_read_input_tokens) == (0, kept)
    assert again.input_tokens == count_tokens(f"{rules}\nAnd?") - kept


def test_a_longer_prefix_reads_the_shorter_one_and_writes_the_rest(client):
    """A conversation that grows behind its marks pays once for each part."""
    rules, document = "Rules of the guild. " * 300, "A long document. " * 300
    system = [{"type": "text", "text": rules, "cache_control": HOUR}]
    client.messages.create(**options(system=system))
    more = [*system, {"type": "text", "text": document, "cache_control": {"type": "ephemeral"}}]
    usage = client.messages.create(**options(system=more)).usage
    assert usage.cache_read_input_tokens == count_tokens(rules)
    assert usage.cache_creation.ephemeral_5m_input_tokens == count_tokens(f"{rules}\n{document}") - count_tokens(rules)
    assert usage.cache_creation.ephemeral_1h_input_tokens == 0


@pytest.mark.parametrize(
    ("status", "raised", "kind"),
    [
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
        (500, anthropic.InternalServerError, "api_error"),
    ],
)
def test_asked_for_errors_are_anthropics_own(client, status, raised, kind):
    """The SDK raises what it would for the real service."""
    with pytest.raises(raised) as error:
        client.messages.create(**options(headers={"x-sim-status": str(status), "x-sim-retry-after": "7"}))
    assert (error.value.status_code, error.value.body["error"]["type"]) == (status, kind)
    assert error.value.response.headers["retry-after"] == "7"


JPG = {"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": ""}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"n": 2}}, "n: Extra inputs are not permitted"),
        ({"messages": []}, "at least one message"),
        ({"messages": [*HELLO, CALLED, *HELLO], "tools": TOOLS}, "without `tool_result` blocks"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]},
            "unexpected `tool_use_id`",
        ),
        ({"messages": [*HELLO, {"role": "user", "content": " "}]}, "non-whitespace text"),
        ({"messages": [{"role": "user", "content": [JPG]}]}, "image/jpeg"),
    ],
)
def test_what_anthropic_refuses_is_refused(client, fields, said):
    """A translation that the real service would turn away must not pass the tests."""
    with pytest.raises(anthropic.BadRequestError) as error:
        client.messages.create(**options(**fields))
    assert said in error.value.message
