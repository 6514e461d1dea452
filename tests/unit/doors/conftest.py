"""The real function app over fake services."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from door_fakes import Doors, fake_services

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def doors() -> Doors:
    """Every function that function_app.py registers.

    Loaded under a name of its own: an app lists its functions only once, and hosts in other tests load apps too.
    """
    spec = importlib.util.spec_from_file_location("function_app_under_test", ROOT / "function_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLKEEPER_ENV", "development")
        spec.loader.exec_module(module)
    return Doors(module.app.get_functions())


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The fakes that the doors reach through shared.bootstrap."""
    fakes = fake_services()

    async def app() -> SimpleNamespace:
        return fakes

    monkeypatch.setattr("shared.bootstrap.app", app)
    return fakes
