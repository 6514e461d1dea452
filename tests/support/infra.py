"""Terraform for tests: the real command line, on a copy of the templates, with no cloud and no registry where possible.

The providers come from `TF_REATTACH_PROVIDERS` where that is set, else from infra-check (an offline checker that serves
recorded providers: `INFRA_CHECK`, the PATH, or a folder beside the checkout), else from the registry. Where there is
none of them, or no terraform, the tests that ask for it skip and say which is missing.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# What a root module of infra/ reads, by path relative to itself.
_PARTS = ("infra", "apim-policies", "config")
_DOWNLOADS = ROOT / ".local" / "terraform-providers"
_LEFT_BEHIND = shutil.ignore_patterns(".terraform", "*.tfstate*", "__pycache__")
# A setting of the person who runs the tests must not change what terraform does in them.
IN_PIPELINES = ("CI", "TF_BUILD")  # with these set, the scripts refuse a state on the machine that they run on
_PERSONAL = ("TF_CLI_ARGS", "TF_DATA_DIR", "TF_WORKSPACE", "TF_VAR_", "TF_LOG", "ARM_")
_ECHO = """
import json, os, sys
print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(("TF_", "CHECKPOINT"))}), flush=True)
sys.stdin.read()
"""


def find_infra_check() -> Path | None:
    """The offline checker, where there is one."""
    if named := os.environ.get("INFRA_CHECK"):
        return Path(named)
    if found := shutil.which("infra-check"):
        return Path(found)
    return next(iter(sorted(ROOT.parent.glob("*/infra-check/infra-check"))), None)


def terraform_environment() -> dict[str, str]:
    """Environment variables for terraform where it needs no provider. Skips the calling test where there is none."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not on the PATH")
    own = {name: value for name, value in os.environ.items() if not name.startswith(_PERSONAL)}
    # GOGC: terraform would spend a fifth of its time on collecting garbage, and lives for seconds.
    return own | {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "GOGC": "400"}


@cache
def infra_environment() -> Mapping[str, str]:
    """Environment variables with which terraform finds its providers. Skips the calling test where it cannot."""
    own = terraform_environment()
    if "TF_REATTACH_PROVIDERS" in own:
        return own
    checker = find_infra_check()
    if checker is not None:
        return own | _serve(checker)
    _DOWNLOADS.mkdir(parents=True, exist_ok=True)  # providers are 300 MB, and every copy of the templates asks for them
    return {"TF_PLUGIN_CACHE_DIR": str(_DOWNLOADS)} | own


def _serve(checker: Path) -> dict[str, str]:
    """Start the recorded providers for as long as this process lives; what terraform must know of them."""
    command = [str(checker), "serve", "--", sys.executable, "-c", _ECHO]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    held, said = process.stdin, process.stdout
    assert held is not None
    assert said is not None
    answer = said.readline()
    if not answer:
        raise RuntimeError(f"{checker} serve ended with status {process.wait()}; its message is above")

    def stop() -> None:
        held.close()  # the echo reads until then, and the checker ends with it
        process.wait(timeout=20)

    atexit.register(stop)
    served: dict[str, str] = json.loads(answer)
    return served


@dataclass(frozen=True)
class Outcome:
    """What a terraform command said."""

    status: int
    output: str

    @property
    def passed(self) -> bool:
        return self.status == 0


@dataclass
class Run:
    """One `run` block of `terraform test`."""

    name: str
    status: str = "pending"
    problems: list[str] = field(default_factory=list)
    plan: dict[str, Any] | None = None


class Workspace:
    """A copy of the templates that may be changed and run; `folder` has the layout of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / ".data"  # terraform's own files, outside of the copied tree

    def terraform(self, *arguments: str, root: str = "infra/terraform") -> Outcome:
        """Run a terraform command in a root module of the copy."""
        environment = {**infra_environment(), "TF_DATA_DIR": str(self._data / root)}
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder / root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=240,
        )
        return Outcome(done.returncode, done.stdout)

    def init(self, root: str = "infra/terraform") -> None:
        """Find the providers. Skips the calling test where neither a checker nor a registry gives them."""
        _DOWNLOADS.parent.mkdir(exist_ok=True)
        with (_DOWNLOADS.parent / "terraform-init.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # terraform's cache of providers is not made for two at once
            done = self.terraform("init", "-backend=false", "-input=false", "-no-color", root=root)
        if not done.passed and "could not connect to" in done.output.lower():
            pytest.skip("no providers: neither infra-check nor the Terraform registry is there")
        assert done.passed, done.output

    def test(self, *arguments: str, plans: bool = True) -> dict[str, Run]:
        """`terraform test`: every run by `<file>/<name>`, with its problems and, where wanted, its plan or state.

        Problems outside of any run, such as a file that does not parse, stand under the name "".
        """
        done = self.terraform("test", "-json", *(["-verbose"] if plans else []), *arguments)
        runs: dict[str, Run] = {}
        for line in done.output.splitlines():
            message = json.loads(line)
            name = "/".join(filter(None, (Path(message.get("@testfile", "")).name, message.get("@testrun"))))
            if message["type"] == "test_run" and "status" in message["test_run"]:
                runs.setdefault(name, Run(name)).status = message["test_run"]["status"]
            elif message["type"] in ("test_plan", "test_state"):
                runs.setdefault(name, Run(name)).plan = message[message["type"]]
            elif message["type"] == "diagnostic" and message["diagnostic"]["severity"] == "error":
                found = message["diagnostic"]
                said = " ".join(filter(None, (found.get("address"), found["summary"], found.get("detail"))))
                runs.setdefault(name, Run(name)).problems.append(said)
        if not done.passed and not any(run.problems for run in runs.values()):
            runs.setdefault("", Run("")).problems.append(done.output[-2000:])
        return runs


@contextmanager
def workspace() -> Iterator[Workspace]:
    """A copy of the templates and of what they read, initialised, gone afterwards. Skips for want of providers."""
    with tempfile.TemporaryDirectory(prefix="tollkeeper-infra-") as folder:
        for part in _PARTS:
            shutil.copytree(ROOT / part, Path(folder) / part, ignore=_LEFT_BEHIND)
        space = Workspace(Path(folder))
        space.init()
        yield space
