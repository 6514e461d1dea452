"""The gateway's container image as it is defined: what gets in, who runs it, what it may write, how it is stopped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shared.settings import Settings
from tests.infra.code_names import known_settings
from tests.support.dockerfile import ROOT, Stage, context_files, read_dockerfile

_PIN = re.compile(r"^([\w.-]+)(\[\w+\])?==(\S+)$")


@pytest.fixture(scope="module")
def build() -> Stage:
    return read_dockerfile()[0]


@pytest.fixture(scope="module")
def final() -> Stage:
    return read_dockerfile()[-1]


def pins(path: Path) -> dict[str, str]:
    """{package: version} of a requirements file, without conditions on the Python."""
    lines = [line.split(";")[0].strip() for line in path.read_text().splitlines()]
    return {match[1]: match[3] for line in lines if (match := _PIN.match(line))}


def _unset(value: str) -> str:
    """What Compose makes of `${NAME:-default}` where the shell has no NAME."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_the_linter_finds_nothing() -> None:
    """hadolint: pinned bases, no cache left behind, shells that fail."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_builder_sees_what_is_copied_and_nothing_else(build: Stage, final: Stage) -> None:
    """Every source of a COPY reaches it, and no settings, state, configuration or test does."""
    seen = context_files()
    assert final.copies == []
    sources = {source for found, _ in build.copies for source in found}
    for source in sources:
        assert any(path == source or path.startswith(f"{source}/") for path in seen), source
    assert {path.split("/")[0] for path in seen} == {"gateway", "shared"}
    assert not [path for path in seen if path.endswith(".pyc") or "__pycache__" in path]


def test_both_stages_are_one_pinned_python(build: Stage, final: Stage) -> None:
    """A virtual environment names its interpreter: the final stage must have the very one it was made with."""
    assert build.base == final.base
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", final.base)


def test_nothing_that_builds_is_in_the_final_stage(build: Stage, final: Stage) -> None:
    """It installs nothing: packages come as they were made in the first stage, which compiles nothing either."""
    assert not [text for text in final.all("RUN") if re.search(r"\b(pip|apt-get|apt|curl|gcc)\b", text)]
    install = next(text for text in build.all("RUN") if " install " in text)
    assert "--only-binary :all:" in install
    assert "--without-pip" in install
    assert final.all("COPY") == ["--from=build /opt/gateway /opt/gateway", "--from=build /app /app"]


def test_it_runs_as_somebody_who_may_write_the_spool_only(final: Stage) -> None:
    """By number, because Container Apps cannot tell whether a name is root; all else belongs to root."""
    user, group = final.one("USER").split(":")
    assert int(user) >= 10_000
    assert user == group
    [made] = [text for text in final.all("RUN") if "useradd" in text]
    assert f"--owner={user} --group={group} --mode=0700 /spool" in made
    assert "chown" not in made
    assert final.command("VOLUME") == ["/spool"] == [final.environment["SPOOL_DIR"]]


def test_a_stop_reaches_the_gateway_itself(final: Stage) -> None:
    """A shell in between would keep the signal, and the events in memory would die with the process."""
    assert final.command("CMD") == ["python", "-m", "gateway"]
    assert final.all("ENTRYPOINT") == []
    assert final.one("STOPSIGNAL") == "SIGTERM"
    assert final.environment["PYTHONUNBUFFERED"] == "1"


def test_the_port_is_the_one_it_listens_on(final: Stage) -> None:
    """By default, in the variable and in what the image says of itself."""
    assert final.one("EXPOSE") == final.environment["GATEWAY_PORT"] == str(Settings().gateway_port)


def test_what_is_set_is_read(final: Stage) -> None:
    """Every variable is Python's own or a setting of the product."""
    own = {name for name in final.environment if not name.startswith("PYTHON") and name != "PATH"}
    assert own <= known_settings()


def test_the_gateway_has_the_function_app_s_versions() -> None:
    """Both put events on one hub and count in one Redis: a package that both have is the same one."""
    gateway, functions = pins(ROOT / "gateway/requirements.txt"), pins(ROOT / "requirements.txt")
    assert len(gateway) > 10
    assert {name: v for name, v in gateway.items() if v != functions.get(name, v)} == {}
    lines = (ROOT / "gateway/requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#") and not _PIN.match(line.split(";")[0])] == []


def test_compose_runs_it_as_production_does() -> None:
    """Read-only but for the spool, without rights, with a stop that waits for what is still on its way."""
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    service = composed["services"]["gateway"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {volume.split(":")[1] for volume in service["volumes"]} == {"/spool", "/app/config"}
    assert next(volume for volume in service["volumes"] if "/app/config" in volume).endswith(":ro")
    assert set(service["environment"]) <= known_settings()
    assert "TOLLKEEPER_ENV" not in service["environment"]  # development listens on loopback, where nobody arrives
    assert all(name.startswith("127.0.0.1:") for name in service["ports"])
    given = {name: _unset(str(value)) for name, value in service["environment"].items()}
    assert Settings.for_gateway(given).environment == "production"
