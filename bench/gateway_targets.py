"""The gateways of `bench.gateway`, each in a process of its own in front of the same fake model."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis import Redis

from bench.gateway_load import Ask
from bench.gateway_model import MODEL, PAUSED
from bench.litellm_runner import PYTHON as LITELLM_PYTHON
from local.npm import find_node, install
from local.process import Process, free_port, is_listening

_HERE = Path(__file__).parent
PORTKEY = _HERE / "portkey"
_PORTKEY_PROGRAM = PORTKEY / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
_PROMPT = "Summarise this support ticket in three sentences and name the product it is about: " * 2 + "printer " * 12
KEY = "bench-key"  # of the benchmark's team
_WHOLE_PROOF, _STREAM_PROOF = b"A ticket about printers", b"[DONE]"


@dataclass(frozen=True)
class Target:
    """Something that answers chat completions."""

    name: str
    process: Process
    whole: Ask
    stream: Ask
    paused: Ask


def target(name: str, process: Process, url: str, headers: Mapping[str, str]) -> Target:
    """A target that is asked at `url`."""

    def ask(proof: bytes, prompt: str = _PROMPT, **more: object) -> Ask:
        message = {"role": "user", "content": prompt}
        body = json.dumps({"model": MODEL, "messages": [message], "max_tokens": 200, **more}).encode()
        return Ask.of(url, headers, body, proof)

    options = {"include_usage": True}
    return Target(
        name,
        process,
        ask(_WHOLE_PROOF),
        ask(_STREAM_PROOF, stream=True, stream_options=options),
        ask(b"", PAUSED.decode(), stream=True, stream_options=options),
    )


def start_model() -> tuple[Target, str]:
    """The fake model itself, and its base URL."""
    port = free_port()
    process = _python("fake model", ["bench.gateway_model", str(port)], dict(os.environ))
    process.wait_until(lambda: is_listening(port))
    url = f"http://127.0.0.1:{port}/v1"
    return target("fake model, direct", process, f"{url}/chat/completions", {}), url


def start_litellm(model_url: str, redis_port: int) -> Target | None:
    """LiteLLM's proxy with a budget on the key, counting in Redis; None when it is not installed."""
    if not LITELLM_PYTHON.exists():
        return None
    port, directory = free_port(), Path(tempfile.mkdtemp(prefix="tollkeeper-litellm-"))
    shutil.copy(_HERE / "litellm_parts.py", directory)
    parameters = {"model": f"openai/{MODEL}", "api_base": model_url, "api_key": "unused"}
    configuration = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "litellm_settings": {"callbacks": ["litellm_parts.cost_logger"]},
        "general_settings": {"custom_auth": "litellm_parts.authenticate", "custom_auth_run_common_checks": True},
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(configuration))  # JSON is YAML
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no download of a price list
        "LITELLM_LOG": "ERROR",
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",  # it starts with none without; calls use another key
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
    }
    program = LITELLM_PYTHON.parent / "litellm"
    command: list[str | Path] = [
        program,
        "--config",
        path,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    process = Process("litellm", command, env=environment, cwd=directory, log_path=directory / "log.txt")
    process.wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health/liveliness"), timeout_seconds=120)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return target("LiteLLM proxy", process, url, {"authorization": "Bearer sk-bench"})


def require_litellm_counts(redis_port: int) -> None:
    """Raise SystemExit unless its key's spend is in Redis: it would be measured doing less than it is said to."""
    with Redis(host="127.0.0.1", port=redis_port) as client:
        if not any(client.scan_iter("spend:key:*")):
            raise SystemExit("LiteLLM's proxy counts no spend of its key")


def start_portkey(model_url: str) -> Target | None:
    """Portkey's gateway from npm, which has no budgets; None when it is not installed."""
    if not _PORTKEY_PROGRAM.exists():
        return None
    port = free_port()
    command: list[str | Path] = [find_node().program, _PORTKEY_PROGRAM, f"--port={port}", "--headless"]
    process = Process("portkey", command, env={**os.environ, "NODE_ENV": "production"}, cwd=PORTKEY)
    process.wait_until(lambda: is_listening(port))
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": model_url, "authorization": "Bearer unused"}
    return target("Portkey OSS", process, f"http://127.0.0.1:{port}/v1/chat/completions", headers)


def start_ours(model_url: str, environment: Mapping[str, str]) -> Target:
    """Our gateway as it is deployed: `python -m gateway`, with four budgets on every call."""
    port = free_port()
    env = {**os.environ, **environment, "GATEWAY_PORT": str(port)}
    env |= {"AZURE_OPENAI_ENDPOINT": model_url.removesuffix("/v1"), "AZURE_OPENAI_API_KEY": "unused"}
    process = _python("gateway", ["gateway"], env)
    process.wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), timeout_seconds=60)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    headers = {"api-key": KEY, "x-budget-scope-session": "s-42", "x-budget-scope-task": "t-7"}
    return target("ours, 4 budgets", process, url, headers)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its children so far, to the nanosecond. Linux only."""
    own = time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of another process
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return own + sum(cpu_seconds(child) for child in children)


def install_portkey() -> None:
    """Install it from its lock file, unless that is done."""
    install(PORTKEY, find_node(), "Portkey's gateway from npm (once, 25 MB)")


def _python(name: str, arguments: list[str], env: Mapping[str, str]) -> Process:
    return Process(name, [sys.executable, "-m", *arguments], env=env, cwd=_HERE.parent)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    install_portkey()
