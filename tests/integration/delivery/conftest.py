"""What the tests of delivery share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.azure.arm import Arm
from tests.support.azure_stub import AzureStub, Sleeps, Tokens, azure_stub


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
