"""The real function app over fake services."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from door_fakes import Doors, fake_services

from tests.support.function_app import registered_functions


@pytest.fixture(scope="session")
def doors() -> Doors:
    """Every function that function_app.py registers."""
    return Doors(registered_functions())


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The fakes that the doors reach through shared.bootstrap."""
    fakes = fake_services()

    async def app() -> SimpleNamespace:
        return fakes

    monkeypatch.setattr("shared.bootstrap.app", app)
    return fakes
