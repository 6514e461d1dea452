"""The functions of an app: loaded through azure-functions itself, called one at a time."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import re
import sys
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias
from typing import Any, get_type_hints

import azure.functions as func

from local.functions_host.retries import Attempt, RetryPolicy

SUPPORTED_BINDINGS = frozenset({"httpTrigger", "http", "eventHubTrigger", "timerTrigger"})
_SETTING = re.compile(r"%([^%]+)%")


class AppError(RuntimeError):
    """The app cannot be hosted; the message says what to change."""


class Context(func.Context):
    """What a function that has a `context` parameter receives."""

    def __init__(self, function: Function, attempt: Attempt | None) -> None:
        """A new invocation of `function`."""
        self._function = function
        self._attempt = attempt
        self._invocation_id = str(uuid.uuid4())
        self._local = threading.local()

    @property
    def invocation_id(self) -> str:
        """Id of this call."""
        return self._invocation_id

    @property
    def function_name(self) -> str:
        """Name of the function."""
        return self._function.name

    @property
    def function_directory(self) -> str:
        """Directory of the app."""
        return str(self._function.directory)

    @property
    def trace_context(self) -> Any:
        """Tracing starts inside the app here; there is no caller's trace."""
        return None

    @property
    def retry_context(self) -> Any:
        """An Attempt; None for HTTP."""
        return self._attempt

    @property
    def thread_local_storage(self) -> Any:
        """Room for the app's own data."""
        return self._local


class Function:
    """One function of the app with its trigger."""

    def __init__(self, declared: Any, directory: Path) -> None:
        """`declared` is an azure-functions Function. Raises AppError for a binding this host does not have."""
        self.name: str = declared.get_function_name()
        self.directory = directory
        self.trigger: dict[str, Any] = declared.get_trigger().get_dict_repr()
        self.retry_policy = RetryPolicy.from_settings(declared.get_settings_dict("retry_policy"))
        self._handler = declared.get_user_function()
        self._wants_context = "context" in inspect.signature(self._handler).parameters
        kinds = {binding.get_dict_repr()["type"] for binding in declared.get_bindings()}
        if unsupported := kinds - SUPPORTED_BINDINGS:
            raise AppError(f"function {self.name}: this host has no {', '.join(sorted(unsupported))} binding")
        annotation = get_type_hints(self._handler).get(self.trigger["name"])
        if isinstance(annotation, GenericAlias):
            # Harmless here, but Azure's worker loads no function of an app that has one.
            raise AppError(f"function {self.name}: Azure's worker refuses {annotation!r}; write it with typing.List")

    @property
    def trigger_type(self) -> str:
        """`httpTrigger`, `eventHubTrigger` or `timerTrigger`."""
        return str(self.trigger["type"])

    async def call(self, argument: Any, attempt: Attempt | None = None) -> Any:
        """Call the function with its trigger's value; a function that is not async runs in a thread."""
        arguments = {self.trigger["name"]: argument}
        if self._wants_context:
            arguments["context"] = Context(self, attempt)
        if inspect.iscoroutinefunction(self._handler):
            return await self._handler(**arguments)
        return await asyncio.to_thread(self._handler, **arguments)


def load_app(path: Path) -> list[Function]:
    """The functions of a `function_app.py`. Raises AppError, or whatever the app raises while it is imported."""
    directory = path.resolve().parent
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    spec = importlib.util.spec_from_file_location("function_app", path)
    if spec is None or spec.loader is None or not path.exists():
        raise AppError(f"{path} does not exist")
    module = sys.modules["function_app"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    apps = [value for value in vars(module).values() if isinstance(value, func.FunctionApp)]
    if len(apps) != 1:
        raise AppError(f"{path} has {len(apps)} FunctionApp objects instead of one")
    return [Function(declared, directory) for declared in apps[0].get_functions()]


def resolve_settings(text: str, env: Mapping[str, str] = os.environ) -> str:
    """Replace %NAME% by the environment's value. Raises AppError naming a variable that is not set."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in env:
            raise AppError(f"the setting {match[1]} is not in the environment")
        return env[match[1]]

    return _SETTING.sub(value, text)


def enum_value(value: Any) -> str:
    """azure-functions gives enum members or plain strings, depending on how the app wrote them."""
    return str(getattr(value, "value", value))
