"""The container image, run without Docker: its files and packages alone, by its own command, against a running copy.

What the Dockerfile copies is copied, what it installs comes from gateway/requirements.txt and all that those packages
require, and nothing else of this machine is importable. Settings are those of production.
"""

from __future__ import annotations

import ast
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import Distribution, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from local.options import BUILT_IN
from local.process import free_port
from tests.support.dockerfile import ROOT, context_files, read_dockerfile
from tests.support.laptop import Laptop, eventually, start_laptop

KEY = "a-key-of-team-rich"
FILES = {
    "tenants.yaml": "tenants: [{id: default}]",
    "models.yaml": "models: [{id: gpt-4o, deployments: [gpt-4o-weu]}]",
    "prices.yaml": "prices: [{model: gpt-4o, effective_from: 2026-01-01, usd_per_million: {input: 2.5, output: 10}}]",
    "teams/rich.yaml": "{team: rich, identities: {subscriptions: [rich-prod]}, budgets: [{period: month, limit: 100}]}",
}
# What is imported when it is first needed: in a container it would be missed only then.
LATER = (
    "shared/budgets/connect.py",
    "shared/budgets/entra.py",
    "shared/config/source.py",
    "shared/credential.py",
    "shared/telemetry/__init__.py",
    "shared/telemetry/otlp.py",
    "shared/telemetry/spans.py",
    "shared/usage/hub.py",
)


def required(names: list[str]) -> dict[str, Distribution]:
    """The distributions that requirements lead to, and those that they require, by name."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name) for name in names]
    seen: set[str] = set()
    while waiting:
        asked = waiting.pop()
        if str(asked) in seen:
            continue
        seen.add(str(asked))
        found[asked.name.lower()] = of = distribution(asked.name)
        assert asked.specifier.contains(of.version, prereleases=True), f"{asked} is installed as {of.version}"
        for line in of.requires or []:
            requirement = Requirement(line)
            extras = asked.extras or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    return found


class Image:
    """What the image holds, in a folder, and processes of it."""

    def __init__(self, folder: Path) -> None:
        self.app, self.environment = folder / "app", read_dockerfile()[-1].environment
        self.spool = folder / "spool"
        self.spool.mkdir()
        for path in context_files():
            target = self.app / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, target)
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        lines = (ROOT / "gateway/requirements.txt").read_text().splitlines()
        [packages] = venv.glob("lib/python*/site-packages")
        for of in required([line for line in lines if line and not line.startswith("#")]).values():
            for top in {Path(str(file)).parts[0] for file in of.files or []} - {"..", "__pycache__"}:
                if not (packages / top).exists():
                    (packages / top).symlink_to(Path(str(of.locate_file(top))))
        self.path = venv / "bin"
        [compiled] = [text for text in read_dockerfile()[0].all("RUN") if "compileall" in text]
        assert self.run(compiled.replace("/opt/gateway/bin/", "").split()).returncode == 0

    def variables(self, **settings: str) -> dict[str, str]:
        """The environment of a process: nothing of this machine's but the path to the interpreter."""
        own = {name: value for name, value in self.environment.items() if name != "PATH"}
        return own | {"PATH": f"{self.path}:/usr/bin:/bin", "SPOOL_DIR": str(self.spool)} | settings

    def run(self, command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.app, env=self.variables(**settings), capture_output=True, text=True, check=False
        )

    def start(self, log: Path, **settings: str) -> subprocess.Popen[bytes]:
        """The image's own command."""
        command = [str(self.path / "python"), *read_dockerfile()[-1].command("CMD")[1:]]
        with log.open("wb") as output:
            return subprocess.Popen(
                command, cwd=self.app, env=self.variables(**settings), stdout=output, stderr=subprocess.STDOUT
            )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with start_laptop(tmp_path_factory.mktemp("laptop"), FILES, gateway=BUILT_IN) as running:
        yield running


def test_everything_that_is_imported_later_is_there(image: Image) -> None:
    """No package is missed only once a hub, a vault or a receiver of telemetry is first spoken to."""
    names = set()
    for path in LATER:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
    done = image.run(["python", "-c", f"import {', '.join(sorted(names))}, sys; print(*sys.modules)"])
    assert done.returncode == 0, done.stderr
    assert "azure.eventhub.aio" in done.stdout
    outside = image.run(["python", "-c", "import pyarrow"])
    assert outside.returncode != 0, "packages of the checkout are importable, so this proves nothing"


def test_the_image_serves_bills_and_stops(image: Image, laptop: Laptop, tmp_path: Path) -> None:
    """A call through it is in the ledger with its cost; its health check tells; SIGTERM ends it in good order."""
    port, log = str(free_port()), tmp_path / "image.log"
    own = {name: laptop.stack.settings[name] for name in ("REDIS_URL", "EventHubs")}
    own |= {"AZURE_OPENAI_ENDPOINT": laptop.model_url, "CONFIG_DIR": str(laptop.stack.options.config_directory)}
    own |= {"RESERVATION_KEYS": secrets.token_hex(32), "GATEWAY_NAME": "image", "GATEWAY_PORT": port}
    own |= {"GATEWAY_KEYS": f'{{"{sha256(KEY.encode()).hexdigest()}": "rich-prod"}}'}
    url = f"http://127.0.0.1:{port}"
    health = read_dockerfile()[-1].command("HEALTHCHECK")
    assert image.run(health, **own).returncode != 0, "it is healthy before it runs"
    process = image.start(log, **own)
    try:
        eventually(lambda: process.poll() is not None or _answers(f"{url}/health"))
        assert process.poll() is None, log.read_text()
        assert image.run(health, **own).returncode == 0
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20).status_code == 401
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers={"api-key": KEY}, timeout=20)
        assert answer.status_code == 200, answer.text
        tokens = answer.json()["usage"]
        [row] = eventually(lambda: laptop.rows(answer)).values()
        assert row.cost_nano_usd == tokens["prompt_tokens"] * 2_500 + tokens["completion_tokens"] * 10_000
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=60)
    assert status in (0, -signal.SIGTERM), log.read_text()
    assert not re.search(r"Traceback|ERROR", log.read_text()), log.read_text()


def test_a_missing_setting_is_named_and_ends_it(image: Image) -> None:
    """The container stops with the names of the variables, instead of serving what nobody could bill."""
    done = image.run(["python", "-m", "gateway"])
    assert done.returncode == 1
    assert "RESERVATION_KEYS: is required" in done.stderr
    assert "Traceback" not in done.stderr


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_nothing_has_to_be_compiled_at_a_start(image: Image) -> None:
    """Bytecode is there, for the process may not write any; it is taken without a look at the sources' times."""
    compiled = list(image.app.rglob("*.pyc"))
    sources = list(image.app.rglob("*.py"))
    assert len(compiled) == len(sources) > 200
    assert {path.read_bytes()[4] & 0b11 for path in compiled} == {0b01}, "unchecked, by hash"
