"""The policy runner inside a test: policies executed over real HTTP, with what happened open to look at.

    async with start_runner(model_url, hub=hub, loggers={"usage-logger": hub_name}, keys={"my-key": "search-prod"},
                            named_values={"budget-url": functions_url}, backends={"model-pool": model_url}) as runner:
        answer = await httpx.AsyncClient().post(f"{runner.url}/openai/v1/chat/completions", headers=..., json=...)
        assert not runner.violations

`runner.url`            base URL; the API lies under /openai
`runner.violations`     list[str]: policies that read the body of a streamed answer; an outage in API Management
`runner.errors`         list[LastError as dict]: every error a call ran into, whether on-error handled it or not
`runner.events`         list[LoggedEvent(logger_id, partition_key, body: str)]: what log-to-eventhub sent, hub or not
`runner.traces`         list[str]: <trace> and context.Trace
`runner.llm_records`    list[dict]: records of the LLM log as they were written (each once)
`runner.coverage`       Coverage: `.report()` gives percent and what is missing; `.write(path)` for merging
`await runner.settle()` returns when events, one-way requests and the LLM log of all calls so far are sent

With `policies=` a directory of section files (missing ones count as empty), `named-values.yaml`, `openai-api.yaml` and
`fragments/`; without it, the project's own. Without `hub` events are only recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local.apim.runner import Runner
from local.apim.settings import POLICIES, LlmLog, RunnerOptions, hashed_keys
from local.eventhub.embedded import EmbeddedHub


@asynccontextmanager
async def start_runner(
    service_url: str,
    *,
    policies: Path = POLICIES,
    hub: EmbeddedHub | None = None,
    keys: Mapping[str, str] | None = None,
    backends: Mapping[str, str | Sequence[str]] | None = None,
    named_values: Mapping[str, str] | None = None,
    loggers: Mapping[str, str] | None = None,
    llm_log: LlmLog | None = None,
    **options: Any,
) -> AsyncIterator[Runner]:
    """A running gateway. `keys` are plain ({key: subscription id}); `llm_log` is by default off."""
    runner = Runner(
        RunnerOptions(
            service_url=service_url,
            policies=policies,
            hub_connection=hub.connection_string() if hub else None,
            subscriptions=hashed_keys(keys or {}),
            backends=backends or {},
            named_values=named_values or {},
            llm_log=llm_log or LlmLog(hub=None),
            **({"loggers": loggers} if loggers is not None else {}),
            **options,
        )
    )
    async with runner.serve():
        yield runner
