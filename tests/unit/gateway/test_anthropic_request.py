"""Chat requests as Anthropic's Messages API takes them, held against the types that Anthropic publishes."""

import base64
import hashlib
import json
import typing
from collections.abc import Iterable

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from gateway.call import read_call
from gateway.providers.anthropic import AnthropicApi
from gateway.providers.anthropic_request import DEFAULT_MAX_TOKENS, DROPPED, REFUSED, TRANSLATED
from gateway.providers.base import Target
from shared.config.model import Endpoint
from shared.errors import InvalidRequest

HELLO = [{"role": "user", "content": "hello"}]
MARK = {"type": "ephemeral"}
HELLO_TURN = {"role": "user", "content": [{"type": "text", "text": "hello"}]}
PNG = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Delft"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": ""}},
    ],
}
RESULTS = [
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
]
ENDPOINT = Endpoint(id="claude", provider="anthropic", api="anthropic", url="https://api.anthropic.com")
TARGET = Target("claude-sonnet-5", "anthropic", "claude-sonnet-5", ENDPOINT, None)
PUBLISHED = {
    False: TypeAdapter(MessageCreateParamsNonStreaming),
    True: TypeAdapter(MessageCreateParamsStreaming),
}


def whole(value):
    """Read what pydantic validates only as it is read."""
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [whole(each) for each in value]
    return value


def sent(messages=HELLO, *, disabled_tools=(), **fields) -> dict:
    """The body as Anthropic gets it, once it was found to be what Anthropic's own types allow."""
    raw = json.dumps({"model": "claude-sonnet-5", "messages": messages, **fields}).encode()
    request = AnthropicApi().request(read_call("chat", raw, None), TARGET, disabled_tools)
    assert (request.path, request.headers) == ("/v1/messages", {"anthropic-version": "2023-06-01"})
    body = json.loads(request.body)
    validated = whole(PUBLISHED[body.get("stream", False)].validate_python(body))
    assert {name: value for name, value in body.items() if name in validated} == validated
    return body


def refused(messages=HELLO, **fields) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        sent(messages, **fields)
    return refusal.value


def test_every_field_of_a_chat_is_translated_dropped_or_refused():
    """A field that OpenAI adds shows here instead of being sent to a provider that does not know it."""
    fields = set().union(
        *(
            typing.get_type_hints(params)
            for params in (
                CompletionCreateParamsBase,
                CompletionCreateParamsNonStreaming,
                CompletionCreateParamsStreaming,
            )
        )
    )
    assert fields == TRANSLATED | DROPPED | REFUSED.keys()
    assert len(fields) == len(TRANSLATED) + len(DROPPED) + len(REFUSED)


def test_a_plain_chat_gets_the_limit_that_anthropic_requires():
    """OpenAI's clients may leave the limit out, Anthropic's may not."""
    assert sent() == {"model": "claude-sonnet-5", "messages": [HELLO_TURN], "max_tokens": DEFAULT_MAX_TOKENS}
    assert sent(max_tokens=7)["max_tokens"] == 7
    assert sent(max_completion_tokens=9, max_tokens=7)["max_tokens"] == 9


def test_a_given_budget_for_thinking_leaves_room_to_answer():
    """Thinking counts towards the limit: one that ends at the budget would end the answer before its first word."""
    thinking = {"type": "enabled", "budget_tokens": 20_000}
    assert sent(thinking=thinking)["max_tokens"] == 20_000 + 4_096
    assert sent(thinking=thinking)["thinking"] == thinking


def test_instructions_stand_in_front_wherever_the_chat_has_them():
    """Claude's older models know no instructions between turns; losing them would be worse than moving them."""
    messages = [
        {"role": "system", "content": "Be brief."},
        HELLO[0],
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        },
    ]
    body = sent(messages)
    assert body["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Be kind.", "cache_control": MARK},
    ]
    assert body["messages"] == [HELLO_TURN]


def test_calls_of_tools_and_their_results_keep_their_order_and_ids():
    """All results of one turn stand in the one turn behind it, with what the user says next; Anthropic refuses else."""
    body = sent([*HELLO, CALLED, *RESULTS, {"role": "user", "content": "so?"}], tools=[WEATHER, CLOCK])
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Delft"}},
                {"type": "tool_use", "id": "call_2", "name": "clock", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
                {"type": "text", "text": "so?"},
            ],
        },
    ]


def test_ids_of_other_providers_are_spelled_in_the_letters_that_anthropic_takes():
    """A conversation that began elsewhere has ids such as `call_1|fc_2`; call and result must still agree."""
    call = {"id": "call.1|fc_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call.1|fc_2", "content": "noon"},
    ]
    turns = sent(messages, tools=[CLOCK])["messages"]
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] == "call_1_fc_2"


def test_tools_are_translated_with_their_schemas():
    """A function without parameters still needs a schema; marks for the cache and strictness are kept."""
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    marked = {**CLOCK, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert sent(tools=[strict, marked])["tools"] == [
        {
            "name": "weather",
            "description": "of a city",
            "input_schema": {"type": "object", "properties": {}},
            "strict": True,
        },
        {
            "name": "clock",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
    ]


def test_tools_of_anthropics_own_pass_as_they_are():
    """What Anthropic runs itself has no counterpart at OpenAI, and needs none."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    assert sent(tools=[search])["tools"] == [search]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, {"type": "tool", "name": "clock"}),
        ({"tool_choice": {"type": "function", "function": {"name": "gone"}}}, None),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
def test_the_choice_among_tools_is_translated(fields, choice):
    """Each of OpenAI's ways to say which tool, and how many at once, in Anthropic's one field."""
    assert sent(tools=[WEATHER, CLOCK], **fields).get("tool_choice") == choice


def test_only_the_allowed_tools_are_sent():
    """OpenAI's `allowed_tools` keeps the others from being called; Anthropic has no such field."""
    named = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    body = sent(tools=[WEATHER, CLOCK], tool_choice={"type": "allowed_tools", "allowed_tools": named})
    assert [tool["name"] for tool in body["tools"]] == ["clock"]
    assert body["tool_choice"] == {"type": "any"}


def test_tools_that_the_budget_disabled_are_left_out():
    """The choice of a tool that is gone goes with it."""
    body = sent(
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        disabled_tools=["weather"],
    )
    assert [tool["name"] for tool in body["tools"]] == ["clock"]
    assert "tool_choice" not in body
    assert "tools" not in sent(tools=[WEATHER], tool_choice="required", disabled_tools=["weather"])


def test_a_conversation_with_calls_keeps_their_definitions_but_calls_no_more():
    """Anthropic refuses a conversation with calls of tools that are not defined; `none` disables them all the same."""
    body = sent([*HELLO, CALLED, *RESULTS], tools=[WEATHER, CLOCK], disabled_tools=["weather", "clock"])
    assert len(body["tools"]) == 2
    assert body["tool_choice"] == {"type": "none"}


def test_images_and_documents_are_translated():
    """Inline data by its media type, addresses as addresses, a text file as text."""
    pdf, note = base64.b64encode(b"%PDF-1.7").decode(), base64.b64encode("für Ada".encode()).decode()
    parts = [
        {"type": "text", "text": "compare"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}, "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{pdf}"}},
        {"type": "file", "file": {"file_data": f"data:text/plain;charset=utf-8;base64,{note}"}},
    ]
    assert sent([{"role": "user", "content": parts}])["messages"][0]["content"] == [
        {"type": "text", "text": "compare"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.jpg"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": pdf},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "für Ada"}},
    ]


def test_a_picture_may_be_called_jpg():
    """OpenAI minds neither name; Anthropic refuses the one that is no media type."""
    part = {"type": "image_url", "image_url": {"url": PNG.replace("image/png", "image/jpg")}}
    assert (
        sent([{"role": "user", "content": [part]}])["messages"][0]["content"][0]["source"]["media_type"] == "image/jpeg"
    )


def test_texts_that_say_nothing_are_left_out():
    """Models write line breaks before a call, tools put out nothing: Anthropic refuses the whole chat for that."""
    blank = [{"type": "text", "text": " "}, {"type": "text", "text": "hello", "cache_control": MARK}]
    messages = [
        {"role": "system", "content": " "},
        {"role": "user", "content": blank},
        {**CALLED, "content": "\n\n"},
        {**RESULTS[0], "content": "\n"},
        RESULTS[1],
    ]
    body = sent(messages, tools=[WEATHER, CLOCK])
    user, called, results = body["messages"]
    assert "system" not in body
    assert user["content"] == [{"type": "text", "text": "hello", "cache_control": MARK}]
    assert [block["type"] for block in called["content"]] == ["tool_use", "tool_use"]
    assert results["content"][0] == {"type": "tool_result", "tool_use_id": "call_1", "content": []}


def test_what_an_assistant_declined_or_spoke_is_not_dropped_in_silence():
    """A refusal is said again; sound that OpenAI keeps has no counterpart, and its loss would change the answer."""
    declined = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert sent([*HELLO, declined, *HELLO])["messages"][1]["content"] == [{"type": "text", "text": "I cannot."}]
    with pytest.raises(InvalidRequest) as refused:
        sent([*HELLO, {"role": "assistant", "audio": {"id": "a"}}])
    assert refused.value.param == "messages[1].audio"


def test_signed_thoughts_go_back_in_front_of_the_calls_they_led_to():
    """Claude wants its thinking back, unchanged and first, in a conversation that goes on after a tool's result."""
    thought = {"type": "thinking", "thinking": "rain?", "signature": "c2ln"}
    numbered = {"index": 0, **thought}  # as a streamed answer brought it
    turn = {**CALLED, "content": "Let me look.", "thinking_blocks": [numbered], "reasoning_content": "rain?"}
    blocks = sent([*HELLO, turn, *RESULTS], tools=[WEATHER, CLOCK])["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert blocks[0] == thought


def test_marks_for_the_cache_are_kept_on_whole_messages():
    """A mark on a message goes to its last block, which is where Anthropic reads it."""
    mark = {"type": "ephemeral", "ttl": "1h"}
    messages = [{"role": "system", "content": "Long.", "cache_control": mark}, *HELLO]
    assert sent(messages)["system"] == [{"type": "text", "text": "Long.", "cache_control": mark}]
    assert sent(cache_control={"type": "ephemeral"})["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("effort", "translated"),
    [
        ("minimal", {"output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}}),
        ("high", {"output_config": {"effort": "high"}, "thinking": {"type": "adaptive"}}),
        ("xhigh", {"output_config": {"effort": "xhigh"}, "thinking": {"type": "adaptive"}}),
        ("none", {"thinking": {"type": "disabled"}}),
    ],
)
def test_reasoning_effort_is_anthropics_effort(effort, translated):
    """The levels are the same words; how much is thought is then the model's to see."""
    body = sent(reasoning_effort=effort)
    assert {name: body[name] for name in ("output_config", "thinking") if name in body} == translated


def test_a_forced_tool_is_called_without_thinking_first():
    """Anthropic refuses thinking together with a forced tool."""
    assert "thinking" not in sent(tools=[CLOCK], tool_choice="required", reasoning_effort="low")


def test_a_schema_for_the_answer_is_sent_in_anthropics_own_field():
    """Structured output, beside the effort that stands in the same object."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    body = sent(response_format=wanted, reasoning_effort="low")
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    assert "output_config" not in sent(response_format={"type": "text"})


def test_sampling_is_sent_where_it_says_anything():
    """1 is everybody's default, and the newest models of Anthropic refuse any other: so 1 is never sent."""
    body = sent(temperature=0.2, top_p=1, stop="END")
    assert body["temperature"] == 0.2
    assert "top_p" not in body
    assert body["stop_sequences"] == ["END"]
    assert sent(temperature=1, stop=["a", "b"]) | {"stop_sequences": []} == sent() | {"stop_sequences": []}


def test_users_are_told_to_anthropic_as_opaque_values_only():
    """Clients write addresses into `user`; Anthropic must not learn them, nor the scopes of a budget."""
    body = sent(user="ada@contoso.com", metadata={"team": "search"})
    assert body["metadata"] == {"user_id": hashlib.sha256(b"ada@contoso.com").hexdigest()}
    assert "contoso" not in json.dumps(body)
    assert sent(metadata={"user_id": "u-1"})["metadata"] == {"user_id": "u-1"}
    assert "metadata" not in sent(metadata={"team": "search"})


@pytest.mark.parametrize(("tier", "anthropics"), [("auto", "auto"), ("default", "standard_only")])
def test_service_tiers_with_a_counterpart_are_translated(tier, anthropics):
    """`auto` may use what the organisation has bought, `default` may not: on both sides."""
    assert sent(service_tier=tier)["service_tier"] == anthropics


def test_fields_of_anthropics_own_pass_as_they_are():
    """What OpenAI's API does not know is Anthropic's to judge, new fields among it."""
    body = sent(top_k=5, container="c-1", a_field_of_tomorrow={"a": 1}, store=True, prompt_cache_key="k")
    assert (body["top_k"], body["container"], body["a_field_of_tomorrow"]) == (5, "c-1", {"a": 1})
    assert not body.keys() & {"store", "prompt_cache_key"}


def test_a_stream_is_asked_for_without_openais_options():
    """Anthropic counts on every stream, asked or not."""
    body = sent(stream=True, stream_options={"include_usage": True})
    assert body["stream"] is True
    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"50256": -100}),
        ("seed", 7),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("audio", {"voice": "alloy", "format": "mp3"}),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content", "content": "x"}),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("web_search_options", {}),
        ("verbosity", "low"),
        ("service_tier", "flex"),
        ("temperature", 1.5),
        ("response_format", {"type": "json_object"}),
        ("tool_choice", {"type": "custom", "custom": {"name": "x"}}),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(field, value):
    """Left out in silence it would answer another question than the one asked."""
    refusal = refused(**{"tools": [CLOCK], field: value})
    assert (refusal.code, refusal.param, refusal.http_status) == ("unsupported_parameter", field, 400)
    assert refusal.message.startswith(f"{field}: ")


def test_fields_that_ask_for_nothing_are_no_reason_to_refuse():
    """Chat frontends send every field with its default."""
    defaults = {"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}}
    assert sent(**defaults, modalities=["text"], seed=None, functions=[]) == sent()


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "only"}], "messages"),
        (["hello"], "messages[0]"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}],
            "messages[0].content[0].image_url.url",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,raw"}}]}],
            "messages[0].content[0].image_url.url",
        ),
        (
            [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
            "messages[0].content[0].file.file_id",
        ),
        ([*HELLO, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f"}}]}],
            "messages[0].tool_calls[0]",
        ),
    ],
)
def test_a_message_without_a_counterpart_is_refused_where_it_stands(messages, param):
    """The place is named, and nothing of the prompt is quoted."""
    refusal = refused(messages)
    assert refusal.param == param
    assert refusal.code in ("invalid_request", "unsupported_parameter")


def test_only_chats_are_served():
    """Anthropic has no embeddings."""
    call = read_call("embeddings", b'{"model": "claude-sonnet-5", "input": "x"}', None)
    with pytest.raises(InvalidRequest) as refusal:
        AnthropicApi().request(call, TARGET, ())
    assert (refusal.value.code, refusal.value.param) == ("unsupported_operation", "model")
