"""What the tests of delivery share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.azure import terraform
from scripts.azure.arm import Arm
from tests.support.azure_stub import AzureStub, Sleeps, Tokens, azure_stub
from tests.support.infra import IN_PIPELINES, terraform_environment


@pytest.fixture
def azure() -> Iterator[AzureStub]:
    """A stub of Azure Resource Manager, of a function app, of a deployment site and of a gateway."""
    with azure_stub() as stub:
        yield stub


@pytest.fixture
def tokens() -> Tokens:
    """The caller's credential."""
    return Tokens()


@pytest.fixture
def sleeps() -> Sleeps:
    """How long was waited, instead of waiting."""
    return Sleeps()


@pytest.fixture
def arm(azure: AzureStub, tokens: Tokens, sleeps: Sleeps) -> Iterator[Arm]:
    """The client against the stub."""
    with Arm(tokens, azure.url, sleep=sleeps) as client:
        yield client


@pytest.fixture
def terraform_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real terraform, as on a laptop, with its own files below `tmp_path`."""
    env = {name: value for name, value in terraform_environment().items() if name not in IN_PIPELINES}
    for name in set(os.environ) - set(env):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(terraform, "ROOT", tmp_path)
