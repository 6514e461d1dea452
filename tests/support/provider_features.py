"""What becomes of a request's features at each provider, found out by asking the code that talks to it.

`table()` is the one in docs/providers.md; print it with `python -m tests.support.provider_features`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gateway.call import call_of
from gateway.providers import api_of
from gateway.providers.base import Target
from local.model.dialects import DATABRICKS
from shared.config.model import APIS, Api, Endpoint
from shared.errors import InvalidRequest

COLUMNS: tuple[tuple[Api, str], ...] = (
    ("azure-openai", "Azure OpenAI"),
    ("openai", "OpenAI, compatible"),
    ("openrouter", "OpenRouter"),
    ("databricks", "Databricks"),
    ("anthropic", "Anthropic"),
)
REFUSALS = ("unsupported_parameter", "unsupported_operation", "invalid_request")
_SAID: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
_PICTURE = "data:image/png;base64,iVBORw0KGgo="
_FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
_SCHEMA = {"name": "answer", "schema": {"type": "object", "properties": {}, "additionalProperties": False}}


@dataclass(frozen=True)
class Feature:
    """Fields of a request, `unknown` ones none of OpenAI's; `beside` are those without which they make no sense."""

    name: str
    fields: dict[str, Any]
    beside: dict[str, Any]
    operation: Any = "chat"
    unknown: bool = False


def _chat(name: str, fields: dict[str, Any], **beside: Any) -> Feature:
    return Feature(name, fields, {"messages": _SAID, **beside})


def _parts(name: str, *parts: dict[str, Any]) -> Feature:
    return _chat(name, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, *parts]}]})


FEATURES = (
    _chat("`messages`: user, assistant", {"messages": [*_SAID, {"role": "assistant", "content": "hello"}, *_SAID]}),
    _chat("`messages`: system, developer", {"messages": [{"role": "developer", "content": "be brief"}, *_SAID]}),
    _parts("images by address", {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}),
    _parts("images inline", {"type": "image_url", "image_url": {"url": _PICTURE}}),
    _parts("files inline (PDF)", {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}}),
    _parts("audio as input", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    _chat("`tools`: functions", {"tools": [_FUNCTION]}),
    _chat("`tool_choice`", {"tool_choice": "required"}, tools=[_FUNCTION]),
    _chat("`parallel_tool_calls: false`", {"parallel_tool_calls": False}, tools=[_FUNCTION]),
    _chat("`functions`, `function_call`", {"functions": [{"name": "look_up"}], "function_call": {"name": "look_up"}}),
    _chat("`web_search_options`", {"web_search_options": {}}),
    _chat("`response_format: json_object`", {"response_format": {"type": "json_object"}}),
    _chat("`response_format: json_schema`", {"response_format": {"type": "json_schema", "json_schema": _SCHEMA}}),
    _chat("`stream`", {"stream": True}),
    _chat("`stream_options: include_usage`", {"stream_options": {"include_usage": True}}, stream=True),
    _chat("`usage: {include: true}` (cost)", {"usage": {"include": True}}),
    _chat("`max_completion_tokens`", {"max_completion_tokens": 50}),
    _chat("`max_tokens`", {"max_tokens": 50}),
    _chat("`n` above 1", {"n": 2}),
    _chat("`stop`", {"stop": ["END"]}),
    _chat("`temperature`, `top_p`", {"temperature": 0.5, "top_p": 0.9}),
    _chat("`frequency_penalty`, `presence_penalty`", {"frequency_penalty": 0.5, "presence_penalty": 0.5}),
    _chat("`logit_bias`", {"logit_bias": {"50256": -100}}),
    _chat("`logprobs`, `top_logprobs`", {"logprobs": True, "top_logprobs": 2}),
    _chat("`seed`", {"seed": 7}),
    _chat("`reasoning_effort`", {"reasoning_effort": "low"}),
    _chat("`verbosity`", {"verbosity": "low"}),
    _chat("`service_tier: flex`", {"service_tier": "flex"}),
    _chat(
        "`modalities`, `audio` (speech)", {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}
    ),
    _chat("`prediction`", {"prediction": {"type": "content", "content": "hello"}}),
    _chat("`moderation`", {"moderation": {"enabled": True}}),
    _chat("`metadata`", {"metadata": {"a": "b"}}),
    _chat("`user`, `safety_identifier`", {"user": "u-1", "safety_identifier": "u-1"}),
    _chat("`store`", {"store": True}),
    _chat(
        "`prompt_cache_key`, `_retention`, `_options`",
        {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "auto"}},
    ),
    Feature("`models`, `route` (OpenRouter's)", {"models": ["other"]}, {"messages": _SAID}, unknown=True),
    Feature("any other field", {"of_tomorrow": {"deep": [1]}}, {"messages": _SAID}, unknown=True),
    Feature("`POST /responses`", {"instructions": "be brief"}, {"input": "hi"}, "responses"),
    Feature("`POST /responses`: `background`", {"background": True}, {"input": "hi"}, "responses"),
    Feature("`POST /embeddings`", {"input": ["hi", "there"]}, {}, "embeddings"),
    Feature("`POST /embeddings`: `dimensions`", {"dimensions": 256}, {"input": "hi"}, "embeddings"),
)


def state(api: Api, feature: Feature) -> str:
    """`supported`: the field reaches the provider as it is; `translated`: what it asks for is had by other means; `left
    out`: it does not reach it, and the answer is the same without it; `refused`: with an error that names it; `passed
    on`: the gateway does not know the field, and its provider will say.
    """
    try:
        with_it = _sent(api, feature, {**feature.beside, **feature.fields})
    except InvalidRequest as error:
        if error.code not in REFUSALS or error.param not in (*feature.fields, "model", "messages[0].content[1]"):
            raise
        return "refused"
    if api == "databricks" and feature.operation == "chat" and _is_refused_by_databricks(with_it):
        return "refused"
    if all(with_it.get(name) == value for name, value in feature.fields.items()):
        return "passed on" if feature.unknown else "supported"
    if {"usage", "stream_options"} & feature.fields.keys():
        return "translated"  # the gateway tells the cost itself, and the usage where OpenAI's streams tell it
    return "left out" if with_it == _sent(api, feature, feature.beside) else "translated"


def table() -> str:
    """In Markdown."""
    head = ["request", *(title for _, title in COLUMNS)]
    assert {api for api, _ in COLUMNS} == set(APIS)
    lines = [head, ["---"] * len(head)]
    lines += [[feature.name, *(state(api, feature) for api, _ in COLUMNS)] for feature in FEATURES]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _sent(api: Api, feature: Feature, body: dict[str, Any]) -> dict[str, Any]:
    """The body as the provider gets it."""
    call = call_of(feature.operation, {"model": "m", **body}, 100)
    endpoint = Endpoint(id="e", provider=api, api=api, url="https://x")
    request = api_of(api).request(call, Target("m", api, "m", endpoint, None), ())
    sent: dict[str, Any] = json.loads(request.body)
    return sent


def _is_refused_by_databricks(body: dict[str, Any]) -> bool:
    """Whether a serving endpoint knows a field no more than its reference does; the client then reads which."""
    refused = DATABRICKS.refusal(body)
    if refused is None:
        return False
    call = call_of("chat", {"model": "m", "messages": _SAID}, 100)
    error = json.loads(api_of("databricks").failure(call, refused.status_code, bytes(refused.body)))["error"]
    assert error["code"] == "unsupported_parameter"
    assert error["param"] in body
    return True


if __name__ == "__main__":
    print(table())
