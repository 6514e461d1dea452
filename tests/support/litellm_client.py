"""Calls a gateway with LiteLLM as a client, in LiteLLM's own virtualenv: a script, not imported by any test.

Reads {"url", "key", "poor_key", "azure_version"} as JSON from standard input and prints one JSON object with what each
kind of call came to.
"""

import asyncio
import json
import sys

import litellm
import openai

MESSAGES = [{"role": "user", "content": "What is left of the budget?"}]
TOOL_MESSAGES = [{"role": "user", "content": "Please use web_search."}]
TOO_LONG = [{"role": "user", "content": "budget " * 8000}]  # for a budget of less than a cent
TOOLS = [{"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}]


def named(call: str) -> dict[str, str]:
    return {"x-sim-call-id": f"litellm-{call}", "x-sim-output-tokens": "12"}


def text_and_usage(chunks) -> tuple[str, int]:
    """The text of a stream and its output tokens."""
    text, usage = "", 0
    for chunk in chunks:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = getattr(chunk, "usage", None).completion_tokens if getattr(chunk, "usage", None) else usage
    return text, usage


def refused(options: dict) -> dict[str, object]:
    """What LiteLLM raises for a spent budget."""
    try:
        litellm.completion(model="openai/gpt-4o", messages=TOO_LONG, num_retries=0, **options)
    except openai.APIError as error:  # LiteLLM's own classes are among its children
        return {"class": type(error).__name__, "status": error.status_code, "message": str(error)}
    return {}


async def asynchronous(options: dict) -> int:
    answer = await litellm.acompletion(
        model="openai/gpt-4o", messages=MESSAGES, extra_headers=named("async"), **options
    )
    return answer.usage.completion_tokens


def main() -> None:
    told = json.load(sys.stdin)
    options = {"api_base": f"{told['url']}/v1", "api_key": told["key"]}
    azure = {"api_base": told["url"], "api_key": told["key"], "api_version": told["azure_version"]}
    completion = litellm.completion
    whole = completion(model="openai/gpt-4o", messages=MESSAGES, extra_headers=named("whole"), **options)
    stream = completion(
        model="openai/gpt-4o",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=named("stream"),
        **options,
    )
    tool = completion(
        model="openai/gpt-4o", messages=TOOL_MESSAGES, tools=TOOLS, extra_headers=named("tool"), **options
    )
    by_deployment = completion(model="azure/gpt-4o-weu", messages=MESSAGES, extra_headers=named("azure"), **azure)
    embedded = litellm.embedding(model="openai/text-embedding-3-small", input=["a" * 40], **options)
    response = litellm.responses(model="openai/gpt-4o", input="How much?", extra_headers=named("responses"), **options)
    router = litellm.Router(
        model_list=[
            {"model_name": "chat", "litellm_params": {"model": f"openai/{model}", **options}}
            for model in ("gpt-4o", "gpt-4o-mini")
        ]
    )
    routed = router.completion(model="chat", messages=MESSAGES, extra_headers=named("router"))
    text, stream_tokens = text_and_usage(stream)
    print(
        json.dumps(
            {
                "whole": [whole.choices[0].message.content, whole.usage.completion_tokens],
                "stream": [text, stream_tokens],
                "tool": tool.choices[0].message.tool_calls[0].function.name,
                "azure": by_deployment.usage.completion_tokens,
                "embedding": [len(embedded.data[0]["embedding"]), embedded.usage.prompt_tokens],
                "responses": [response.output[0].content[0].text, response.usage.output_tokens],
                "router": [routed.model, routed.usage.completion_tokens],
                "async": asyncio.run(asynchronous(options)),
                "refused": refused({**options, "api_key": told["poor_key"]}),
            }
        )
    )


if __name__ == "__main__":
    main()
