"""The gateway as a process of its own, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from local.apim.__main__ import serve
from local.apim.runner import Runner
from local.apim.settings import RunnerOptions, hashed_keys
from local.options import PROJECT
from local.process import Process, free_port
from tests.support.policy_files import Backend, write_policies


def environment(backend_url: str, policies: Path, port: int) -> dict[str, str]:
    """Settings of the process."""
    return {
        **{name: value for name, value in os.environ.items() if name != "EventHubs"},
        "MODEL_URL": backend_url,
        "APIM_POLICIES": str(policies),
        "GATEWAY_PORT": str(port),
        "GATEWAY_KEYS": json.dumps(hashed_keys({"key": "search-prod"})),
        "APIM_BACKENDS": json.dumps({"pool": f"{backend_url}/pool"}),
        "LLM_LOGS_HUB": "",
    }


async def test_the_process_serves_the_policies(mono: None, backend: Backend, tmp_path: Path) -> None:
    """Settings come from the environment; /health answers; SIGTERM ends it with code 0."""
    policies = write_policies(
        tmp_path / "policies",
        """<set-backend-service backend-id="pool" />
        <set-header name="x-greeting"><value>{{greeting}}</value></set-header>""",
        named_values={"greeting": "?"},
    )
    port = free_port()
    env = {**environment(backend.url, policies, port), "APIM_NAMED_VALUES": '{"greeting": "hello"}'}
    process = Process("apim", [sys.executable, "-m", "local.apim"], env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        process.wait_until(lambda: _is_healthy(url))
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{url}/openai/v1/chat/completions", headers={"api-key": "key"})
            assert (answer.status_code, backend.request.url.path) == (200, "/pool/v1/chat/completions")
            assert backend.request.headers["x-greeting"] == "hello"
            refused = await client.post(f"{url}/openai/v1/chat/completions", headers={"api-key": "other"})
            assert refused.status_code == 401
    finally:
        process.stop()
    assert process.exit_code == 0


@pytest.mark.parametrize("command", [("local.apim",), ("local",)])
def test_without_mono_one_line_says_what_to_install(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Nothing was started, and the exit code is 1."""
    policies = write_policies(tmp_path, '<set-variable name="a" value="@(1)" />')
    env = environment("http://127.0.0.1:9", policies, free_port())
    env |= {"PATH": str(tmp_path), "GATEWAY": "apim", "FUNCTIONS_PORT": str(free_port())}
    run = subprocess.run(
        [sys.executable, "-m", *command], env=env, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    lines = [line for line in (run.stdout + run.stderr).splitlines() if "apt-get install" in line]
    assert len(lines) == 1
    assert "mono" in lines[0]
    assert "Traceback" not in run.stderr


def test_a_policy_with_an_error_ends_the_process_with_its_line(tmp_path: Path) -> None:
    """File, line and what is wrong; exit code 1."""
    env = environment("http://127.0.0.1:9", write_policies(tmp_path, "<jsonp />"), free_port())
    run = subprocess.run(
        [sys.executable, "-m", "local.apim"],
        env=env,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr == "inbound-policy.xml:2: <jsonp>: is not a policy that this runner knows\n"


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").json()["status"] == "ok"
    except httpx.HTTPError:
        return False


async def test_a_gateway_whose_expressions_cannot_run_any_more_ends(
    mono: None, backend: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, without waiting for a call: whoever watches the process starts it again."""
    runner = Runner(RunnerOptions(backend.url, write_policies(tmp_path, '<set-variable name="a" value="@(1)" />')))
    serving = asyncio.create_task(serve(runner, 0))
    async with asyncio.timeout(15), httpx.AsyncClient() as client:
        while not runner.port:  # noqa: ASYNC110 - the runner offers no event
            await asyncio.sleep(0.01)
        url = f"{runner.url}/openai/v1/chat/completions"
        assert (await client.post(url)).status_code == 200
        assert runner.gateway.host is not None
        assert runner.gateway.host._process is not None
        runner.gateway.host._process.kill()
        assert await serving == 1
    assert "mono ended with code -9" in capsys.readouterr().err
