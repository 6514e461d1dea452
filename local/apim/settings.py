"""What the policy runner can be told; as a process it reads this from its environment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.apim.tokens import MintToken, local_token

PROJECT = Path(__file__).resolve().parents[2]
POLICIES = PROJECT / "apim-policies"


@dataclass(frozen=True)
class LlmLog:
    """How the LLM log is written. The defaults are unkind on purpose: late, in several rows, now and then twice."""

    hub: str | None = "llm-logs"  # None: no log at all, as on a tier that has none
    delay_seconds: float = 1.5
    duplicate_every: int = 5  # every so many-th message is sent twice; 0: none
    calls_per_message: int = 8  # at most
    messages: bool = False  # with the texts of prompts and answers, as a careless diagnostic setting would


@dataclass(frozen=True)
class RunnerOptions:
    """Everything outside the policy files that a call depends on."""

    service_url: str  # backend of the API, for calls whose policy names no other
    policies: Path = POLICIES
    named_values: Mapping[str, str] = field(default_factory=dict)  # over the defaults of named-values.yaml
    backends: Mapping[str, str | Sequence[str]] = field(default_factory=dict)  # backend-id -> base URL, or a pool
    loggers: Mapping[str, str] = field(default_factory=lambda: {"usage-logger": "usage"})  # logger-id -> hub
    hub_connection: str | None = None  # connection string of the namespace; None: events are only recorded
    subscriptions: Mapping[str, str] = field(default_factory=dict)  # sha256 of the key -> subscription id
    products: Mapping[str, str] = field(default_factory=dict)  # subscription id -> product id
    service_name: str = "apim-local"  # context.Deployment.ServiceName
    region: str = "westeurope"
    llm_log: LlmLog = LlmLog()
    mint_token: MintToken = local_token
    on_azure: bool = False  # the models are Azure's, so tokens for https:// resources must be too


def hashed_keys(keys: Mapping[str, str]) -> dict[str, str]:
    """{sha256 of the key: subscription} of {key: subscription}."""
    return {hashlib.sha256(key.encode()).hexdigest(): subscription for key, subscription in keys.items()}


def options_from_env(env: Mapping[str, str]) -> RunnerOptions:
    """The options of `python -m local.apim`. Raises KeyError for MODEL_URL, which has no default."""
    log = LlmLog(
        hub=env.get("LLM_LOGS_HUB", "llm-logs") or None,
        delay_seconds=float(env.get("APIM_LLM_LOG_DELAY_SECONDS", "1.5")),
        messages=env.get("APIM_LLM_LOG_MESSAGES", "0") == "1",
    )
    return RunnerOptions(
        service_url=f"{env['MODEL_URL'].rstrip('/')}/openai",
        policies=Path(env.get("APIM_POLICIES") or POLICIES),
        named_values=json.loads(env.get("APIM_NAMED_VALUES", "{}")),
        backends=json.loads(env.get("APIM_BACKENDS", "{}")),
        loggers=json.loads(env.get("APIM_LOGGERS") or json.dumps({"usage-logger": env.get("USAGE_HUB", "usage")})),
        hub_connection=env.get("EventHubs") or None,
        subscriptions=json.loads(env.get("GATEWAY_KEYS", "{}")),
        products=json.loads(env.get("APIM_PRODUCTS", "{}")),
        llm_log=log,
        on_azure=bool(env.get("AZURE_OPENAI_ENDPOINT")),
    )
