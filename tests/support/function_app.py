"""The function app as function_app.py registers it."""

from __future__ import annotations

import importlib.util
from itertools import count
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_NUMBERS = count()


def registered_functions() -> list[Any]:
    """Every function. Loaded anew and under a name of its own: an app lists its functions only once."""
    name = f"function_app_{next(_NUMBERS)}"
    spec = importlib.util.spec_from_file_location(name, _ROOT / "function_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLKEEPER_ENV", "development")  # otherwise it asks for the platform's sign-in
        spec.loader.exec_module(module)
    functions: list[Any] = module.app.get_functions()
    return functions
