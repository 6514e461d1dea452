"""function_app.py runs on Microsoft's own Python worker (azure-functions-runtime), under Python 3.13."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from local.functions_host.functions import load_app
from local.redis_server import RedisServer
from shared.usage.build import usage_event_bytes

ROOT = Path(__file__).parents[2]
RUNTIME = "azure-functions-runtime==1.3.0"
ENVIRONMENT = ROOT / ".local" / "py313"


def _find_python313() -> Path | None:
    """An interpreter that says it is 3.13: by name on the path, else installed by pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which("python3.13"), *sorted(root.glob("versions/3.13*/bin/python3.13"))]
    for candidate in filter(None, candidates):
        # Asked, not believed: pyenv puts a python3.13 on the path that fails unless that version is selected.
        command = [str(candidate), "-c", "import sys; print(*sys.version_info[:2])"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if answer.stdout.strip() == "3 13":
            return Path(candidate)
    return None


@pytest.fixture(scope="module")
def python313() -> Path:
    """Interpreter of an environment with the app's requirements and Microsoft's worker; made once, kept in .local."""
    base = _find_python313()
    if base is None:
        pytest.skip("no Python 3.13 interpreter on the path or in pyenv, which azure-functions-runtime needs")
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / ".installed-from"
    wanted = hashlib.sha256((ROOT / "requirements.txt").read_bytes() + RUNTIME.encode()).hexdigest()
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with (ENVIRONMENT.parent / "py313.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test workers make it once
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([str(base), "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
            install = [str(python), "-m", "pip", "install", "-q", "-r", str(ROOT / "requirements.txt"), RUNTIME]
            subprocess.run(install, check=True)
            stamp.write_text(wanted)
    return python


def test_the_app_runs_on_microsofts_worker(
    python313: Path,
    azurite: Azurite,
    redis_server: RedisServer,
    hub: EmbeddedHub,
    hub_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker indexes every function; one HTTP call and one batch of events work, and the event is in the ledger."""
    prefix = f"w{uuid.uuid4().hex[:10]}"
    now = datetime.now(UTC)
    event = usage_event_bytes(
        "test/worker",
        "call-1",
        now,
        {
            "tenant": "default",
            "scopes": {"team": "search"},
            "provider": "azure-openai",
            "operation": "chat",
            "requested_model": "gpt-4o",
            "model": "gpt-4o",
            "status": 200,
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        },
    )
    env = os.environ | {
        "TOLLKEEPER_ENV": "development",
        "REDIS_URL": redis_server.url,
        "EventHubs": hub.connection_string(),
        "USAGE_HUB": hub_name,
        "USAGE_CONSUMER_GROUP": "$Default",
        "LlmLogs": hub.connection_string(),
        "LLM_LOGS_HUB": f"{hub_name}-logs",
        "LLM_LOGS_CONSUMER_GROUP": "$Default",
        "LEDGER_STORAGE": azurite.connection_string,
        "LEDGER_TABLE_PREFIX": prefix,
        "RESERVATION_KEYS": uuid.uuid4().hex * 2,
        "TEST_EVENTS": json.dumps([event.decode()]),
        "TEST_ENQUEUED_TIME": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    driver = Path(__file__).with_name("drive_worker_runtime.py")
    command = [str(python313), str(driver)]
    answer = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["python"] == [3, 13]
    monkeypatch.setenv("TOLLKEEPER_ENV", "development")  # for load_app in this process
    assert found["functions"] == sorted(function.name for function in load_app(ROOT / "function_app.py"))
    assert found["health"]["ok"], found["health"]
    assert found["health"]["status"] == "200"
    assert found["ingest"] == {"ok": True, "error": None}
    with TableServiceClient.from_connection_string(azurite.connection_string) as tables:
        rows = list(tables.get_table_client(f"{prefix}ledger").list_entities())
    assert len(rows) == 1
    assert "call-1" in json.dumps(rows[0], default=str)
