"""A gateway per test over a small policy of its own, in front of a backend that does what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.apim.runner import Runner
from tests.support.apim import start_runner
from tests.support.policy_bench import Bench, start_bench
from tests.support.policy_files import Backend, serve_backend, write_policies

Start = Callable[..., Awaitable[Runner]]
FILES = ("inbound", "backend", "outbound", "on_error", "fragments", "named_values")


@pytest.fixture(scope="session")
async def served_backend() -> AsyncIterator[Backend]:
    """One listening backend for all tests."""
    async with serve_backend() as backend:
        yield backend


@pytest.fixture
def backend(served_backend: Backend) -> Backend:
    """The backend, as new."""
    served_backend.reset()
    return served_backend


@pytest.fixture
async def start(mono: None, backend: Backend, tmp_path: Path) -> AsyncIterator[Start]:
    """`runner = await start(inbound, backend, outbound, on_error, fragments=..., **options of start_runner)`."""
    async with AsyncExitStack() as stack:

        async def start_one(*sections: str, **options: Any) -> Runner:
            files = {name: options.pop(name) for name in FILES if name in options}
            directory = write_policies(tmp_path, *sections, **files)
            return await stack.enter_async_context(start_runner(backend.url, policies=directory, **options))

        yield start_one


@pytest.fixture(scope="module")
async def bench(mono: None) -> AsyncIterator[Bench]:
    """The project's own policies, with a model and a scripted budget service around them."""
    async with start_bench() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client."""
    async with httpx.AsyncClient(timeout=20) as client:
        yield client
