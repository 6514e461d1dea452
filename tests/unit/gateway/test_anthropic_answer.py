"""Anthropic's answers and streams as OpenAI's clients get them: made by Anthropic's own types, read by OpenAI's."""

import json
from itertools import pairwise

import pytest
from anthropic.types import (
    CacheCreation,
    Message,
    MessageDeltaUsage,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawContentBlockStopEvent,
    RawMessageDeltaEvent,
    RawMessageStartEvent,
    RawMessageStopEvent,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
)
from anthropic.types.shared import ErrorResponse
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.call import read_call
from gateway.providers.anthropic import AnthropicApi
from gateway.providers.anthropic_answer import FINISH_REASONS
from gateway.providers.base import AnswerFailed, AnswerUnreadable
from shared.usage.tokens import count_tokens, processing_tier

# 1,200 tokens read from the cache, 300 written for five minutes and 100 for an hour, 40 read anew, 25 written out.
USAGE = Usage(
    input_tokens=40,
    cache_read_input_tokens=1200,
    cache_creation_input_tokens=400,
    cache_creation=CacheCreation(ephemeral_5m_input_tokens=300, ephemeral_1h_input_tokens=100),
    output_tokens=25,
    output_tokens_details={"thinking_tokens": 10},
    service_tier="standard",
)
TOKENS = {
    "input": 40,
    "cached_input": 1200,
    "cache_write": 300,
    "cache_write_1h": 100,
    "output": 25,
    "reasoning": 10,
}
CALL = ToolUseBlock(id="toolu_1", name="weather", input={"city": "Delft"}, type="tool_use")
THOUGHT = ThinkingBlock(thinking="rain?", signature="c2ln", type="thinking")
CITED = {
    "type": "web_search_result_location",
    "url": "https://example.com",
    "title": "Rain",
    "cited_text": "It rains.",
    "encrypted_index": "x",
}


def chat(**fields):
    raw = json.dumps({"model": "claude", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    return read_call("chat", raw, None)


def message(*blocks, stop_reason="end_turn", usage=USAGE, **fields) -> bytes:
    content = Message(
        id="msg_1",
        type="message",
        role="assistant",
        model="claude-sonnet-5",
        content=list(blocks),
        stop_reason=stop_reason,
        usage=usage,
        **fields,
    )
    return content.to_json().encode()


def answered(*blocks, **fields) -> ChatCompletion:
    whole = AnthropicApi().whole(chat(), message(*blocks, **fields))
    return ChatCompletion.model_validate_json(whole.content, strict=True)


def text(said: str) -> TextBlock:
    return TextBlock(text=said, type="text")


def test_a_text_is_answered_as_a_chat_completion():
    """Every text block is part of the one content that OpenAI's clients know."""
    answer = answered(text("It "), text("rains."))
    assert (answer.id, answer.model, answer.service_tier) == ("msg_1", "claude-sonnet-5", "default")
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "It rains.", "stop")
    assert choice.message.tool_calls is None


def test_the_client_sees_openais_counts_and_the_bill_anthropics_own():
    """What was read from and written to the cache is inside the prompt for OpenAI, beside it for Anthropic."""
    whole = AnthropicApi().whole(chat(), message(text("ok")))
    usage = ChatCompletion.model_validate_json(whole.content).usage
    assert usage.prompt_tokens == 40 + 1200 + 400
    assert (usage.completion_tokens, usage.total_tokens) == (25, 40 + 1200 + 400 + 25)
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.cache_write_tokens) == (1200, 400)
    assert usage.completion_tokens_details.reasoning_tokens == 10
    assert whole.usage == json.loads(message(text("ok")))["usage"]
    assert count_tokens(whole.usage, "anthropic") == TOKENS


def test_an_answer_without_counts_says_how_much_it_is():
    """Some servers of this API count nothing; what was written is then estimated, never billed as nothing."""
    content = json.loads(message(text("Let me look."), CALL, stop_reason="tool_use"))
    del content["usage"]
    whole = AnthropicApi().whole(chat(), json.dumps(content).encode())
    assert whole.usage is None
    assert whole.output_bytes == len("Let me look." + "weather" + '{"city":"Delft"}')
    assert ChatCompletion.model_validate_json(whole.content).usage.total_tokens == 0


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({"service_tier": "standard"}, None),
        ({"service_tier": "priority"}, "priority"),
        ({"speed": "fast"}, "fast"),
        ({"inference_geo": "us"}, "inference-us"),
        ({"inference_geo": "global"}, None),
    ],
)
def test_the_tier_that_prices_the_answer_is_told(fields, tier):
    """A fast answer, or one bound to the data centres of one country, costs more than its tokens do elsewhere."""
    whole = AnthropicApi().whole(chat(), message(text("ok"), usage=USAGE.model_copy(update=fields)))
    assert processing_tier(whole.tier, whole.usage) == tier


def test_calls_of_tools_are_answered_with_their_arguments_as_text():
    """The client reads each call as it reads OpenAI's."""
    [choice] = answered(text("Let me look."), CALL, stop_reason="tool_use").choices
    [call] = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == (
        "toolu_1",
        "weather",
        {"city": "Delft"},
    )


def test_thinking_comes_beside_the_content_and_can_go_back():
    """`reasoning_content` is what clients show; the signed blocks are what Claude wants back."""
    said = answered(THOUGHT, CALL, stop_reason="tool_use").choices[0].message
    assert (said.content, said.model_extra["reasoning_content"]) == (None, "rain?")
    assert said.model_extra["thinking_blocks"] == [THOUGHT.to_dict()]


@pytest.mark.parametrize("reason", [*StopReason.__args__, "a_reason_of_tomorrow"])
def test_every_reason_to_stop_is_one_of_openais(reason):
    """The types refuse a reason that OpenAI does not know; Anthropic's own stands beside it."""
    content = message(text("ok")).replace(b"end_turn", reason.encode())
    answer = ChatCompletion.model_validate_json(AnthropicApi().whole(chat(), content).content, strict=True)
    assert answer.choices[0].finish_reason == FINISH_REASONS.get(reason, "stop")
    assert answer.choices[0].model_extra["native_finish_reason"] == reason
    assert set(StopReason.__args__) == FINISH_REASONS.keys()


def test_a_refusal_says_why():
    """Anthropic's explanation is OpenAI's refusal."""
    details = {"type": "refusal", "category": "cyber", "explanation": "Not that."}
    [choice] = answered(text("I"), stop_reason="refusal", stop_details=details).choices
    assert (choice.finish_reason, choice.message.refusal, choice.message.content) == (
        "content_filter",
        "Not that.",
        "I",
    )


def test_cited_pages_are_annotations_of_the_text():
    """A web search's citations say which characters they stand for."""
    said = answered(text("Look: "), TextBlock(text="rain", type="text", citations=[CITED])).choices[0].message
    [annotation] = said.annotations
    span = annotation.url_citation
    assert (span.url, span.title, said.content[span.start_index : span.end_index]) == (
        "https://example.com",
        "Rain",
        "rain",
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"content": 7}', b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_no_message_is_the_providers_fault(content):
    """Whatever comes, the gateway knows that it lost an answer and does not stumble over it."""
    with pytest.raises(AnswerUnreadable):
        AnthropicApi().whole(chat(), content)


def test_an_error_in_the_place_of_an_answer_is_an_error():
    """Status 200 promised an answer; the gateway must see what came, to try elsewhere."""
    error = ErrorResponse(type="error", error={"type": "overloaded_error", "message": "Overloaded"})
    with pytest.raises(AnswerFailed) as failed:
        AnthropicApi().whole(chat(), error.to_json().encode())
    assert failed.value.status == 529
    assert json.loads(failed.value.content)["error"]["code"] == "overloaded_error"


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("invalid_request_error", 400, "invalid_request_error"),
        ("not_found_error", 404, "invalid_request_error"),
        ("billing_error", 402, "insufficient_quota"),
        ("rate_limit_error", 429, "rate_limit_error"),
        ("api_error", 500, "server_error"),
        ("timeout_error", 504, "server_error"),
        ("overloaded_error", 529, "server_error"),
    ],
)
def test_errors_have_openais_shape_and_anthropics_name(name, status, kind):
    """The code is the provider's, the type one that OpenAI's clients branch on."""
    error = ErrorResponse(type="error", error={"type": name, "message": "Overloaded"}, request_id="req_1")
    body = json.loads(AnthropicApi().failure(chat(), status, error.to_json().encode()))
    assert body == {"error": {"code": name, "message": "Overloaded", "type": kind, "param": None}}


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"error": "text"}', b"\xff"])
def test_an_error_that_cannot_be_read_is_still_one_of_openais(content):
    """What a proxy on the way answers, a page say, is not passed on."""
    body = json.loads(AnthropicApi().failure(chat(), 502, content))
    assert body["error"]["code"] == "upstream_failed"
    assert body["error"]["message"] == "the model backend answered with status 502"


def sse(*events) -> bytes:
    """Events as Anthropic writes them, each named."""
    pieces = []
    for event in events:
        data = event if isinstance(event, dict) else event.to_dict()
        pieces.append(f"event: {data['type']}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n")
    return "".join(pieces).encode()


def begin(usage=USAGE, **counts) -> RawMessageStartEvent:
    begun = Message.model_validate_json(message(stop_reason=None, usage=usage.model_copy(update=counts)))
    return RawMessageStartEvent(type="message_start", message=begun)


def block(index, content) -> RawContentBlockStartEvent:
    return RawContentBlockStartEvent(type="content_block_start", index=index, content_block=content)


def delta(index, kind, **fields) -> RawContentBlockDeltaEvent:
    return RawContentBlockDeltaEvent(type="content_block_delta", index=index, delta={"type": kind, **fields})


def end_of(index) -> RawContentBlockStopEvent:
    return RawContentBlockStopEvent(type="content_block_stop", index=index)


def end(stop_reason="end_turn", output_tokens=25, **counts) -> tuple[RawMessageDeltaEvent, RawMessageStopEvent]:
    usage = MessageDeltaUsage(output_tokens=output_tokens, **counts)
    last = RawMessageDeltaEvent(type="message_delta", delta={"stop_reason": stop_reason}, usage=usage)
    return last, RawMessageStopEvent(type="message_stop")


TOOL_STREAM = (
    begin(output_tokens=1),
    {"type": "ping"},
    block(0, ThinkingBlock(thinking="", signature="", type="thinking")),
    delta(0, "thinking_delta", thinking="rai"),
    delta(0, "thinking_delta", thinking="n?"),
    delta(0, "signature_delta", signature="c2ln"),
    end_of(0),
    block(1, text("")),
    delta(1, "text_delta", text="Let me "),
    delta(1, "text_delta", text="look: ☂"),
    end_of(1),
    block(2, CALL.model_copy(update={"input": {}})),
    delta(2, "input_json_delta", partial_json=""),
    delta(2, "input_json_delta", partial_json='{"city": "De'),
    delta(2, "input_json_delta", partial_json='lft"}'),
    end_of(2),
    block(3, ToolUseBlock(id="toolu_2", name="clock", input={}, type="tool_use")),
    end_of(3),
    *end("tool_use"),
)


def streamed(raw: bytes, cuts=(), **fields):
    """(the stream's reader, the chunks as OpenAI's types read them, whether [DONE] came) of a body cut at `cuts`."""
    reader = AnthropicApi().stream(chat(stream=True, **fields))
    edges = [0, *cuts, len(raw)]
    out = b"".join(reader.feed(raw[start:stop]) for start, stop in pairwise(edges)) + reader.rest()
    *events, last = out.decode().split("\n\n")
    assert last == ""
    datas = [event.removeprefix("data: ") for event in events]
    done = bool(datas) and datas[-1] == "[DONE]"
    return reader, [json.loads(data) | {"created": 0} for data in (datas[:-1] if done else datas)], done


def deltas(chunks) -> list:
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    return [chunk.choices[0].delta for chunk in parsed if chunk.choices]


def test_a_stream_becomes_the_chunks_of_a_chat_completion():
    """Role first, then text and calls as they come, the reason to stop, then usage and the end."""
    reader, chunks, done = streamed(sse(*TOOL_STREAM), stream_options={"include_usage": True})
    found = deltas(chunks)
    assert found[0].role == "assistant"
    assert "".join(each.content or "" for each in found) == "Let me look: ☂"
    assert "".join((each.model_extra or {}).get("reasoning_content", "") for each in found) == "rain?"
    thinking = [(each.model_extra or {}).get("thinking_blocks") for each in found]
    assert [each for each in thinking if each] == [[{"index": 0, **THOUGHT.to_dict()}]]
    calls = {0: "", 1: ""}
    for each in found:
        for call in each.tool_calls or []:
            calls[call.index] += call.function.arguments
    assert {index: json.loads(said) for index, said in calls.items()} == {0: {"city": "Delft"}, 1: {}}
    named = [(call.id, call.function.name) for each in found for call in each.tool_calls or [] if call.id]
    assert named == [("toolu_1", "weather"), ("toolu_2", "clock")]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 40 + 1200 + 400 + 25
    assert done
    assert (reader.finished, reader.failed) == (True, False)
    said = ["rai", "n?", "Let me ", "look: ☂", "weather", '{"city": "De', 'lft"}', "clock"]
    assert reader.output_bytes == sum(len(each) for each in said) + 2  # the umbrella has three bytes
    assert reader.output_deltas == len(said)


def test_openais_sdk_puts_a_stream_together_to_the_whole_answer():
    """Its helper joins what chunks bring: two thoughts, two citations and two calls must not fall over each other."""
    said = TextBlock(text="It rains.", type="text", citations=[CITED])
    blocks = [THOUGHT, THOUGHT.model_copy(update={"thinking": "so?"}), said, said, CALL]
    events = [begin()]
    for index, each in enumerate(blocks):
        empty = {"thinking": "", "signature": "", "text": "", "citations": None, "input": {}}
        begun = each.model_copy(update={name: empty[name] for name in empty if hasattr(each, name)})
        events.append(block(index, begun))
        if each.type == "thinking":
            events += [delta(index, "thinking_delta", thinking=each.thinking)]
            events += [delta(index, "signature_delta", signature=each.signature)]
        elif each.type == "text":
            events += [delta(index, "text_delta", text=each.text), delta(index, "citations_delta", citation=CITED)]
        else:
            events += [delta(index, "input_json_delta", partial_json=json.dumps(each.input))]
        events.append(end_of(index))
    _, chunks, _ = streamed(sse(*events, *end("tool_use")), stream_options={"include_usage": True})
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    joined, whole = state.get_final_completion(), answered(*blocks, stop_reason="tool_use")
    assert joined.usage == whole.usage
    assert joined.choices[0].finish_reason == whole.choices[0].finish_reason
    first, second = (each.choices[0].message.to_dict() for each in (joined, whole))
    assert first["content"] == second["content"]
    assert first["reasoning_content"] == second["reasoning_content"]
    for name in ("annotations", "thinking_blocks"):
        assert [{**each, "index": 0} for each in first[name]] == [{"index": 0, **each} for each in second[name]]
    [call], [expected] = first["tool_calls"], second["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == json.loads(expected["function"]["arguments"])


def test_a_stream_says_the_same_wherever_it_is_cut():
    """The network cuts between any two bytes, in the middle of a character too."""
    raw = sse(*TOOL_STREAM)
    _, expected, _ = streamed(raw)
    inside_a_character = raw.index("☂".encode()) + 1
    for at in (inside_a_character, *range(1, len(raw), 5)):
        _, chunks, done = streamed(raw, (at,))
        assert (chunks, done) == (expected, True)


@pytest.mark.parametrize("ending", [b"\r\n", b"\r"])
def test_a_stream_may_end_its_lines_as_it_likes(ending):
    """The standard knows three endings; proxies rewrite them."""
    raw = sse(*TOOL_STREAM)
    assert streamed(raw.replace(b"\n", ending))[1:] == streamed(raw)[1:]


def test_usage_is_only_shown_to_who_asked():
    """A client that did not ask gets no chunk without choices; the bill has its counts all the same."""
    reader, chunks, done = streamed(sse(*TOOL_STREAM))
    assert done
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)
    assert count_tokens(reader.usage, "anthropic") == TOKENS | {"reasoning": 10}


def test_the_last_counts_of_a_stream_win_and_what_they_leave_out_stays():
    """Counts are cumulative: the end repeats some, corrects some, and leaves the split of the cache to the start."""
    ended = end(output_tokens=31, input_tokens=42, cache_creation_input_tokens=450)
    reader, _, _ = streamed(sse(begin(output_tokens=1), *ended))
    # 100 of the 450 written live for an hour, as the start said; the other 350 for five minutes.
    assert count_tokens(reader.usage, "anthropic") == {
        "input": 42,
        "cached_input": 1200,
        "cache_write": 450 - 100,
        "cache_write_1h": 100,
        "output": 31,
        "reasoning": 10,
    }


def test_a_stream_that_was_cut_off_has_no_usage_but_what_it_read():
    """The count of output at the start is one token; billing it would give the rest away."""
    begun = begin(output_tokens=1, output_tokens_details=None)
    reader, _, done = streamed(sse(begun, block(0, text("")), delta(0, "text_delta", text="It ra")))
    assert not done
    assert (reader.usage, reader.finished, reader.output_bytes) == (None, False, 5)
    assert count_tokens(reader.input_usage, "anthropic")["cached_input"] == 1200


def test_an_error_in_a_stream_is_passed_on_and_ends_it():
    """OpenAI's SDKs raise on it; nothing that follows is taken for an answer."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    reader, chunks, done = streamed(sse(begin(), error, *end()))
    assert chunks[-1]["error"]["code"] == "overloaded_error"
    assert (reader.failed, reader.finished, reader.usage, done) == (True, False, None, False)


BROKEN = [
    b"data: {\n\n",
    b'data: {"type": "\\ud800"}\n\n',
    b"data: \xff\xc3\n\n",
    b"data: " + b"[" * 9999 + b"\n\n",
]


@pytest.mark.parametrize("broken", BROKEN)
def test_an_event_that_cannot_be_read_fails_the_stream_clearly(broken):
    """Left out in silence it might have been half of the answer."""
    reader, chunks, done = streamed(sse(begin()) + broken + sse(*end()))
    assert chunks[-1]["error"]["code"] == "upstream_failed"
    assert (reader.failed, done) == (True, False)


def test_an_event_without_end_is_not_held_forever():
    """One stream must not take the gateway's memory."""
    reader = AnthropicApi().stream(chat(stream=True))
    out = b"".join(reader.feed(b"data: " + b"x" * 65536) for _ in range(20))
    assert b"upstream_failed" in out
    assert reader.failed


def test_what_is_not_known_yet_is_left_out():
    """Anthropic asks its clients to pass over new events, blocks and deltas."""
    reader, chunks, done = streamed(
        b": a comment\n\ndata: []\n\n"
        + sse(
            begin(),
            {"type": "an_event_of_tomorrow"},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "a_block_of_tomorrow"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "a_delta_of_tomorrow", "x": 1}},
            {"type": "content_block_stop", "index": 0},
            *end(),
        )
    )
    assert done
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}, {}]
    assert not reader.failed


def test_what_anthropic_runs_itself_is_no_call_for_the_client():
    """A web search is Anthropic's to run; only its words count as output."""
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    reader, chunks, _ = streamed(
        sse(
            begin(),
            block(0, search),
            delta(0, "input_json_delta", partial_json='{"query": "rain"}'),
            end_of(0),
            block(1, result),
            end_of(1),
            block(2, text("")),
            delta(2, "text_delta", text="It rains."),
            delta(2, "citations_delta", citation=CITED),
            end_of(2),
            *end(),
        )
    )
    found = deltas(chunks)
    assert not any(each.tool_calls for each in found)
    assert reader.output_bytes == len('{"query": "rain"}' + "It rains.")
    [annotations] = [each.model_extra["annotations"] for each in found if (each.model_extra or {}).get("annotations")]
    assert annotations[0]["index"] == 0
    assert annotations[0]["url_citation"] == {
        "url": "https://example.com",
        "title": "Rain",
        "start_index": 0,
        "end_index": 9,
    }
