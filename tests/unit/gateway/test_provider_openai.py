"""OpenAI's API and its kin: what goes to the provider, and what of the answer the gateway takes note of."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types.responses import ResponseError

from gateway.call import call_of
from gateway.providers import api_of
from gateway.providers.base import AnswerFailed, AnswerUnreadable, Target
from gateway.providers.openai_errors import status_of
from shared.config.model import Endpoint

SAID = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def call(operation: str = "chat", **body: Any):
    given = {"chat": {"messages": SAID}, "responses": {"input": "hi"}, "embeddings": {"input": "hi"}}[operation]
    return call_of(operation, {"model": "gpt", **given, **body}, 40)


def target(api: str, api_version: str | None = None, deployment: str = "gpt-weu", **endpoint: Any) -> Target:
    return Target(
        "gpt", api, deployment, Endpoint(id="e", provider=api, api=api, url="https://x", **endpoint), api_version
    )


def sent(
    api: str, asked: Any, where: Target | None = None, disabled: tuple[str, ...] = ()
) -> tuple[str, dict[str, Any]]:
    """(path, body) as the provider gets it."""
    request = api_of(api).request(asked, where or target(api), disabled)
    return request.path, json.loads(request.body)


@pytest.mark.parametrize("api", ["openai", "azure-openai", "openrouter"])
def test_unknown_parameters_pass_unchanged(api: str) -> None:
    """What a provider adds tomorrow needs no change here; only the model is named as the provider knows it."""
    _, body = sent(api, call(new_parameter={"deep": [1, None]}, temperature=0.1))
    body.pop("usage", None)
    assert body == {"model": "gpt-weu", "messages": SAID, "new_parameter": {"deep": [1, None]}, "temperature": 0.1}


@pytest.mark.parametrize(
    ("api", "operation", "path"),
    [
        ("openai", "chat", "/chat/completions"),
        ("openai", "responses", "/responses"),
        ("openai", "embeddings", "/embeddings"),
        ("azure-openai", "chat", "/openai/v1/chat/completions"),
        ("azure-openai", "responses", "/openai/v1/responses"),
        ("openrouter", "responses", "/responses"),
        ("databricks", "chat", "/serving-endpoints/gpt-weu/invocations"),
        ("databricks", "embeddings", "/serving-endpoints/gpt-weu/invocations"),
        ("databricks", "responses", "/serving-endpoints/responses"),
    ],
)
def test_each_operation_has_its_path(api: str, operation: str, path: str) -> None:
    """Behind the endpoint's address."""
    assert sent(api, call(operation))[0] == path


@pytest.mark.parametrize(
    ("version", "asks"), [("2024-02-01", False), ("2024-09-01-preview", True), ("2025-01-01", True), ("preview", True)]
)
def test_azure_paths_by_deployment_keep_the_clients_api_version(version: str, asks: bool) -> None:
    """And versions that would refuse `stream_options` are not sent it: their streams are billed by estimate."""
    request = api_of("azure-openai").request(call(stream=True), target("azure-openai", version), ())
    assert request.path == "/openai/deployments/gpt-weu/chat/completions"
    assert request.params == {"api-version": version}
    assert ("stream_options" in json.loads(request.body)) is asks


def test_every_stream_is_asked_for_its_usage() -> None:
    """Whatever else the client's stream_options say."""
    _, body = sent("openai", call(stream=True, stream_options={"include_obfuscation": False}))
    assert body["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in sent("openai", call())[1]
    assert "stream_options" not in sent("openai", call("responses", stream=True))[1]  # which tell it unasked


def test_a_server_that_refuses_stream_options_never_sees_them() -> None:
    """Not even when the client sends them."""
    where = target("openai", stream_options=False)
    assert "stream_options" not in sent("openai", call(stream=True, stream_options={"include_usage": True}), where)[1]


def test_the_clients_question_for_the_cost_stays_here() -> None:
    """`usage: {include: true}` is answered by the gateway; OpenAI would refuse the parameter."""
    asked = call(usage={"include": True})
    assert (asked.wants_cost, asked.wants_usage_chunk) == (True, True)
    assert "usage" not in sent("openai", asked)[1]
    assert sent("openai", call(usage={"exclude": 1}))[1]["usage"] == {"exclude": 1}  # nothing that we know: it passes


def test_disabled_tools_of_responses_are_left_out() -> None:
    """Their functions have the name on the tool itself, and their built-in tools have none."""
    tools = [{"type": "function", "name": "lookup", "parameters": {}}, {"type": "web_search"}]
    _, body = sent("openai", call("responses", tools=tools), disabled=("web_search",))
    assert body["tools"] == tools[:1]


@pytest.mark.parametrize("api", ["openai", "azure-openai", "openrouter", "databricks"])
def test_usage_and_tier_are_read_from_a_whole_answer(api: str) -> None:
    """The answer itself passes byte for byte."""
    content = json.dumps({"choices": [], "usage": USAGE, "service_tier": "flex", "novel": 1}).encode()
    answer = api_of(api).whole(call(), content)
    assert (answer.content, answer.usage, answer.tier) == (content, USAGE, "flex")


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": None}, 7])
def test_an_answer_that_tells_no_tokens_has_no_usage(usage: Any) -> None:
    """Then what was written stands for it: "h" and "é" and the call's name and arguments are 1 + 2 + 2 + 6 bytes."""
    function = {"name": "go", "arguments": '{"a":1'}
    choices = [{"message": {"content": "h"}}, {"message": {"content": "é", "tool_calls": [{"function": function}]}}]
    answer = api_of("openai").whole(call(), json.dumps({"choices": choices, "usage": usage}).encode())
    assert (answer.usage, answer.output_bytes) == (None, 1 + 2 + 2 + 6)


def test_what_a_response_without_usage_wrote_is_counted() -> None:
    """Text, a refusal, arguments and the summary of its thoughts: 5 + 2 + (2 + 4) + 3 bytes."""
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hmm"}]},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "hello"}, {"type": "refusal", "refusal": "no"}],
        },
        {"type": "function_call", "name": "{}", "arguments": "{'a'"},
    ]
    answer = api_of("openai").whole(call("responses"), json.dumps({"output": output, "usage": None}).encode())
    assert (answer.usage, answer.output_bytes) == (None, 5 + 2 + 2 + 4 + 3)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b"{}", b'"text"', b'{"choices": [', b'{"choices": [], "a": "\xff"}'],
)
def test_an_answer_that_nobody_can_read_is_told_from_an_error(content: bytes) -> None:
    """A model worked for it, so it is no refusal; a client's SDK could not read it either."""
    with pytest.raises(AnswerUnreadable):
        api_of("openai").whole(call(), content)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"code": 429, "message": "slow down"}, 429, "rate_limit_exceeded"),
        ({"code": "502", "message": "down"}, 502, "upstream_failed"),
        ({"code": "rate_limit_exceeded", "message": "slow down"}, 429, "rate_limit_exceeded"),
        ({"code": None, "type": "invalid_request_error", "message": "odd"}, 400, "invalid_request"),
        ({"type": "rate_limit_error", "message": "slow down"}, 429, "rate_limit_exceeded"),
        ({"message": "odd"}, 502, "upstream_failed"),
        ("just text", 502, "upstream_failed"),
        ({"code": "9" * 5_000, "message": "odd"}, 502, "upstream_failed"),
    ],
    ids=["number", "digits", "name", "type", "only type", "message", "text", "no status"],
)
def test_an_error_inside_an_answer_of_status_200_is_an_error(error: Any, status: int, code: str) -> None:
    """OpenRouter and some proxies send it so; the client gets the status that it stands for."""
    with pytest.raises(AnswerFailed) as failed:
        api_of("openrouter").whole(call(), json.dumps({"error": error}).encode())
    told = json.loads(failed.value.content)["error"]
    assert (failed.value.status, told["code"]) == (status, code)
    assert told["message"] in ("slow down", "down", "odd", "just text")
    assert set(told) >= {"code", "message", "type", "param"}


def test_an_error_that_can_just_be_read_is_told_where_it_cannot_be_written() -> None:
    """How deep JSON may be depends on who asks: failing there, the stream's event would never be made."""

    def error(depth: int) -> Any:
        stream = api_of("openai").stream(call(stream=True))
        stream.feed(b'data: {"error": {"more": ' + b"[" * depth + b"]" * depth + b"}}\n\n")
        return stream.error

    def failed(stack: int, deepest: Any) -> AnswerFailed:
        return failed(stack - 1, deepest) if stack else api_of("openai").stream_failure(deepest)

    deepest = next(found for depth in range(1_000, 0, -1) if (found := error(depth)))
    assert failed(50, deepest).status == 502


def test_a_response_that_failed_is_an_error() -> None:
    """A Responses answer of status failed holds no answer and no usage."""
    error = {"code": "server_error", "message": "sorry"}
    with pytest.raises(AnswerFailed) as failed:
        api_of("openai").whole(
            call("responses"), json.dumps({"status": "failed", "error": error, "output": []}).encode()
        )
    assert failed.value.status == 500


def test_every_error_of_a_response_has_a_status_of_its_own() -> None:
    """What is wrong with a prompt or an image is wrong at every place: it is the caller's, and breaks no breaker."""
    codes = get_args(ResponseError.model_fields["code"].annotation)
    found = {code: status_of({"code": code}) for code in codes}
    faults = {"server_error": 500, "rate_limit_exceeded": 429, "vector_store_timeout": 504}
    assert found == {**dict.fromkeys(codes, 400), **faults}


def test_an_error_in_openais_shape_passes_byte_for_byte() -> None:
    """Also with more beside it."""
    content = b'{"error": {"code": null, "message": "m", "type": "t", "param": "p", "inner": {}}, "x": 1}'
    assert api_of("openai").failure(call(), 400, content) == content


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"<html>nginx</html>", {"message": "the model backend answered 503", "code": "upstream_failed"}),
        (b'{"error": "model is loading"}', {"message": "model is loading"}),  # Ollama
        (
            b'{"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}',
            {"message": "too long"},
        ),
        (b'{"error": {"code": "429", "message": "wait"}}', {"message": "wait"}),  # Azure
        (b'{"error_code": "NOT_READY", "message": "wait"}', {"message": "wait", "code": "NOT_READY"}),  # Databricks
    ],
)
def test_errors_of_any_shape_become_openais(content: bytes, error: dict[str, Any]) -> None:
    """All four fields, so that SDKs raise their own exceptions with a code and a message."""
    told = json.loads(api_of("openai").failure(call(), 503, content))["error"]
    assert {name: told[name] for name in error} == error
    assert [type(told[name]) for name in ("code", "type", "param")] == [str, str, type(None)]


@pytest.mark.parametrize(
    ("api", "operation", "event", "status", "error"),
    [
        ("openai", "chat", {"error": {"message": "wait"}}, 502, {"message": "wait", "code": "upstream_failed"}),
        ("openrouter", "chat", {"error": {"code": 400, "message": "odd"}}, 400, {"type": "invalid_request_error"}),
        ("openai", "responses", {"type": "error", "code": "server_error", "message": "wait"}, 500, {"message": "wait"}),
        (
            "openai",
            "responses",
            {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "wait"}}},
            429,
            {"message": "wait", "code": "rate_limit_exceeded"},
        ),
        (
            "anthropic",
            "chat",
            {"type": "error", "error": {"type": "overloaded_error", "message": "wait"}},
            529,
            {"message": "wait", "code": "overloaded_error"},
        ),
    ],
    ids=["openai", "openrouter", "error", "response.failed", "anthropic"],
)
def test_an_error_in_the_place_of_a_stream_is_that_error(
    api: str, operation: str, event: Any, status: int, error: dict[str, Any]
) -> None:
    """In as many lines as it comes, behind a comment, in each API's own shape; with the status that it stands for."""
    stream = api_of(api).stream(call(operation, stream=True))
    lines = "".join(f"data: {line}\n" for line in json.dumps(event, indent=1).splitlines())
    stream.feed(f": open\n\n{lines}\n".encode())
    assert stream.failed
    failed = api_of(api).stream_failure(stream.error)
    told = json.loads(failed.content)["error"]
    assert failed.status == status
    assert {name: told[name] for name in error} == error
    assert [type(told[name]) for name in ("message", "code", "type", "param")] == [str, str, str, type(None)]


def test_what_a_provider_says_beside_its_error_is_kept() -> None:
    """Azure's content filter explains itself in `innererror`."""
    content = json.dumps(
        {"error": {"message": "m", "type": None, "param": "prompt", "code": "content_filter", "innererror": {"a": 1}}}
    ).encode()
    told = json.loads(api_of("azure-openai").failure(call(), 400, content))["error"]
    assert (told["param"], told["code"], told["innererror"]) == ("prompt", "content_filter", {"a": 1})
    assert told["type"] == "invalid_request_error"
