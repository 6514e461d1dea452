"""The OpenAI SDK for Node.js as its lock file pins it, one call per process.

*chunks, end = run_node(laptop, "openai", "rich", "chat", {"model": ..., "messages": ...}, headers={})
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from local.npm import find_node, install
from local.process import PartMissingError
from tests.support.laptop import API_VERSION, Laptop

E2E = Path(__file__).parent.parent / "e2e"


@cache
def node_script(package: Path, script: str, what: str) -> list[str]:
    """The command that runs a script of an npm package, its dependencies installed. Skips without Node.js."""
    try:
        program = find_node(oldest=22)
        install(package, program, what)
    except PartMissingError as missing:
        pytest.skip(f"Node.js: {missing}")
    return [str(program.program), str(package / script)]


def run_script(command: list[str], described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a script prints, one JSON object per line, when it reads `described` as JSON."""
    ended = subprocess.run(
        command, input=json.dumps(described), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def run_node(
    laptop: Laptop, kind: str, team: str, api: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One call by the class OpenAI (`kind` openai) or AzureOpenAI (azure): its chunks, then its answer or its error."""
    command = node_script(E2E / "node", "call.mjs", "the OpenAI SDK for Node.js (once, a few seconds)")
    v1 = {"baseURL": f"{laptop.url}/openai/v1", "apiKey": "unused", "defaultHeaders": {"api-key": f"local-{team}"}}
    azure = {"endpoint": laptop.url, "apiKey": f"local-{team}", "apiVersion": API_VERSION}
    options = {"maxRetries": 3, **(azure if kind == "azure" else v1)}
    return run_script(command, {"kind": kind, "options": options, "api": api, "body": body, "headers": dict(headers)})
